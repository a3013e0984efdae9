"""Perplexity on WikiText-103."""

from __future__ import annotations

from stackwise_ray.core.registries import TASKS
from stackwise_ray.data.corpora.wikitext103 import WikiText103
from stackwise_ray.tasks.perplexity import Perplexity, perplexity_facts
from stackwise_ray.tasks.task import Reference


@TASKS.register("wikitext103")
class WikiText103Perplexity(Perplexity):
    """Word-level Wikipedia articles with <unk>; the test split is WikiText-2's, with fewer words unknown."""

    corpus = "wikitext103"
    facts = perplexity_facts(
        name="wikitext103",
        title="WikiText-103 perplexity",
        paper="Merity et al. 2016, Pointer Sentinel Mixture Models (arXiv 1609.07843)",
        licence="CC BY-SA 3.0",
        benchmark=WikiText103.benchmark,
        words=WikiText103.words,
        references=(
            Reference(
                metric="wikitext103/perplexity_word",
                value=37.50,
                model="GPT-2 117M, zero-shot, text de-tokenised first",
                source="Radford et al. 2019, table 3",
                split="test",
            ),
        ),
    )
