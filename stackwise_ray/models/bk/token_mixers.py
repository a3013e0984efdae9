"""The token mixers of the bk family: resolvents of tridiagonal matrices, and attention as their matched comparison.

A mixer maps (batch, n, d_model) to the same shape and is one residual branch of a
`stackwise_ray.models.bk.bk_model.BKBlock`. Each head has a tridiagonal matrix whose diagonal is written by the tokens,
a_i = base + (W_v x)_i, with a hop t between neighbours and a shift z = iη: a small η reaches far. `resolvent_apply`
carries values through (T − z)⁻¹; `resolvent_diagonal` reads diag (T − z)⁻¹ alone, which with one head, base −2 and η =
1 is the original model.

Decoding: a causal mixer that is given its layer of a `decoding_cache.BKCache` goes on from what is there and leaves
its own state; any number of positions may come at once, and a mask then covers the earlier positions as well.

Shape letters: B batch, N positions, H heads, P value width, F features of a head.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.cache_utils import DynamicLayer

from stackwise_ray.config.trial import AttentionMixer, Mixer, ResolventApplyMixer, ResolventDiagonalMixer
from stackwise_ray.kernels import forced_backend, resolvent_apply, resolvent_diagonal
from stackwise_ray.models.bk.decoding_cache import LastPosition
from stackwise_ray.models.mixer_rules import ETA_FLOOR

ETA_RANGE = (0.02, 1.0)
"""Initial η, spaced logarithmically over the heads: reaches of about one to a hundred positions."""

BASE_RANGE = (-1.9, 1.9)
"""Initial base of the potential over the heads, inside the band (−2, 2) of a chain with hop 1."""

ROPE_THETA = 10_000.0


def build_mixer(mixer: Mixer, d_model: int, *, causal: bool, eps: float) -> nn.Module | None:
    """The module of a mixer; None for `none`."""
    if isinstance(mixer, ResolventApplyMixer):
        return ResolventApply(mixer, d_model, causal=causal, eps=eps)
    if isinstance(mixer, ResolventDiagonalMixer):
        return ResolventDiagonal(mixer, d_model, causal=causal)
    if isinstance(mixer, AttentionMixer):
        return Attention(mixer, d_model, causal=causal)
    return None


def spread(low: float, high: float, count: int, device: torch.device | None = None) -> Tensor:
    """`count` values evenly over [low, high]; a single one lies in the middle."""
    if count == 1:
        return torch.full((1,), (low + high) / 2, device=device)
    return torch.linspace(low, high, count, device=device)


def initial_eta(heads: int, eta: float | None, device: torch.device | None = None) -> Tensor:
    """η of each head before training."""
    low, high = (math.log(bound) for bound in ETA_RANGE)
    return spread(low, high, heads, device).exp() if eta is None else torch.full((heads,), eta, device=device)


def residual_projection(d_in: int, d_model: int, *, bias: bool) -> nn.Linear:
    """The last matrix of a residual branch: its initial standard deviation is divided by √(2 n_layers)."""
    linear = nn.Linear(d_in, d_model, bias=bias)
    linear.is_residual_projection = True  # type: ignore[assignment]
    return linear


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


class TridiagonalHeads(nn.Module):
    """The tridiagonal matrices of all heads: potential from the tokens, hop, shift; each learned or fixed."""

    base: nn.Parameter | None
    hop: nn.Parameter | None
    rho: nn.Parameter | None

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        base: float | None = None,
        eta: float | None = None,
        learn: tuple[str, ...] = ("potential", "hop", "eta"),
    ) -> None:
        super().__init__()
        self.n_heads, self.fixed_base, self.initial_eta = n_heads, base, eta
        self.potential = nn.Linear(d_model, n_heads, bias=False)
        for name, learned in (("base", base is None), ("hop", "hop" in learn), ("rho", "eta" in learn)):
            self.register_parameter(name, nn.Parameter(torch.empty(n_heads)) if learned else None)

    def initial_parameters(self) -> dict[str, Tensor]:
        """Initial values of the learned scalars of each head."""
        rho = (initial_eta(self.n_heads, self.initial_eta) - ETA_FLOOR).expm1().log()
        initial = {"base": spread(*BASE_RANGE, self.n_heads), "hop": torch.ones(self.n_heads), "rho": rho}
        return {name: initial[name] for name, parameter in self.named_parameters(recurse=False)}

    def forward(
        self, x_BND: Tensor, mask_BN: Tensor | None, *, going_on: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Potential (B, H, N), hop broadcasting to (B, H, N−1), shift (H, 1).

        A masked position is cut off from its neighbours: no other position sees it, nor across it.

        Args:
            going_on: Whether there are earlier positions; the hop then broadcasts to (B, H, N), the first one leading
                to the last of them.
        """
        v = _at_least_float32(self.potential(x_BND))
        if self.base is not None:
            v = v + self.base.to(v.dtype)
        elif self.fixed_base is not None:
            v = v + self.fixed_base
        ones = v.new_ones(self.n_heads)
        hop = (ones if self.hop is None else self.hop.to(v.dtype)).unsqueeze(-1)
        if mask_BN is not None:
            kept = mask_BN[:, -(x_BND.shape[1] + going_on) :].to(v.dtype)
            hop = hop * (kept[:, 1:] * kept[:, :-1]).unsqueeze(1)
        eta = (
            initial_eta(self.n_heads, self.initial_eta, v.device).to(v.dtype)
            if self.rho is None
            else ETA_FLOOR + functional.softplus(self.rho.to(v.dtype))
        )
        return v.transpose(1, 2), hop, torch.complex(torch.zeros_like(eta), eta).unsqueeze(-1)


