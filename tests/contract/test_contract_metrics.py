"""What trials write is what the catalogue holds: small real trials of every kind, nothing unregistered among them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from stackwise_ray.config.trial import TrialConfig, data_config
from stackwise_ray.core.errors import NameTakenError
from stackwise_ray.core.metric import Metric
from stackwise_ray.core.metric_catalogue import (
    find_metric,
    metric_paths,
    register_metrics,
    resolve_direction,
)
from stackwise_ray.core.registries import COMPONENTS, TASKS
from stackwise_ray.core.registry import registrations
from stackwise_ray.data.corpora.associative_recall import AssociativeRecallSource
from tests.small_trials import TRIAL, run, with_data, with_model, with_training

RECALL = AssociativeRecallSource(n_pairs=2, n_queries=2, n_keys=4, n_values=4, n_tokens=2000)
RECALLING = replace(
    TRIAL,
    data=data_config(
        corpus="associative_recall",
        seq_len=16,
        validation_tokens=256,
        associative_recall=RECALL,
        final_evaluation="fixed",
    ),
)
TRIALS: dict[str, TrialConfig] = {
    "decoder with whole splits": with_data(final_evaluation="full"),
    "decoder that answers": RECALLING,
    "encoder": with_model(family="bert", role="encoder"),
    "encoder with a finish": with_training(
        with_model(family="bert", role="encoder"),
        regime="depth_time",
        finish=0.4,
        budget=replace(TRIAL.training.budget, steps=10),
    ),
}
ELSEWHERE = {
    "flops/cache": "training.cache",
    "time/compile_s": "training.compile",
    "train/skipped_steps": "fp16, where gradients overflow",
    **{f"init/{name}": "training.init_from" for name in ("charged", "flops", "tokens", "steps", "wall_seconds")},
}
"""Metrics of trials that these small ones are not, by what it takes."""
MORE_IS_BETTER = {"throughput/tokens_per_s", "validation/answer_accuracy"}
PERPLEXITIES = ("perplexity_token", "perplexity_word", "perplexity_byte")
MASKED = ("masked_loss", *(f"masked_loss_{share}" for share in (15, 30, 50, 75, 90)))
LESS_IS_BETTER = {
    "train/loss",
    "train/skipped_steps",
    *(f"validation/{name}" for name in ("loss", "loss_full", "answer_loss", "perplexity", *PERPLEXITIES)),
    *(f"validation/{name}{end}" for name in MASKED for end in ("", "_without_finish")),
    "validation/loss_without_finish",
    *(f"test/{name}" for name in ("loss", *PERPLEXITIES)),
    *(f"flops/{name}" for name in ("recomputed", "step", "total", "cache", "evaluation")),
    *(f"memory/{name}_bytes" for name in ("peak", "process_peak", "saved_activation")),
    *(f"time/{name}_s" for name in ("build", "train", "compile", "evaluation", "checkpoint", "total")),
    "model/bytes",
    *(f"{task}/{name}" for task in ("ptb", "wikitext2", "wikitext103") for name in ("loss", *PERPLEXITIES)),
    *(
        f"early_exit/{name}{end}"
        for name in ("loss", "mean_depth", "flops_per_token")
        for end in ("", "_10", "_30", "_50", "_70", "_90")
    ),
    "early_exit/flops_per_token_full",
}
"""Which way of a metric is better, written down a second time: a direction that turns round turns verdicts round."""


@pytest.fixture(scope="module")
def written(module_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Every metric that each trial reports on its way or at its end."""
    found = {}
    for name, trial in TRIALS.items():
        records, result = run(trial, tmp_path_factory.mktemp("trial"))
        found[name] = {*result.metrics, *(metric for record in records for metric in record.metrics)}
    return found


def _of_others() -> set[str]:
    """Metrics that evaluation tasks and components bring, under their own names."""
    return {path for path in metric_paths() if path.partition("/")[0] in (*TASKS.names(), *COMPONENTS.names())}


def test_the_metrics_that_trials_write_are_the_registered_ones(written: dict[str, set[str]]) -> None:
    assert set().union(*written.values()) == set(metric_paths()) - set(ELSEWHERE) - _of_others()


@pytest.mark.parametrize("path", metric_paths())
def test_every_metric_says_what_it_is_and_who_reports_it(path: str) -> None:
    metric = find_metric(path)
    assert metric is not None
    assert metric.label
    assert metric.reported_by
    assert metric.digits >= 0


def test_a_name_that_people_use_elsewhere_belongs_to_one_metric() -> None:
    names = [name for path in metric_paths() if (metric := find_metric(path)) for name in metric.also_called]
    assert len(names) == len(set(names))
    assert not set(names) & set(metric_paths())


def test_the_direction_of_every_metric_is_the_one_written_down_here() -> None:
    found = {path: metric.direction for path in metric_paths() if (metric := find_metric(path)) and metric.direction}
    assert found == dict.fromkeys(MORE_IS_BETTER, "maximize") | dict.fromkeys(LESS_IS_BETTER, "minimize")


def test_a_path_belongs_to_one_record_and_a_second_one_is_refused() -> None:
    first = Metric(path="ours/score", unit="points", direction="maximize", reported_by="a test")
    with registrations() as once:
        register_metrics(first)
    with registrations() as again:
        register_metrics(replace(first))
    for other in (replace(first, direction="minimize"), replace(first, unit="per cent")):
        with pytest.raises(NameTakenError, match=r"'ours/score' is registered already .*choose another path, or give"):
            register_metrics(replace(first, path="ours/new"), other)
        assert find_metric("ours/score") == first
        assert find_metric("ours/new") is None
    again.withdraw()
    assert find_metric("ours/score") == first
    once.withdraw()
    assert find_metric("ours/score") is None


@pytest.mark.parametrize(
    "name", ["throughput/tokens_per_s", "accuracy", "f1", "rouge_l", "cola/matthews", "acc_norm", "eval.auc"]
)
def test_more_is_better_where_the_field_says_so(name: str) -> None:
    assert resolve_direction(name) == ("maximize", False)


@pytest.mark.parametrize("name", ["val_loss", "ood-loss", "word_perplexity", "bits_per_byte", "test/error"])
def test_less_is_better_where_the_field_says_so(name: str) -> None:
    assert resolve_direction(name) == ("minimize", False)


@pytest.mark.parametrize("name", ["acc_stderr", "score", "anything/else", "train/lr"])
def test_what_nobody_knows_is_minimised_and_called_assumed(name: str) -> None:
    assert resolve_direction(name) == ("minimize", True)
    assert resolve_direction(name, "maximize") == ("maximize", False)
