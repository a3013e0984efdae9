"""Data: corpora and tokenizers into fingerprinted token streams, windows over them, and masking.

Reading order: `corpus` and `corpora` (documents and splits), `tokenizers` (text to ids), `preparing` and `cache`
(streams, written once per machine), `prepared` (what training gets, with the Markov oracle), `windows` (which tokens a
batch holds), `corruption` (masked-language-model inputs).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from stackwise_ray.data.corpora import CORPORA

if TYPE_CHECKING:
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

_WHERE = {
    **dict.fromkeys(("PreparedData", "TokenSplit", "leak_check"), "prepared"),
    "prepare": "preparing",
    **dict.fromkeys(
        (
            "StridedWindows",
            "TrainingOrder",
            "fixed_validation_windows",
            "gather",
            "held_out_windows",
            "strided_windows",
        ),
        "windows",
    ),
}


def __getattr__(name: str) -> Any:
    """What needs numpy is imported when it is first asked for: a corpus's options are validated without."""
    if name not in _WHERE:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
