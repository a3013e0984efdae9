"""A component that breaks a promise fails its contract, as `doctor --plugin` asks it.

Every fault is in the test's own component; the checks, the runs and the catalogue are the real ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from stackwise_ray.contracts import contracts_of
from stackwise_ray.core.metric import Metric
from stackwise_ray.models.component import COMPONENTS, Attached, Component
from stackwise_ray.models.stack_view import stack_view
from stackwise_ray.plugin_checkup import check_entry

pytestmark = pytest.mark.usefixtures("module_cache")

CALLS = Metric(path="twice/calls", unit="calls", label="calls of the head", reported_by="a test")


class Twice(Attached):
    """Adds the loss of the head once more, on hidden states that the head has seen."""

    modelled = 1.0
    restores = True

    def __init__(self, model: Any, options: Any, *, seed: int) -> None:
        self._view, self._hidden, self._calls = stack_view(model), None, 0
        model.base_model.register_forward_hook(self._keep)

    def _keep(self, module: Any, given: Any, output: Any) -> None:
        self._hidden = output.last_hidden_state

    def auxiliary_loss(self, loss: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor | None:
        self._calls += 1
        return 0.5 * loss(self._view.logits(self._hidden))

    def modelled_flops(self, *, block: float, head: float) -> float:
        return self.modelled * head

    def after_training(self, scorer: Any) -> Any:
        yield
        return {CALLS.path: float(self._calls)}

    def state(self) -> dict[str, Any]:
        return {"calls": self._calls}

    def restore(self, state: Any) -> None:
        if self.restores:
            self._calls = state["calls"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoOptions:
    pass


class Doubled(Component):
    name = "twice"
    options = NoOptions
    metrics = (CALLS,)
    observable = CALLS.path

    def attach(self, model: Any, options: Any, *, seed: int) -> Attached:
        return Twice(model, options, seed=seed)


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    with COMPONENTS.registered("twice", Doubled()):
        yield


def failures() -> dict[str, str]:
    """What each check that fails says."""
    checks = contracts_of("components")
    found = zip(checks, check_entry("components", "twice", title="twice"), strict=True)
    return {check.__name__: line.detail for check, line in found if line.status != "ok"}


def test_a_component_that_keeps_its_promises_passes_and_leaves_no_measurement_for_plans(module_cache: Path) -> None:
    assert failures() == {}
    assert not (module_cache / "calibration.json").exists()


def test_flops_per_step_where_they_are_counted_per_sequence_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Twice, "modelled", 1 / 8)  # of the test's own component: a step has eight sequences
    found = failures()
    assert list(found) == ["its_cost_is_the_plans"]
    assert "FLOPs, and by `modelled_flops` it takes" in found["its_cost_is_the_plans"]


def test_a_state_that_is_not_taken_over_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Twice, "restores", False)  # the test's own component forgets its state
    assert set(failures()) == {"it_continues_bit_for_bit", "it_is_saved_with_its_state"}
