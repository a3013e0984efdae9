"""The page of one trial's results: a row for all that was measured, and none for what was not."""

from __future__ import annotations

from stackwise_ray.core.metric_catalogue import format_metric
from stackwise_ray.core.trial_metrics import COST_METRICS, QUALITY_METRICS
from stackwise_ray.training.evaluation_report import evaluation_report
from tests.golden import Golden
from tests.small_trials import TRIAL, with_training


def rows(metrics: dict[str, float]) -> list[str]:
    page = evaluation_report(TRIAL, "t", metrics, [], {})
    return [line for line in page.splitlines() if line.startswith("|") and line.count("|") == 3]


def test_every_metric_of_a_trial_that_was_measured_has_a_row_and_no_other_has() -> None:
    every = {metric.path: 0.5 + number for number, metric in enumerate((*QUALITY_METRICS, *COST_METRICS))}
    shown = rows(every)
    for metric in (*QUALITY_METRICS, *COST_METRICS):
        in_a_sentence = metric in QUALITY_METRICS and metric.form == "count"  # of the text, above the tables
        ends = f" | {format_metric(metric.path, every[metric.path])} |"
        found = [row for row in shown if metric.label.lower() in row.lower() and row.endswith(ends)]
        assert bool(found) != in_a_sentence, metric.path
    assert len(rows({"validation/loss": 1.0, "flops/total": 2.0})) == len(rows({})) + 2


def test_what_was_counted_of_a_split_is_said_in_a_sentence() -> None:
    counts = {"test/tokens": 1200.0, "test/words": 300.0, "test/bytes": 5000.0, "test/min_context": 8.0}
    page = evaluation_report(TRIAL, "t", counts, [], {})
    assert "Test split in full: 1,200 tokens scored once each, 300 words, 5,000 bytes" in page
    assert "Validation split in full" not in page


def test_the_page_is_as_on_file(golden: Golden) -> None:
    measured = {metric.path: 0.5 + number for number, metric in enumerate((*QUALITY_METRICS, *COST_METRICS))}
    began = {"init/flops": 2.5e12, "init/charged": 0.0}
    stages = [
        {"name": "stack 1", "active_blocks": [0], "trainable_params": 4200, "tokens": 96, "flops_counted": 1.5e9},
        {"name": "finish", "active_blocks": [0, 1], "trainable_params": 9100, "tokens": 160, "flops_counted": 2e9},
    ]
    facts = {"stackwise_ray": "0.1.0", "torch": "2.13.0", "device": "cpu", "threads": 1, "data_fingerprint": "f" * 16}
    trial = with_training(regime="hybrid", init_from="runs/x/model")
    golden.check("evaluation/page.md", evaluation_report(trial, "t", measured | began, stages, facts))
