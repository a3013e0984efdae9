"""What a causal bk model carries from one call to the next, as a cache of transformers.

A resolvent mixer needs the last position alone: g, and in `resolvent_apply` u of every value. So a head carries one
complex number, or 1 + P, at any context. Attention carries keys and values; `none` carries nothing. `generate`, beam
search and batch selection work on it as on any cache; `BKModel` makes one where it is asked to use a cache.

Shape letters: B batch, H heads, N positions, P value width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, DummyLayer, DynamicLayer

from stackwise_ray.core.errors import ConfigError

if TYPE_CHECKING:
    from stackwise_ray.models.bk import BKConfig


class LastPosition(DynamicLayer):  # type: ignore[misc]
    """State of one resolvent mixer, complex128: `keys` is g (B, H, 1, 1), `values` is u (B, H, 1, P), P = 0 without u.

    Kept as the two tensors of a layer of transformers, so that its reordering, selection and offloading apply. Double
    precision, since a state that is rounded at each step would end up C·‖T − z‖/η times the rounding off.
    """

    is_croppable = False

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Takes the place of what was there."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        # Copies: a slice would keep all positions of the call in memory.
        self.keys, self.values = key_states.clone(), value_states.clone()
        return self.keys, self.values

    def crop(self, tokens_to_remove: int) -> None:
        """Refused: what the state was before is not kept."""
        if tokens_to_remove != 0 and self.is_initialized:
            raise ValueError(
                f"a resolvent mixer keeps its last position alone and cannot take back {abs(tokens_to_remove)};"
                " decode again from the start, or copy the cache before (copy.deepcopy)"
            )


_LAYERS: dict[str, type[CacheLayerMixin] | type[DummyLayer]] = {
    "resolvent_apply": LastPosition,
    "resolvent_diagonal": LastPosition,
    "attention": DynamicLayer,
    "none": DummyLayer,
}


class BKCache(Cache):  # type: ignore[misc]
    """One layer of state a block, and the number of positions that went in (padding included).

    Raises:
        ConfigError: The model is two-sided.

    Example:
        >>> from stackwise_ray.models.bk import BKConfig, BKForCausalLM
        >>> model = BKForCausalLM(BKConfig()).eval()
        >>> cache = model(input_ids=torch.zeros(1, 1000, dtype=torch.long), use_cache=True).past_key_values
        >>> cache.get_seq_length(), cache.layers[0].keys.shape, cache.layers[0].values.shape
        (1000, torch.Size([1, 8, 1, 1]), torch.Size([1, 8, 1, 8]))
    """

    is_compileable = False  # states are replaced, not written in place

    def __init__(self, config: BKConfig) -> None:
        if not config.causal:
            raise ConfigError(
                "= false: in a two-sided mixer every token changes all earlier positions, so there is no state to carry"
                " on and nothing to generate with; use a causal model (BKForCausalLM)",
                path="causal",
            )
        layer = _LAYERS[config.mixer.get("kind", "resolvent_apply")]
        super().__init__(layers=[layer() for _ in range(config.num_hidden_layers)])
        self.n_positions = 0

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions that went in."""
        return self.n_positions

    def advance(self, n: int) -> None:
        """Called by the model when `n` positions have gone through all blocks."""
        self.n_positions += n

    def crop(self, tokens_to_remove: int) -> None:
        """Takes back the last positions (a negative number): attention and `none` only."""
        super().crop(tokens_to_remove)
        self.n_positions += tokens_to_remove

    def reset(self) -> None:
        """Back to no position."""
        super().reset()
        self.n_positions = 0


def attach(
    potential_BHN: Tensor, hop: Tensor, shift: Tensor, g_BH1: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The chain that goes on from a position with the cavity value g, as a chain that begins here.

    What stands to the left acts on the first position alone: d_1 = a_1 − z_1 − t² g. Its real part goes to the
    potential and its imaginary part to the shift, which stays above the real axis since Im g > 0.

    Args:
        hop: To the left neighbour of each position, broadcasting to (B, H, N).

    Returns:
        (potential, hop between the positions, shift (B, H, N), hop to the first position)
    """
    first, inner = (hop[..., :1], hop[..., 1:]) if hop.shape[-1] > 1 else (hop, hop)
    outside = first**2 * g_BH1
    potential = add_to_first(potential_BHN, -outside.real)
    every_shift = add_to_first(shift.expand(potential.shape), torch.complex(torch.zeros_like(outside.imag), outside.imag))
    return potential, inner, every_shift, first


def add_to_first(x: Tensor, added: Tensor) -> Tensor:
    """`x` (B, H, N, ...) with `added` (B, H, 1, ...) on its first position."""
    return torch.cat([x[:, :, :1] + added, x[:, :, 1:].to(added.dtype)], dim=2)
