"""The channel mixers of the bk family: SwiGLU, and a mixture of experts that are SwiGLUs.

A channel mixer maps every position by itself and is the second residual branch of a
`stackwise_ray.models.bk.bk_model.BKBlock`.

Shape letters: B batch, N positions, D d_model, E experts.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from stackwise_ray.config.trial import ChannelMixer, ExpertsChannelMixer
from stackwise_ray.models.bk.token_mixers import residual_projection


def build_channel_mixer(channel_mixer: ChannelMixer, d_model: int, d_ff: int) -> SwiGLU | MixtureOfExperts:
    """The module of a channel mixer."""
    if isinstance(channel_mixer, ExpertsChannelMixer):
        return MixtureOfExperts(channel_mixer, d_model, d_ff)
    return SwiGLU(d_model, d_ff)


class SwiGLU(nn.Module):
    """down(SiLU(gate x) · up x), the channel mixer (Shazeer 2020, 2002.05202)."""

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.gate = nn.Linear(d_model, d_ff, bias=False)
        self.up = nn.Linear(d_model, d_ff, bias=False)
        self.down = residual_projection(d_ff, d_model, bias=False)

    def forward(self, x_BND: Tensor, scale_BNE: Tensor | None = None) -> Tensor:
        """With a scale, the hidden units are E equal groups and each group is multiplied by its number."""
        hidden = functional.silu(self.gate(x_BND)) * self.up(x_BND)
        if scale_BNE is not None:
            groups = hidden.unflatten(-1, (scale_BNE.shape[-1], -1))
            hidden = (groups * scale_BNE.to(hidden.dtype).unsqueeze(-1)).flatten(-2)
        mixed: Tensor = self.down(hidden)
        return mixed


class MixtureOfExperts(nn.Module):
    """Σ_e p_e(x) expert_e(x) over the `top_k` experts that a router p = softmax(W x) likes best.

    The weight of an expert is its probability among *all* experts (Fedus et al. 2021, Switch Transformer, 2101.03961,
    eq. 2), for every top_k: normalised over the chosen ones, a single one would weigh 1 whatever the router says, and
    the loss would give the router no gradient.

    Cost: all experts are computed for every token and the others' output is multiplied by 0, as one SwiGLU of width
    n_experts · d_ff. So a forward pass costs n_experts / top_k times the products that the output needs (4 at the
    defaults), and as much more memory; in return FLOPs depend on shapes alone, no token is dropped for want of
    capacity, and a token's output depends on no other token: the model stays causal and decodes as it was trained.
    That is what is counted. (Computing the chosen experts only needs a grouped product with a FLOP formula.)
    """

    def __init__(self, settings: ExpertsChannelMixer, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.settings = settings
        self.router = nn.Linear(d_model, settings.n_experts, bias=False)
        self.experts = SwiGLU(d_model, settings.n_experts * d_ff)

    def forward(self, x_BND: Tensor, mask_BN: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The mixed positions, and in training mode `load_balance` of what was routed (mask: 0 where not to look)."""
        logits = self.router(x_BND)
        p_BNE = logits.softmax(-1, dtype=torch.float64 if logits.dtype == torch.float64 else torch.float32)
        chosen_BNE = torch.zeros_like(p_BNE).scatter(-1, p_BNE.topk(self.settings.top_k, dim=-1).indices, 1.0)
        mixed: Tensor = self.experts(x_BND, p_BNE * chosen_BNE)
        return mixed, load_balance(p_BNE, chosen_BNE, mask_BN) if self.training else None


def load_balance(p_BNE: Tensor, chosen_BNE: Tensor, mask_BN: Tensor | None = None) -> Tensor:
    """How unevenly tokens are shared out: 1 where they are even (or p is), at most E / top_k; shape ().

    E Σ_e f_e P_e, f_e being the share of a sequence's choices that fell on expert e and P_e the mean probability of e
    (Fedus et al. 2021, eq. 4 to 6), of each sequence by itself and then the mean over sequences (as in DeepSeek-V3,
    2412.19437, eq. 17): the sum over sequences then does not depend on how a batch is cut into micro-batches and
    workers. The gradient comes through P alone, since choices have none.
    """
    if mask_BN is None:
        f_BE, mean_BE = chosen_BNE.mean(1), p_BNE.mean(1)
    else:
        kept_BN1 = mask_BN.to(p_BNE.dtype).unsqueeze(-1)
        share_BN1 = kept_BN1 / kept_BN1.sum(1, keepdim=True).clamp(min=1)
        f_BE, mean_BE = (chosen_BNE * share_BN1).sum(1), (p_BNE * share_BN1).sum(1)
    top_k_B = f_BE.sum(-1, keepdim=True).clamp(min=1)
    return p_BNE.shape[-1] * (f_BE / top_k_B * mean_BE).sum(-1).mean()
