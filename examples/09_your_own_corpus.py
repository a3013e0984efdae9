"""A corpus of your own, with an option of its own: sums of numbers, made without a network (about 20 seconds).

    python examples/09_your_own_corpus.py

The same file is a plugin for every command; `data.digits` is then an option like any other, and an arm can change it:

    python -m stackwise_ray.train model=decoder/llama_family/tiny data.corpus=sums data.digits=3 \
        --plugin examples/09_your_own_corpus.py
"""

import random
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from stackwise_ray.config.trial import DataConfig
from stackwise_ray.data.corpora import CORPORA
from stackwise_ray.data.corpus import Corpus, Document


@dataclass(frozen=True, kw_only=True)
class SumsData(DataConfig):
    """The options of this corpus, beside those of every corpus."""

    digits: int = 2  # of each summand


@CORPORA.register("sums")
class Sums(Corpus):
    """Lines such as ``12+34=46``; no pair of numbers is in two splits."""

    options = SumsData

    def recipe(self) -> Mapping[str, Any]:
        """All that decides the text: prepared data are kept under it."""
        return {"corpus": "sums", "digits": self.config.digits}

    def signature(self) -> Mapping[str, Any]:
        """The state of the files that are read: here are none."""
        return {}

    def documents(self) -> Iterator[Document]:
        """The splits, each in documents of 100 lines."""
        for split, n_documents in {"train": 100, "validation": 12, "test": 12}.items():
            lines = self._lines(split)
            for number in range(n_documents):
                yield Document(split, "".join(next(lines) for _ in range(100)), f"sums {split} {number}")

    def _lines(self, split: str) -> Iterator[str]:
        draw = random.Random(split)
        while True:
            a, b = (draw.randrange(10**self.config.digits) for _ in range(2))
            share = crc32(f"{a}+{b}".encode()) % 10  # a tenth of the pairs for each of the two held-out splits
            if split == ("validation", "test")[share] if share < 2 else split == "train":
                yield f"{a}+{b}={a + b}\n"


if __name__ == "__main__":
    import stackwise_ray as sw

    words = ["model=decoder/llama_family/tiny", "data.corpus=sums", "data.seq_len=64", "training.batch_tokens=512"]
    words += ["data.validation_tokens=2048", "training.budget={steps: 40}", "data.final_evaluation=fixed"]
    words += ["training.evaluations=1"]
    for digits in (1, 3):
        with tempfile.TemporaryDirectory() as folder:
            metrics = sw.train(sw.load_trial([*words, f"data.digits={digits}"]), output=folder).metrics
        print(f"{digits} digits: validation loss {metrics['validation/loss']:.3f} nats per byte")