class HeadRMSNorm(nn.Module):
    """RMS norm over the features of each head, with a weight a feature."""

    def __init__(self, n_heads: int, features: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n_heads, features))
        self.eps = eps

    def forward(self, x_BNHF: Tensor) -> Tensor:
        normal: Tensor = functional.rms_norm(x_BNHF, x_BNHF.shape[-1:], eps=self.eps)
        return normal * self.weight


class ResolventApply(nn.Module):
    """out(norm([Re u, Im u]) · SiLU(gate)), with u = (T − z)⁻¹ (W_x x) of each head."""

    def __init__(self, settings: ResolventApplyMixer, d_model: int, *, causal: bool, eps: float) -> None:
        super().__init__()
        self.settings, self.causal, self.backend = settings, causal, forced_backend()
        heads, width = settings.n_heads, settings.d_value
        features = 2 * width + (2 if settings.diagonal_features else 0)
        self.matrix = TridiagonalHeads(d_model, heads)
        self.values = nn.Linear(d_model, heads * width, bias=False)
        self.gate = nn.Linear(d_model, heads * features, bias=False)
        self.norm = HeadRMSNorm(heads, features, eps)
        self.out = residual_projection(heads * features, d_model, bias=False)

    def projections(self) -> tuple[nn.Module, ...]:
        """Its matrices, those first that read its input."""
        return self.matrix.potential, self.values, self.gate, self.out

    def forward(self, x_BND: Tensor, mask_BN: Tensor | None = None, past: LastPosition | None = None) -> Tensor:
        potential, hop, shift = self.matrix(x_BND, mask_BN, going_on=past is not None and past.is_initialized)
        x_BHNP = self.values(x_BND).unflatten(-1, (self.settings.n_heads, self.settings.d_value)).transpose(1, 2)
        if potential.dtype == torch.float64:
            x_BHNP = x_BHNP.double()
        gradient, g = self.settings.gradient, None
        if past is not None:
            g, u = past.go_on(potential, hop, shift, x_BHNP, backend=self.backend, gradient=gradient)
        else:
            # The parametrisation guarantees what the value checks would look for.
            u = resolvent_apply(
                potential, hop, shift, x_BHNP, causal=self.causal, backend=self.backend, check=False, gradient=gradient
            )
        features = _real_features(u, potential).flatten(-2)
        if self.settings.diagonal_features:
            if g is None:
                g = resolvent_diagonal(
                    potential, hop**2, shift, causal=self.causal, backend=self.backend, check=False, gradient=gradient
                )
            features = torch.cat([features, _real_features(g, potential)], dim=-1)
        gate = functional.silu(self.gate(x_BND))
        mixed: Tensor = self.out(self.norm(features).flatten(-2).to(gate.dtype) * gate)
        return mixed


