"""Which mixer settings of the bk family fit together: checked from a config without torch, and from a saved model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stackwise_ray.config.trial import (
    AttentionMixer,
    Mixer,
    NoMixer,
    ResolventApplyMixer,
    ResolventDiagonalMixer,
)
from stackwise_ray.core.errors import ConfigError, did_you_mean
from stackwise_ray.models.family import near_divisors

ETA_FLOOR = 3e-3
"""Least η. η = floor + softplus(ρ): no clamp, which would end its gradient."""

KINDS: dict[str, type[Any]] = {
    "resolvent_apply": ResolventApplyMixer,
    "resolvent_diagonal": ResolventDiagonalMixer,
    "attention": AttentionMixer,
    "none": NoMixer,
}


def mixer_settings(mixer: Mapping[str, Any], d_model: int) -> Mixer:
    """The checked settings of a plain mapping, as it stands in a saved model's config.

    Raises:
        ConfigError: Unknown kind or key, or settings that contradict each other.
    """
    fields = dict(mixer)
    kind = fields.get("kind", "resolvent_apply")
    if kind not in KINDS:
        raise ConfigError(f"= {kind} is unknown; {did_you_mean(str(kind), KINDS)}", path="model.mixer.kind")
    known = set(KINDS[kind].__dataclass_fields__)
    for key in fields:
        if key not in known:
            raise ConfigError(f"{kind} has no such key; {did_you_mean(key, known)}", path=f"model.mixer.{key}")
    if "learn" in fields:
        fields["learn"] = tuple(fields["learn"])
    settings: Mixer = KINDS[kind](**fields)
    check_mixer(settings, d_model)
    return settings


def check_mixer(mixer: Mixer, d_model: int) -> None:
    """Refuses settings that contradict each other or the width of the model.

    Raises:
        ConfigError: Names the key, its value and what to choose instead.
    """
    if isinstance(mixer, AttentionMixer) and d_model % (2 * mixer.n_heads):
        raise ConfigError(
            f"= {mixer.n_heads} does not cut d_model = {d_model} into heads of even width (rotary positions need it);"
            f" choose {near_divisors(d_model // 2, mixer.n_heads)}",
            path="model.mixer.n_heads",
        )
    if not isinstance(mixer, ResolventDiagonalMixer):
        return
    if "potential" not in mixer.learn:
        raise ConfigError(
            f"= {list(mixer.learn)} lacks potential: the mixer would not read its input; add potential",
            path="model.mixer.learn",
        )
    if mixer.gradient == "diagonal" and "hop" in mixer.learn:
        raise ConfigError(
            "= diagonal gives the hop no gradient; take hop out of model.mixer.learn or choose gradient: adjoint",
            path="model.mixer.gradient",
        )
    if mixer.eta is not None and "eta" in mixer.learn and mixer.eta <= ETA_FLOOR:
        raise ConfigError(
            f"= {mixer.eta:g} is not above the floor {ETA_FLOOR:g} of a learned eta; raise it or take eta out of"
            " model.mixer.learn",
            path="model.mixer.eta",
        )
