"""Generated text of balanced brackets: sequences of open and close brackets of several kinds, all closed in order."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from pydantic import Field

from stackwise_ray.config.trial import DataConfig, Positive, Strict
from stackwise_ray.data.corpora import CORPORA
from stackwise_ray.data.corpus import SPLITS, Corpus, Document

_KINDS = (("(", ")"), ("[", "]"), ("{", "}"), ("<", ">"))


@dataclass(frozen=True, kw_only=True)
class BracketSource(Strict):
    """Which brackets, how deep; the text depends on nothing but these numbers."""

    kinds: Annotated[int, Field(ge=1, le=len(_KINDS))] = 2  # kinds of brackets
    depth: Positive = 8  # most brackets that are open at once
    n_documents: Annotated[int, Field(ge=10)] = 10_000  # of the train split; the others have a tenth each


@dataclass(frozen=True, kw_only=True)
class BracketData(DataConfig):
    """The options of balanced brackets."""

    brackets: BracketSource


@CORPORA.register("brackets")
class BracketCorpus(Corpus):
    """Every document is one balanced sequence."""

    options = BracketData
    word_rule = "symbols"

    def __init__(self, config: BracketData) -> None:
        super().__init__(config)
        self.source = config.brackets

    def recipe(self) -> Mapping[str, Any]:
        return {"corpus": "brackets", **asdict(self.source)}

    def signature(self) -> Mapping[str, Any]:
        return {}

    def documents(self) -> Iterator[Document]:
        for split in SPLITS:
            count = self.source.n_documents // (1 if split == "train" else 10)
            for number in range(count):
                yield Document(split, self._balanced(random.Random(f"{split} {number}")), f"{split} {number}")

    def _balanced(self, rng: random.Random) -> str:
        text: list[str] = []
        open_ones: list[str] = []
        while len(text) < 32 or open_ones:
            if open_ones and (len(open_ones) == self.source.depth or len(text) >= 32 or rng.random() < 0.5):
                text.append(open_ones.pop())
            else:
                opening, closing = rng.choice(_KINDS[: self.source.kinds])
                text.append(opening)
                open_ones.append(closing)
        return "".join(text)
