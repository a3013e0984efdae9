"""For every metric with a direction: the report, the driver's verdict, the models that stay and the search agree."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

import analysis
from analysis.anytime.adaptive_verdicts import anytime_arguments, compare_in_order
from stackwise_ray.config.loading import load_sweep
from stackwise_ray.config.space.comparisons import resolve_questions
from stackwise_ray.config.space.designs import Design, expand
from stackwise_ray.config.space.sweep_config import AdaptiveSeeds, ObjectiveEntry, Replicates, SweepConfig
from stackwise_ray.config.trial.registered import NamedOptions
from stackwise_ray.core.comparison_records import read_questions
from stackwise_ray.core.metric_catalogue import find_metric, metric_paths
from stackwise_ray.core.records import TrialRecord, table_row
from stackwise_ray.core.registries import ANALYSES
from stackwise_ray.distributed.driver import _keep_models
from stackwise_ray.tracking.journal import Journal
from stackwise_ray.trials.proposals import source_for
from stackwise_ray.trials.sources import SearchedSource
from tests.unit.trials.ended_trials import ended_trial

DIRECTED = [path for path in metric_paths() if (metric := find_metric(path)) and metric.direction]
BASE = "base: {model: decoder/gpt2_family/tiny, data: markov, overrides: {training.budget: {steps: 50}}}\n"
ARMS = BASE + "name: two\ndesign: {kind: arms, arms: {low: {}, high: {training.lr: 2.0e-3}}, baseline: low}\n"
SEARCH = BASE + "name: points\ndesign: {kind: search}\nsearch: {trials: 2, space: {training.lr: [1.0e-3, 2.0e-3]}}\n"


def load(folder: Path, text: str) -> SweepConfig:
    file = folder / "space.yaml"
    file.write_text(text)
    return load_sweep(file)


@pytest.fixture(scope="module")
def arms(tmp_path_factory: pytest.TempPathFactory) -> tuple[SweepConfig, Design]:
    """Two arms, and what they expand to."""
    sweep = load(tmp_path_factory.mktemp("arms"), ARMS)
    return sweep, expand(sweep)


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> SweepConfig:
    """A search."""
    return load(tmp_path_factory.mktemp("search"), SEARCH)


def trial(metric: str, arm: str, seed: int) -> TrialRecord:
    """A finished replicate: `high` has the larger values, and grows with its seed."""
    value = {"low": 1.0, "high": 1.5}[arm] + 0.01 * seed + (0.001 * seed**2 if arm == "high" else 0.0)
    return ended_trial(f"{arm}-{seed}", arm, seed, {metric: value, "steps/total": 50.0})


@pytest.mark.parametrize("metric", DIRECTED)
def test_everybody_knows_the_same_direction(
    metric: str, arms: tuple[SweepConfig, Design], search: SweepConfig, tmp_path: Path, journal: Journal
) -> None:
    record = find_metric(metric)
    assert record is not None
    higher = record.direction == "maximize"
    sweep = replace(
        arms[0],
        objective=(ObjectiveEntry(metric=metric),),
        analysis=(NamedOptions({"compare": ANALYSES.get("compare").options(metric=metric)}),),
        replicates=Replicates(seeds=AdaptiveSeeds(min=3, max=9)),
    )
    trials = [trial(metric, arm, seed) for seed in range(6) for arm in ("low", "high")]
    runs = pd.DataFrame([table_row(found) for found in trials])

    resolved = resolve_questions(sweep, [arm.name for arm in arms[1].arms], "steps")
    questions = read_questions({"questions": json.loads(json.dumps(resolved.to_plain()))})
    assert questions == resolved
    driver = compare_in_order(runs, anytime_arguments(questions.comparisons[0]))
    assert driver["high"].decision == ("better" if higher else "worse")

    anybody = analysis.compare(runs, metric, "low", equal=None)
    assert anybody["high"].verdict == ("better" if higher else "worse")
    assert not anybody.assumed

    for found in trials:
        (tmp_path / "trials" / found.trial_id / "model").mkdir(parents=True)
    _keep_models(sweep, replace(arms[1], questions=resolved), tmp_path, tuple(trials))
    kept = {path.parent.name for path in tmp_path.glob("trials/*/model")}
    assert kept == ({"low-5", "high-5"} if higher else {"low-0", "high-0"})

    searched = replace(search, objective=sweep.objective)
    asked = expand(searched)
    source = source_for(searched, asked, journal)
    assert isinstance(source, SearchedSource)
    assert source._search._study.direction.name.lower() == record.direction  # type: ignore[attr-defined]
    assert source._goal == asked.questions.first_goal == asked.questions.stopping == questions.first_goal
