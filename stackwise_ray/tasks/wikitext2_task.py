"""Perplexity on WikiText-2."""

from __future__ import annotations

from stackwise_ray.core.registries import TASKS
from stackwise_ray.data.corpora.wikitext2 import WikiText2
from stackwise_ray.tasks.perplexity import Perplexity, perplexity_facts
from stackwise_ray.tasks.task import Reference


@TASKS.register("wikitext2")
class WikiText2Perplexity(Perplexity):
    """Word-level Wikipedia articles with <unk>."""

    corpus = "wikitext2"
    facts = perplexity_facts(
        name="wikitext2",
        title="WikiText-2 perplexity",
        paper="Merity et al. 2016, Pointer Sentinel Mixture Models (arXiv 1609.07843)",
        licence="CC BY-SA 3.0",
        benchmark=WikiText2.benchmark,
        words=WikiText2.words,
        references=(
            Reference(
                metric="wikitext2/perplexity_word",
                value=29.41,
                model="GPT-2 117M, zero-shot, text de-tokenised first",
                source="Radford et al. 2019, table 3",
                split="test",
            ),
        ),
    )