class ResolventDiagonal(nn.Module):
    """out([Re g, Im g]) with g = diag (T − z)⁻¹ of each head; plain features, as in the original."""

    def __init__(self, settings: ResolventDiagonalMixer, d_model: int, *, causal: bool) -> None:
        super().__init__()
        self.settings, self.causal, self.backend = settings, causal, forced_backend()
        self.matrix = TridiagonalHeads(
            d_model, settings.n_heads, base=settings.base, eta=settings.eta, learn=settings.learn
        )
        self.out = residual_projection(2 * settings.n_heads, d_model, bias=True)

    def projections(self) -> tuple[nn.Module, ...]:
        """Its matrices, those first that read its input."""
        return self.matrix.potential, self.out

    def forward(self, x_BND: Tensor, mask_BN: Tensor | None = None, past: LastPosition | None = None) -> Tensor:
        potential, hop, shift = self.matrix(x_BND, mask_BN, going_on=past is not None and past.is_initialized)
        gradient = self.settings.gradient
        if past is not None:
            g, _ = past.go_on(potential, hop, shift, backend=self.backend, gradient=gradient)
        else:
            g = resolvent_diagonal(
                potential, hop**2, shift, causal=self.causal, backend=self.backend, check=False, gradient=gradient
            )
        mixed: Tensor = self.out(_real_features(g, potential).flatten(-2).to(self.out.weight.dtype))
        return mixed


def _real_features(x_BHN: Tensor, like: Tensor) -> Tensor:
    """(B, H, N, ...) complex as (B, N, H, ..., 2) real in the precision of `like`; decoding computes in double."""
    narrow = x_BHN if like.dtype == torch.float64 else x_BHN.to(torch.complex64)
    return torch.view_as_real(narrow.transpose(1, 2))


class Attention(nn.Module):
    """Softmax attention with rotary positions (Su et al. 2021, 2104.09864, in the half-split form of GPT-NeoX)."""

    def __init__(self, settings: AttentionMixer, d_model: int, *, causal: bool) -> None:
        super().__init__()
        self.n_heads, self.causal = settings.n_heads, causal
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out = residual_projection(d_model, d_model, bias=False)

    def projections(self) -> tuple[nn.Module, ...]:
        """Its matrices, those first that read its input."""
        return self.qkv, self.out

    def forward(self, x_BND: Tensor, mask_BN: Tensor | None = None, past: DynamicLayer | None = None) -> Tensor:
        n, before = x_BND.shape[1], 0 if past is None else past.get_seq_length()
        q, k, v = self.qkv(x_BND).unflatten(-1, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = _rotate(q, before), _rotate(k, before)
        v = v.to(q.dtype)
        if past is not None:
            k, v = past.update(k, v)
        allowed = None
        if mask_BN is not None or (before and n > 1):
            allowed = _allowed(mask_BN, n, before + n, causal=self.causal, device=x_BND.device)
        mixed = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=allowed, is_causal=self.causal and allowed is None and not before
        )
        result: Tensor = self.out(mixed.transpose(1, 2).flatten(-2))
        return result


def _rotate(x_BHNE: Tensor, first: int = 0) -> Tensor:
    """Rotated by position, the first being number `first`."""
    n, width = x_BHNE.shape[-2:]
    dtype = torch.float64 if x_BHNE.dtype == torch.float64 else torch.float32
    half = torch.arange(0, width, 2, device=x_BHNE.device, dtype=dtype) / width
    position = torch.arange(first, first + n, device=x_BHNE.device, dtype=dtype)
    angle = position.unsqueeze(-1) * ROPE_THETA**-half
    cos, sin = angle.cos(), angle.sin()
    first_half, second_half = x_BHNE.chunk(2, dim=-1)
    rotated = torch.cat([first_half * cos - second_half * sin, second_half * cos + first_half * sin], dim=-1)
    return rotated.to(x_BHNE.dtype)


def _allowed(mask_BM: Tensor | None, n: int, m: int, *, causal: bool, device: torch.device) -> Tensor:
    """(B, 1, N, M), true where one of the last N of M positions may look at a key.

    A masked position sees itself, lest its row be empty.
    """
    key = torch.arange(m, device=device)
    query = key[m - n :, None]
    seen = key <= query if causal else torch.ones(n, m, dtype=torch.bool, device=device)
    return seen if mask_BM is None else (mask_BM.bool()[:, None, None, :] | (key == query)) & seen
