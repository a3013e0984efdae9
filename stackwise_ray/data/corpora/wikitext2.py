"""WikiText-2 (Merity et al. 2016): 2.1 M words of Wikipedia, 33,278 types with <eos>."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from stackwise_ray.data.corpora import CORPORA
from stackwise_ray.data.corpora._wikitext import WikiText
from stackwise_ray.data.corpus import Split
from stackwise_ray.data.places import Benchmark


@CORPORA.register("wikitext2")
class WikiText2(WikiText):
    """Word level with <unk>."""

    name = "wikitext2"
    benchmark = Benchmark(
        folder="wikitext-2",
        file_names=(
            ("train.txt", "valid.txt", "test.txt"),
            ("wiki.train.tokens", "wiki.valid.tokens", "wiki.test.tokens"),
        ),
        hub_path="Salesforce/wikitext",
        hub_name="wikitext-2-v1",
    )
    words: ClassVar[Mapping[Split, int]] = {"train": 2_088_628, "validation": 217_646, "test": 245_569}
