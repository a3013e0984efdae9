"""The optimizer: which parameters it decays, and one update worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stackwise_ray.config.trial import OptimizerConfig
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.optim import OPTIMIZERS, build_optimizer
from stackwise_ray.optim.groups import parameter_groups


class TinyModel(nn.Module):
    """The parts that matter to decay: token and position tables, a matrix, a bias, a norm, a tied head."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(7, 4)
        self.positions = nn.Embedding(5, 4)
        self.mix = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.tokens.weight

    def get_input_embeddings(self) -> nn.Embedding:
        return self.tokens


def names_by_decay(model: nn.Module) -> dict[float, list[str]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, 0.1)
    return {group["weight_decay"]: [names[id(one)] for one in group["params"]] for group in groups}


def test_matrices_and_the_token_table_are_decayed_and_nothing_else():
    assert names_by_decay(TinyModel()) == {
        0.1: ["tokens.weight", "mix.weight"],
        0.0: ["positions.weight", "mix.bias", "norm.weight", "norm.bias"],
    }


def test_a_frozen_parameter_is_in_no_group_and_an_empty_group_is_left_out():
    model = TinyModel().requires_grad_(False)
    model.norm.weight.requires_grad_(True)
    assert names_by_decay(model) == {0.0: ["norm.weight"]}


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_the_first_update_is_the_sign_of_the_gradient_after_decay(decay):
    # AdamW, first step: m̂ = g, v̂ = g², so w ← w(1 − lr·decay) − lr·g/(|g| + eps)
    model = nn.Linear(2, 1, bias=False).double()
    before = model.weight.detach().clone()
    gradient = torch.tensor([[3.0, -0.5]], dtype=torch.float64)
    optimizer = build_optimizer(model, OptimizerConfig(weight_decay=decay, eps=1e-8), lr=0.01)
    model.weight.grad = gradient
    optimizer.step()
    expected = before * (1 - 0.01 * decay) - 0.01 * gradient / (gradient.abs() + 1e-8)
    torch.testing.assert_close(model.weight.detach(), expected, rtol=0, atol=1e-12)


def test_an_unknown_optimizer_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match="unknown optimizer 'adamx'; did you mean 'adamw'"):
        build_optimizer(nn.Linear(1, 1), OptimizerConfig(kind="adamx"), lr=0.1)


def test_the_modules_beside_the_rules_are_not_offered_as_optimizers():
    assert {"schedules", "groups"}.isdisjoint(OPTIMIZERS.names())
    assert "adamw" in OPTIMIZERS
