"""What a causal bk model carries from one call to the next, as a cache of transformers.

A resolvent mixer needs the last position alone: g, and in `resolvent_apply` u of every value. So a head carries one
complex number, or 1 + P, at any context. Attention carries keys and values; `none` carries nothing. `generate`, beam
search and batch selection work on it as on any cache; `BKModel` makes one where it is asked to use a cache.

Shape letters: B batch, H heads, N positions, P value width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from stackwise_ray.core.errors import ConfigError
from stackwise_ray.kernels import resolvent_apply, resolvent_diagonal
from stackwise_ray.kernels.backend import Gradient

if TYPE_CHECKING:
    from stackwise_ray.models.bk.bk_config import BKConfig


class LastPosition(DynamicLayer):  # type: ignore[no-untyped-call]
    """State of one resolvent mixer, complex128: `keys` is g (B, H, 1, 1), `values` is u (B, H, 1, P), P = 0 without u.

    Kept as the two tensors of a layer of transformers, so that its reordering, selection and offloading apply. Double
    precision, since a state that is rounded at each step would end up C·‖T − z‖/η times the rounding off.
    """

    is_croppable = False

    def go_on(
        self,
        potential: Tensor,
        hop: Tensor,
        shift: Tensor,
        values: Tensor | None = None,
        *,
        backend: str | None,
        gradient: Gradient = "adjoint",
    ) -> tuple[Tensor, Tensor]:
        """g (B, H, N) and u (B, H, N, P) of the positions that follow, complex128; the last of them is the new state.

        Args:
            potential, hop, shift, values, backend, gradient: As the causal ops of `stackwise_ray.kernels` take them.
                After the first call `hop` broadcasts to (B, H, N), its first entry leading to the last position.
                Without values u is (B, H, N, 0).
        """
        chain = Chain(potential.double(), hop.double(), shift.to(torch.complex128))
        x = chain.potential.new_empty(*potential.shape, 0) if values is None else values.double()
        before = None if self.keys is None or self.values is None else (self.keys.squeeze(-1), self.values)
        if before is not None and potential.shape[-1] == 1:
            g, u = chain.one_position(x, *before)
        else:
            if before is not None:
                chain, x = chain.attached(x, *before)
            arguments: dict[str, Any] = {"causal": True, "backend": backend, "check": False}
            g = resolvent_diagonal(chain.potential, chain.hop**2, chain.shift, gradient=gradient, **arguments)
            u = g.new_empty(*g.shape, 0)
            if values is not None:
                once: Any = gradient
                u = resolvent_apply(chain.potential, chain.hop, chain.shift, x, gradient=once, **arguments)
        self.update(g[:, :, -1:, None], u[:, :, -1:])
        return g, u

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Takes the place of what was there."""
        self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
        # Copies: a slice would keep all positions of the call in memory.
        self.keys, self.values = key_states.clone(), value_states.clone()
        return self.keys, self.values

    def crop(self, tokens_to_remove: int) -> None:
        """Refused: what the state was before is not kept."""
        if tokens_to_remove != 0 and self.is_initialized:
            raise ValueError(
                f"this cache cannot remove its last {abs(tokens_to_remove)} tokens, because a resolvent "
                "mixer keeps only the last position; decode again from the start, or copy the cache before "
                "(copy.deepcopy)"
            )


class BKCache(Cache):
    """One layer of state per block, and the number of positions that went in (padding included).

    `generate` needs one to be passed (`past_key_values`) only to prefill in chunks or to go on from an earlier text.

    Raises:
        ConfigError: The model is two-sided.

    Example:
        >>> from stackwise_ray.models.bk.bk_model import BKConfig, BKForCausalLM
        >>> model = BKForCausalLM(BKConfig()).eval()
        >>> cache = model(input_ids=torch.zeros(1, 1000, dtype=torch.long), use_cache=True).past_key_values
        >>> cache.get_seq_length(), cache.layers[0].keys.shape, cache.layers[0].values.shape
        (1000, torch.Size([1, 8, 1, 1]), torch.Size([1, 8, 1, 8]))
    """

    def __init__(self, config: BKConfig) -> None:
        if not config.causal:
            raise ConfigError(
                "= false: in a two-sided mixer each new token changes all earlier positions, so there is no state to"
                " keep between tokens; use a causal model (BKForCausalLM)",
                path="causal",
            )
        kind = config.mixer.get("kind", "resolvent_apply")
        layer: Any = LastPosition if kind.startswith("resolvent") else DynamicLayer  # in `none` it stays empty
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
        super().reset()  # type: ignore[no-untyped-call]
        self.n_positions = 0


@dataclass(frozen=True)
class Chain:
    """Some positions of a tridiagonal matrix, and what stands to their left folded into the first of them.

    Attributes:
        potential: (B, H, N) float64.
        hop: To the left neighbour of each position, broadcasting to (B, H, N); once attached, between the positions.
        shift: Broadcasting to (B, H, N), complex128.
    """

    potential: Tensor
    hop: Tensor
    shift: Tensor

    def one_position(self, x: Tensor, g: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """g and u of a single position after (g, u): one step of the recursions, without the cost of an op's call."""
        g = 1 / (self.potential - self.shift - self.hop**2 * g)
        return g, g.unsqueeze(-1) * (x + self.hop.unsqueeze(-1) * u)

    def attached(self, x: Tensor, g: Tensor, u: Tensor) -> tuple[Chain, Tensor]:
        """The chain after a position with (g, u) and its values x, as a chain that begins here, and its values.

        d_1 = a_1 − z_1 − t² g: the real part of t² g goes to the potential and its imaginary part to the shift, which
        stays above the real axis since Im g > 0. Likewise x_1 + t u.
        """
        first, inner = (self.hop[..., :1], self.hop[..., 1:]) if self.hop.shape[-1] > 1 else (self.hop, self.hop)
        outside = first**2 * g
        potential = _add_to_first(self.potential, -outside.real)
        shift = _add_to_first(self.shift.expand(potential.shape), outside - outside.real)
        return Chain(potential, inner, shift), _add_to_first(x, first.unsqueeze(-1) * u)


def _add_to_first(x: Tensor, added: Tensor) -> Tensor:
    """`x` (B, H, N, ...) with `added` (B, H, 1, ...) on its first position."""
    return torch.cat([x[:, :, :1] + added, x[:, :, 1:].to(added.dtype)], dim=2)
