"""A corpus that breaks a promise fails its contract, as `doctor --plugin` asks it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from stackwise_ray.config.trial import DataConfig
from stackwise_ray.core.registries import CORPORA
from stackwise_ray.data.corpus import Corpus, Document
from stackwise_ray.plugin_checkup import check_entry


@dataclass(frozen=True, kw_only=True)
class CountingData(DataConfig):
    half: int = 50  # where counting begins again
    loud: bool = False  # whether the numbers are shouted


class Counting(Corpus):
    """Numbers in a row; what is in `named` is in the recipe."""

    options = CountingData
    named: tuple[str, ...] = ("half", "loud")

    def recipe(self) -> Mapping[str, Any]:
        return {"corpus": "counting", **{name: getattr(self.config, name) for name in self.named}}

    def signature(self) -> Mapping[str, Any]:
        return {}

    def documents(self) -> Iterator[Document]:
        for number, split in enumerate(("train", "validation", "test")):
            words = [f"{split} {i % self.config.half}" for i in range(200)]  # type: ignore[attr-defined]
            text = " ".join(words) + ("!" if self.config.loud else ".")  # type: ignore[attr-defined]
            yield Document(split, text, f"document {number}")


def failures(corpus: type[Corpus]) -> list[str]:
    with CORPORA.registered("counting", corpus):
        found = list(check_entry("corpora", "counting", title="counting"))
    return [line.detail for line in found if line.status != "ok"]


def test_a_corpus_that_keeps_its_promises_passes() -> None:
    assert failures(Counting) == []


@pytest.mark.parametrize(("named", "missing"), [(("loud",), "half"), (("half",), "loud")])
def test_an_option_that_changes_the_text_and_is_in_no_recipe_fails(named: tuple[str, ...], missing: str) -> None:
    (only,) = failures(type("Silent", (Counting,), {"named": named}))
    assert f"data.{missing} = " in only
    assert "give different documents, and neither recipe() nor signature() has the option" in only
