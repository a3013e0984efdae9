"""The Penn Treebank as language models use it (Mikolov et al. 2010): 10,000 types with <eos>, one sentence per line.

The files say nothing of where an article ends, so a split counts as one document.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from stackwise_ray.data.corpora import CORPORA
from stackwise_ray.data.corpus import SPLITS, Corpus, Document, Split, file_signature
from stackwise_ray.data.places import Benchmark, BenchmarkData


@CORPORA.register("ptb")
class PennTreebank(Corpus):
    """Official splits; one <eos> per line, as the papers count."""

    word_rule = "whitespace and line ends"
    separated = False
    benchmark: ClassVar[Benchmark] = Benchmark(
        folder="ptb",
        file_names=(("ptb.train.txt", "ptb.valid.txt", "ptb.test.txt"),),
        hub_path="ptb-text-only/ptb_text_only",
        hub_name="penn_treebank",
        hub_revision="refs/convert/parquet",
    )
    words: ClassVar[Mapping[Split, int]] = {"train": 929_589, "validation": 73_760, "test": 82_430}

    options = BenchmarkData

    def __init__(self, config: BenchmarkData) -> None:
        super().__init__(config)
        self._files = self.benchmark.find(config)

    def recipe(self) -> Mapping[str, Any]:
        return {"corpus": "ptb", "split": "official", "documents": "splits"}

    def signature(self) -> Mapping[str, Any]:
        if self._files is None:
            return {"hub": [self.benchmark.hub_path, self.benchmark.hub_name]}
        return {"files": [file_signature(path) for path in self._files.values()]}

    def documents(self) -> Iterator[Document]:
        for split in SPLITS:
            yield Document(split, self._text(split), f"ptb {split}")

    def expected_words(self) -> Mapping[Split, int]:
        return self.words

    def size_bytes(self) -> int | None:
        return None if self._files is None else sum(path.stat().st_size for path in self._files.values())

    def _text(self, split: Split) -> str:
        if self._files is not None:
            return self._files[split].read_text(encoding="utf-8")
        # The hub's rows are the lines without the spaces around them.
        return "".join(f" {row.strip()} \n" for row in self.benchmark.hub_rows(self.config, split, "sentence"))
