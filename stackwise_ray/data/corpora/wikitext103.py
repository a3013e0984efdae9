"""WikiText-103 (Merity et al. 2016): 103 M words of Wikipedia, 267,735 types with <eos>."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from stackwise_ray.data.corpora import CORPORA
from stackwise_ray.data.corpora._wikitext import WikiText
from stackwise_ray.data.corpus import Split
from stackwise_ray.data.places import Benchmark


@CORPORA.register("wikitext103")
class WikiText103(WikiText):
    """Word level with <unk>; validation and test are those of WikiText-2."""

    name = "wikitext103"
    benchmark = Benchmark(
        folder="wikitext-103",
        file_names=(
            ("train.txt", "valid.txt", "test.txt"),
            ("wiki.train.tokens", "wiki.valid.tokens", "wiki.test.tokens"),
        ),
        hub_path="Salesforce/wikitext",
        hub_name="wikitext-103-v1",
    )
    words: ClassVar[Mapping[Split, int]] = {"train": 103_227_021, "validation": 217_646, "test": 245_569}
