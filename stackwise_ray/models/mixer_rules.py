"""Which mixer settings of the bk family fit together: checked from a config without torch, and from a saved model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stackwise_ray.config.trial import (
    AttentionMixer,
    ChannelMixer,
    ExpertsChannelMixer,
    Mixer,
    NoMixer,
    ResolventApplyMixer,
    ResolventDiagonalMixer,
    SwiGLUChannelMixer,
)
from stackwise_ray.core.errors import ConfigError, did_you_mean
from stackwise_ray.core.quantities import near_divisors

ETA_FLOOR = 3e-3
"""Least η. η = floor + softplus(ρ): no clamp, which would end its gradient."""

KINDS: dict[str, type[Any]] = {
    "resolvent_apply": ResolventApplyMixer,
    "resolvent_diagonal": ResolventDiagonalMixer,
    "attention": AttentionMixer,
    "none": NoMixer,
}


CHANNEL_KINDS: dict[str, type[Any]] = {"swiglu": SwiGLUChannelMixer, "mixture_of_experts": ExpertsChannelMixer}


def mixer_settings(mixer: Mapping[str, Any], d_model: int) -> Mixer:
    """The checked settings of a plain mapping, as it stands in a saved model's config.

    Raises:
        ConfigError: Unknown kind or key, or settings that contradict each other.
    """
    fields = dict(mixer)
    if "learn" in fields:
        fields["learn"] = tuple(fields["learn"])
    settings: Mixer = _settings(fields, KINDS, path="model.mixer")
    check_mixer(settings, d_model)
    return settings


def channel_mixer_settings(channel_mixer: Mapping[str, Any]) -> ChannelMixer:
    """The same for the channel mixer."""
    settings: ChannelMixer = _settings(channel_mixer, CHANNEL_KINDS, path="model.channel_mixer")
    check_channel_mixer(settings)
    return settings


def _settings(fields: Mapping[str, Any], kinds: Mapping[str, type[Any]], *, path: str) -> Any:
    """Without a kind, the first of `kinds`."""
    kind = fields.get("kind", next(iter(kinds)))
    if kind not in kinds:
        raise ConfigError(f"= {kind} is unknown; {did_you_mean(str(kind), kinds)}", path=f"{path}.kind")
    known = set(kinds[kind].__dataclass_fields__)
    for key in fields:
        if key not in known:
            raise ConfigError(f"{kind} has no such key; {did_you_mean(key, known)}", path=f"{path}.{key}")
    return kinds[kind](**fields)


def check_mixer(mixer: Mixer, d_model: int) -> None:
    """Refuses settings that contradict each other or the width of the model.

    Raises:
        ConfigError: Names the key, its value and what to choose instead.
    """
    if isinstance(mixer, AttentionMixer) and d_model % (2 * mixer.n_heads):
        raise ConfigError(
            f"= {mixer.n_heads} does not divide d_model = {d_model} into heads of even width, which rotary "
            f"positions need; choose {near_divisors(d_model // 2, mixer.n_heads)}",
            path="model.mixer.n_heads",
        )
    if not isinstance(mixer, ResolventDiagonalMixer):
        return
    if "potential" not in mixer.learn:
        raise ConfigError(
            f"= {list(mixer.learn)} lacks potential, and without it the mixer does not read its input; add potential",
            path="model.mixer.learn",
        )
    if mixer.gradient == "diagonal" and "hop" in mixer.learn:
        raise ConfigError(
            "= diagonal gives the hop no gradient, but model.mixer.learn contains hop; remove it there, "
            "or write gradient: adjoint",
            path="model.mixer.gradient",
        )
    if mixer.eta is not None and "eta" in mixer.learn and mixer.eta <= ETA_FLOOR:
        raise ConfigError(
            f"= {mixer.eta:g} is not above {ETA_FLOOR:g}, the least value of a learned eta; raise it, or "
            "remove eta from model.mixer.learn",
            path="model.mixer.eta",
        )


def check_channel_mixer(channel_mixer: ChannelMixer) -> None:
    """Refuses settings that contradict each other.

    Raises:
        ConfigError: Names the key, its value and what to choose instead.
    """
    if isinstance(channel_mixer, ExpertsChannelMixer) and not 1 <= channel_mixer.top_k <= channel_mixer.n_experts:
        most = channel_mixer.n_experts
        raise ConfigError(
            f"= {channel_mixer.top_k} is not between 1 and n_experts = {most}; choose 1 to {most}",
            path="model.channel_mixer.top_k",
        )
