"""How every evaluation task behaves without data and with models that it is not for; `contracts` has what it states."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import datasets
import pytest

from stackwise_ray.contracts import ContractError
from stackwise_ray.contracts.tasks_contract import its_metrics_are_its_own
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.registries import TASKS
from stackwise_ray.core.trial_metrics import TRIAL_METRICS
from stackwise_ray.tasks.task import Task
from stackwise_ray.training.scoring import TrainedModel
from tests.small_trials import TRIAL, with_model

DECODER = TrainedModel(source="runs/x", folder=Path("runs/x/model"), trial=TRIAL, tokenizer="bytes", option="--run")
ENCODER = replace(DECODER, trial=with_model(family="bert", role="encoder"))


@pytest.fixture(params=TASKS.names())
def task(request: pytest.FixtureRequest) -> Task:
    return TASKS.get(request.param)()


@pytest.fixture
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_hub: None) -> Path:
    """A machine without data, without a network, with empty caches."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")  # its variable is read at import
    monkeypatch.setenv("STACKWISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("STACKWISE_DATA", str(tmp_path / "shared"))
    (tmp_path / "shared").mkdir()
    return tmp_path


def test_missing_data_are_refused_with_the_places_and_the_fix(task: Task, nothing_here: Path) -> None:
    found = task.where(None)
    assert found.place is None
    assert str(task.facts.source.folder) in found.missing
    assert f"--tasks {task.facts.name}" in found.missing
    with pytest.raises(ConfigError, match=r"(?s)shared.*fetch it with"):
        task.prepare(DECODER, None, None)


def test_a_path_without_the_data_is_refused_and_nothing_is_looked_for_elsewhere(task: Task, nothing_here: Path) -> None:
    assert str(nothing_here) in task.where(str(nothing_here)).missing
    with pytest.raises(ConfigError, match=r"data\.path = .* there; give"):
        task.prepare(DECODER, str(nothing_here), None)


@pytest.mark.parametrize("group", sorted({metric.path.partition("/")[0] for metric in TRIAL_METRICS}))
def test_a_task_that_is_called_as_the_metrics_of_trials_breaks_its_contract(group: str, task: Task) -> None:
    with TASKS.registered(group, type(task)), pytest.raises(ContractError, match="are those of trials"):
        its_metrics_are_its_own(group)


def test_only_a_task_with_items_takes_a_part_of_them(task: Task) -> None:
    task.check(DECODER, None)
    assert task.by_item is (task.facts.kind != "perplexity")
    if task.by_item:
        task.check(DECODER, 3)
    else:
        with pytest.raises(ConfigError, match=r"--limit = 3: .* no items of which some"):
            task.check(DECODER, 3)


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.facts.kind == "perplexity"])
def test_a_perplexity_is_refused_to_a_model_that_fills_masks(name: str) -> None:
    with pytest.raises(ConfigError, match=r"--tasks = .* fills in masks .* so it has no perplexity"):
        TASKS.get(name)().check(ENCODER, None)
