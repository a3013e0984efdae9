"""The corpora by name: one file and one registration add another.

`CORPORA.names()` lists them without importing any; a corpus is a class of `stackwise_ray.data.corpus.Corpus` that is
built from the trial's `DataConfig`.
"""

from __future__ import annotations

from stackwise_ray.core import registries
from stackwise_ray.core.registry import Registry
from stackwise_ray.data.corpus import Corpus

CORPORA: Registry[type[Corpus]] = registries.CORPORA
