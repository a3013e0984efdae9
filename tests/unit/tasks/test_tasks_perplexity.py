"""The unigram floor by hand, and the words that it counts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stackwise_ray.config.trial import data_config
from stackwise_ray.data.corpus import Corpus, Document, WordRule
from stackwise_ray.data.preparing import count_words, words_of
from stackwise_ray.tasks.perplexity import kept_unigram_nll, unigram_nll


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


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("whitespace", ["one", "two", "three"]),
        ("whitespace and line ends", ["one", "two", "<eos>", "three", "<eos>", "<eos>"]),
        ("symbols", list(" one two \n three  \n\n")),
    ],
)
def test_the_words_of_a_text_are_those_that_a_perplexity_per_word_divides_by(rule: WordRule, words: list[str]) -> None:
    text = " one two \n three  \n\n"
    assert list(words_of(text, rule)) == words
    assert count_words(text, rule) == len(words)


def test_a_floor_is_counted_once_per_text_and_again_where_it_was_damaged_or_the_text_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STACKWISE_CACHE", str(tmp_path))
    read = []

    class Counted(Sentences):
        version = 1

        def recipe(self) -> dict[str, Any]:
            return {"version": self.version}

        def documents(self) -> Iterator[Document]:
            read.append(self.version)
            yield from super().documents()

    corpus = Counted(data_config(corpus="python_stdlib"))
    wanted = unigram_nll(Sentences(data_config(corpus="python_stdlib")))
    assert [kept_unigram_nll(corpus) for _ in range(2)] == [wanted, wanted]
    assert read == [1]
    (file,) = tmp_path.rglob("floor.json")
    file.write_text("{")
    assert kept_unigram_nll(corpus) == wanted
    assert read == [1, 1]
    monkeypatch.setattr(Counted, "version", 2)  # the test's own corpus changes
    assert kept_unigram_nll(corpus) == wanted
    assert read == [1, 1, 2]


@pytest.mark.parametrize(
    ("part", "other"),
    [
        ("recipe", lambda corpus: {"how": "otherwise"}),
        ("signature", lambda corpus: {"files": [["text.txt", 2]]}),
        ("word_rule", "whitespace"),
    ],
)
def test_a_floor_is_of_one_recipe_one_signature_and_one_rule_of_words(
    part: str, other: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STACKWISE_CACHE", str(tmp_path))
    config = data_config(corpus="python_stdlib")

    class Longer(Sentences):
        def documents(self) -> Iterator[Document]:
            yield from super().documents()
            yield Document("train", "c c c \n", "more")

    changed = type("Changed", (Longer,), {part: other})(config)
    before, wanted = kept_unigram_nll(Sentences(config)), unigram_nll(changed)
    assert before != wanted
    assert kept_unigram_nll(changed) == wanted
    assert kept_unigram_nll(Sentences(config)) == before
