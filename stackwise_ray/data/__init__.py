"""Data: corpora and tokenizers into fingerprinted token streams, windows over them, and masking.

Reading order: `corpus` and `corpora` (documents and splits), `tokenizers` (text to ids), `preparing` and `cache`
(streams written once a machine), `prepared` (what training gets, with the Markov oracle), `windows` (which tokens a
batch holds), `corruption` (masked-language-model inputs).
"""

from __future__ import annotations

from stackwise_ray.data.corpora import CORPORA
from stackwise_ray.data.prepared import PreparedData, TokenSplit, leak_check
from stackwise_ray.data.preparing import prepare
from stackwise_ray.data.windows import (
    StridedWindows,
    TrainingOrder,
    fixed_validation_windows,
    gather,
    held_out_windows,
    strided_windows,
)

__all__ = [
    "CORPORA",
    "PreparedData",
    "StridedWindows",
    "TokenSplit",
    "TrainingOrder",
    "fixed_validation_windows",
    "gather",
    "held_out_windows",
    "leak_check",
    "prepare",
    "strided_windows",
]
