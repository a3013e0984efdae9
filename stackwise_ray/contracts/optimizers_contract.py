"""What every optimizer promises: it lowers a loss, resumes from its state, and leaves frozen parameters alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackwise_ray.config.trial import OptimizerConfig
from stackwise_ray.contracts import NotAtHand, require
from stackwise_ray.core.errors import MissingPackageError
from stackwise_ray.optim import build_optimizer

if TYPE_CHECKING:
    import torch


def it_lowers_a_loss(name: str) -> None:
    """Fifty steps on a small regression lower the loss, and what is frozen stays to the bit."""
    model, optimizer = _made(name)
    head = model.get_parameter("2.bias")
    frozen = head.detach().clone()
    losses = [_step(model, optimizer) for _ in range(50)]
    require(losses[-1] < losses[0], f"the loss goes from {losses[0]:.4g} to {losses[-1]:.4g} in 50 steps")
    require(head.equal(frozen), "a frozen parameter has moved")


def it_resumes_from_its_state(name: str) -> None:
    """Stopped after three steps and restored from its state, it makes the same next step."""
    import copy

    model, optimizer = _made(name)
    for _ in range(3):
        _step(model, optimizer)
    again, restored = _made(name)
    again.load_state_dict(copy.deepcopy(model.state_dict()))
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    _step(model, optimizer)
    _step(again, restored)
    pairs = zip(model.parameters(), again.parameters(), strict=True)
    require(all(bool((one == other).all()) for one, other in pairs), "restored, its next step is another one")


def _made(name: str) -> tuple[torch.nn.Sequential, torch.optim.Optimizer]:
    """A small model with a frozen bias, and its optimizer.

    Raises:
        NotAtHand: The optimizer needs a package that is not installed.
    """
    import torch

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Tanh(), torch.nn.Linear(64, 1))
    model.get_parameter("2.bias").requires_grad_(False)
    try:
        return model, build_optimizer(model, OptimizerConfig(kind=name), 1e-2)
    except MissingPackageError as error:
        raise NotAtHand(str(error)) from None


def _step(model: torch.nn.Sequential, optimizer: torch.optim.Optimizer) -> float:
    import torch

    inputs = torch.randn(32, 64, generator=torch.Generator().manual_seed(1))
    loss = (model(inputs) - inputs[:, :1]).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


CHECKS = (it_lowers_a_loss, it_resumes_from_its_state)
