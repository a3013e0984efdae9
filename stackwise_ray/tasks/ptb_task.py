"""Perplexity on the Penn Treebank."""

from __future__ import annotations

from stackwise_ray.core.registries import TASKS
from stackwise_ray.data.corpora.ptb import PennTreebank
from stackwise_ray.tasks.perplexity import Perplexity, perplexity_facts
from stackwise_ray.tasks.task import Reference


@TASKS.register("ptb")
class PennTreebankPerplexity(Perplexity):
    """Lower-case newswire of 10,000 types, a sentence per line."""

    corpus = "ptb"
    facts = perplexity_facts(
        name="ptb",
        title="Penn Treebank perplexity",
        paper="Mikolov et al. 2010, Recurrent neural network based language model; Marcus et al. 1993",
        licence="LDC user agreement, research use only",
        benchmark=PennTreebank.benchmark,
        words=PennTreebank.words,
        references=(
            Reference(
                metric="ptb/perplexity_word",
                value=141.2,
                model="interpolated Kneser-Ney 5-gram, trained on the train split",
                source="Mikolov et al. 2011, Empirical Evaluation and Combination of Advanced LM Techniques",
                split="test",
            ),
            Reference(
                metric="ptb/perplexity_word",
                value=65.85,
                model="GPT-2 117M, zero-shot, text de-tokenised first",
                source="Radford et al. 2019, table 3",
                split="test",
            ),
        ),
    )
