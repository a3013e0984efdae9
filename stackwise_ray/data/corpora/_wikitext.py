"""What WikiText-2 and WikiText-103 share: word-level text with <unk>, one <eos> per line, one article per document."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from stackwise_ray.data.corpus import SPLITS, Corpus, Document, Split, file_signature
from stackwise_ray.data.places import Benchmark, BenchmarkData

_ARTICLE = re.compile(r"^ \n(?= = [^=\n][^\n]* = \n \n)", re.MULTILINE)
"""An article begins with an empty line, its title between single = signs, and another empty line. (A few tables
hold lines that look like titles; they have no empty lines around them.)"""


class WikiText(Corpus):
    """Official splits; nothing is put between documents, so that token counts equal the published ones."""

    word_rule = "whitespace and line ends"
    separated = False
    name: ClassVar[str]
    benchmark: ClassVar[Benchmark]
    words: ClassVar[Mapping[Split, int]]

    options = BenchmarkData

    def __init__(self, config: BenchmarkData) -> None:
        super().__init__(config)
        self._files = self.benchmark.find(config)

    def recipe(self) -> Mapping[str, Any]:
        return {"corpus": self.name, "split": "official", "documents": "articles"}

    def signature(self) -> Mapping[str, Any]:
        if self._files is None:
            return {"hub": [self.benchmark.hub_path, self.benchmark.hub_name]}
        return {"files": [file_signature(path) for path in self._files.values()]}

    def documents(self) -> Iterator[Document]:
        for split in SPLITS:
            for i, article in enumerate(articles(self._text(split))):
                yield Document(split, article, f"{self.name} {split} article {i}")

    def expected_words(self) -> Mapping[Split, int]:
        return self.words

    def size_bytes(self) -> int | None:
        return None if self._files is None else sum(path.stat().st_size for path in self._files.values())

    def _text(self, split: Split) -> str:
        if self._files is not None:
            return self._files[split].read_text(encoding="utf-8")
        # The hub's copy has one row per line and stores the empty ones, " \n" in the files, as "".
        return "".join(row or " \n" for row in self.benchmark.hub_rows(self.config, split, "text"))


def articles(text: str) -> Iterator[str]:
    """The articles of a split; together they are the text.

    >>> text = " \\n = A = \\n \\n one \\n \\n = = Part = = \\n \\n two \\n \\n = B = \\n \\n three \\n"
    >>> [article.split()[1] for article in articles(text)]
    ['A', 'B']
    """
    starts = [match.start() for match in _ARTICLE.finditer(text)]
    if not starts or starts[0] > 0:
        starts.insert(0, 0)
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        yield text[start:end]
