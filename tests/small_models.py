"""A small model of every family and role, for tests over all of them; a family that is new has to be added here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from stackwise_ray.config.trial import (
    AttentionMixer,
    ExpertsChannelMixer,
    ModelConfig,
    NoMixer,
    ResolventApplyMixer,
    ResolventDiagonalMixer,
)
from tests.small_trials import TRIAL, with_model

QUICK = ("bert", "gpt2")
"""Whose cases stay among the fast tests where a test trains or plans: one encoder and one decoder."""


def mostly_slow(values: dict[str, Any], quick: tuple[str, ...] = QUICK) -> list[Any]:
    """Parameters by name, all but the quick ones marked slow."""
    return [pytest.param(v, id=name, marks=() if name in quick else pytest.mark.slow) for name, v in values.items()]


KINDS = ("gpt2", "bert", "bk encoder")
"""One model of each structure: a decoder, an encoder with norms after its sums, the resolvent."""


def cells(
    names: Iterable[str], settings: Sequence[str], *, quick: Iterable[Any] = (), kinds: Iterable[str] = KINDS
) -> list[Any]:
    """(name, setting) of a matrix whose cells are dear: the kinds with every setting, each other model with one of
    them in turn; the rest is `exhaustive`.

    Args:
        quick: Names or cells that are not slow.
    """
    found = []
    for column, setting in enumerate(settings):
        for row, name in enumerate(names):
            marks = [] if name in quick or (name, setting) in quick else [pytest.mark.slow]
            if name not in kinds and row % len(settings) != column:
                marks.append(pytest.mark.exhaustive)
            found.append(pytest.param(name, setting, marks=marks))
    return found


def mostly_exhaustive(values: dict[str, Any], kept: Iterable[str], quick: tuple[str, ...] = QUICK) -> list[Any]:
    """As `mostly_slow`, and those that are not among the kept ones are `exhaustive`: other tests of the module have
    every model."""
    return [
        pytest.param(
            v,
            id=name,
            marks=[
                *([] if name in quick else [pytest.mark.slow]),
                *([] if name in kept else [pytest.mark.exhaustive]),
            ],
        )
        for name, v in values.items()
    ]


def _model(**changes: object) -> ModelConfig:
    return with_model(TRIAL, **changes).model


MODELS = {
    "gpt2": _model(),
    "llama": _model(family="llama", d_ff=24, n_kv_heads=1),
    "bert": _model(family="bert", role="encoder"),
    "modernbert": _model(family="modernbert", role="encoder", d_ff=24),
    "bk encoder": _model(family="bk", role="encoder", n_heads=None, mixer=ResolventApplyMixer(n_heads=2)),
    "bk apply": _model(family="bk", n_heads=None, mixer=ResolventApplyMixer(n_heads=2, diagonal_features=True)),
    "bk diagonal": _model(family="bk", n_heads=None, mixer=ResolventDiagonalMixer(n_heads=4)),
    "bk attention": _model(family="bk", n_heads=None, mixer=AttentionMixer(n_heads=2)),
    "bk without a mixer": _model(family="bk", n_heads=None, mixer=NoMixer()),
    "bk with experts": _model(
        family="bk", n_heads=None, mixer=ResolventApplyMixer(n_heads=2), channel_mixer=ExpertsChannelMixer(top_k=2)
    ),
}
