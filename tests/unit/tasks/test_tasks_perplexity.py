"""The unigram floor by hand, and the words that it counts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from stackwise_ray.config.trial import data_config
from stackwise_ray.data.corpus import Corpus, Document
from stackwise_ray.data.preparing import count_words
from stackwise_ray.tasks.perplexity import unigram_nll, words_of


class Sentences(Corpus):
    """Trained on a b a and a line end, tested on a, an unseen word and a line end."""

    word_rule = "whitespace and line ends"

    def recipe(self) -> dict[str, Any]:
        return {}

    signature = recipe

    def documents(self) -> Iterator[Document]:
        yield Document("train", "a b a \n", "train")
        yield Document("validation", "b b b b \n", "validation")
        yield Document("test", "a c \n", "test")


def test_the_floor_is_the_frequency_of_each_word_in_the_train_split_plus_one() -> None:
    # Four words of three types: a 2, b 1, <eos> 1; each count plus one, and one for what was never seen: 4 + 3 + 1.
    by_hand = -math.log(3 / 8) - math.log(1 / 8) - math.log(2 / 8)
    assert unigram_nll(Sentences(data_config(corpus="python_stdlib"))) == pytest.approx(by_hand)


def test_the_floor_counts_the_words_that_a_perplexity_per_word_divides_by() -> None:
    text = " one two \n three  \n\n"
    for rule in ("whitespace", "whitespace and line ends", "symbols"):
        assert len(list(words_of(text, rule))) == count_words(text, rule)  # type: ignore[arg-type]
