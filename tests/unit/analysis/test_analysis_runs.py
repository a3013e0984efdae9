"""Runs read from journals, CSV files and MLflow stores: typed, complete, and with every exclusion stated."""

from __future__ import annotations

import json
import math
import sqlite3

import pandas as pd
import pytest

from analysis import AnalysisError, load_curves, load_runs, write_report
from analysis.table.sources.mlflow_experiment import _nested
from stackwise_ray.config.loading import load_trial
from stackwise_ray.config.trial.editing import to_plain
from stackwise_ray.core.records import TABLE_COLUMNS, loss_kind
from stackwise_ray.tracking.feed import flatten


def test_a_sweep_gives_a_row_a_finished_replicate_and_states_the_rest(ablation):
    runs = load_runs(ablation)
    assert len(runs) == 14
    leading = [name for name in TABLE_COLUMNS if name in runs.columns]
    assert list(runs.columns)[: len(leading)] == leading
    assert runs["seed"].dtype.kind == "i"
    assert all(runs[name].dtype.kind in "fi" for name in ("loss", "flops", "tokens", "params", "validation/loss"))
    assert runs["parameters/training.lr"].eq(3e-3).all()
    assert (runs["loss"] == runs["validation/loss"]).all()
    assert runs["steps"].eq(100).all()
    excluded = runs.attrs["exclusions"]
    assert len(excluded) == 16
    failed = next(item for item in excluded if item["by"] == "status")
    assert (failed["arm"], failed["seed"]) == ("token_local", 1)
    assert failed["why"].startswith("failed: loss is NaN at step 31")
    assert {item["why"] for item in excluded if item["by"] == "role"} == {"role tuning"}


def test_the_folder_and_its_journal_are_the_same_source_and_roles_may_be_chosen(ablation):
    pd.testing.assert_frame_equal(load_runs(ablation), load_runs(ablation / "journal.sqlite"))
    assert len(load_runs(ablation, roles=None)) == 29
    assert set(load_runs(ablation, roles=("tuning",))["role"]) == {"tuning"}


def test_a_search_keeps_its_search_trials_by_default_and_names_the_stopped_ones(journal):
    journal.trial("lr_sweep", 0, {"validation/loss": 2.0}, role="search", parameters={"training.lr": 1e-3})
    journal.trial("lr_sweep", 0, {"validation/loss": 3.0}, role="search", status="stopped")
    runs = load_runs(journal.close())
    assert runs["loss"].tolist() == [2.0]
    assert runs.attrs["exclusions"][0]["why"] == "stopped early, so its loss is that of a truncated run"


def test_tuning_trials_alone_are_no_answer_unless_they_are_asked_for(journal):
    journal.trial("a", 900_000, {"validation/loss": 1.0}, role="tuning")
    folder = journal.close()
    runs = load_runs(folder)
    assert runs.empty
    assert [item["why"] for item in runs.attrs["exclusions"]] == ["role tuning"]
    assert load_runs(folder, roles=("tuning",))["loss"].tolist() == [1.0]


def test_a_sweep_is_the_trials_of_its_set_and_the_rest_is_from_an_earlier_version(journal):
    shared = journal.trial("old_name", 7, {"validation/loss": 2.0}, parameters={"training.lr": 1.0})
    journal.report(shared, 5, 500, 5000, 10.0, train__loss=2.2)
    gone = journal.trial("gone", 0, {"validation/loss": 1.0})
    journal.report(gone, 5, 500, 5000, 10.0, train__loss=1.2)
    running = journal.trial("gone", 1, status="running")
    journal.trial_set((shared, "b", 0, "replicate", {"model.depth": 2}), (shared, "a", 0, "replicate", {}))
    folder = journal.close()
    runs = load_runs(folder)
    assert runs[["arm", "seed", "loss"]].values.tolist() == [["b", 0, 2.0], ["a", 0, 2.0]]
    assert runs["parameters/model.depth"].tolist()[0] == 2
    assert "parameters/training.lr" not in runs.columns
    found = [(item["run"], item["by"], item["why"]) for item in runs.attrs["exclusions"]]
    assert found == [(name, "version", "from an earlier version of the file") for name in (gone, running)]
    curves = load_curves(folder, ["train/loss"])
    assert curves[["arm", "seed", "value"]].values.tolist() == [["b", 0, 2.2], ["a", 0, 2.2]]
    assert len(load_runs(folder, roles=None)) == 2


def test_an_empty_set_of_trials_means_all_of_them(journal):
    journal.trial("a", 0, {"validation/loss": 2.0})
    journal.trial_set()
    runs = load_runs(journal.close())
    assert (len(runs), runs.attrs["exclusions"]) == (1, [])


def test_an_earlier_replicate_does_not_hide_the_search_that_the_file_now_asks_for(journal):
    journal.trial("a", 0, {"validation/loss": 1.0})
    point = journal.trial("point-0", 9, {"validation/loss": 2.0}, role="search")
    journal.trial_set((point, "point-0", 9, "search", {}))
    assert load_runs(journal.close())["loss"].tolist() == [2.0]


def test_metrics_that_a_run_lacks_are_absent_and_not_zero(journal):
    journal.trial("a", 0, {"validation/loss": 2.0, "memory/peak_bytes": 5e7})
    journal.trial("b", 0, {"validation/loss": 2.5})
    runs = load_runs(journal.close())
    assert runs["memory/peak_bytes"].tolist()[0] == 5e7
    assert math.isnan(runs["memory/peak_bytes"].tolist()[1])
    assert "flops" not in runs.columns


def test_the_time_of_a_trial_is_unknown_where_an_attempt_has_no_end(journal):
    journal.trial("a", 0, {"validation/loss": 2.0}, seconds=12.0)
    journal.trial("a", 1, {"validation/loss": 2.0}, seconds=None)
    runs = load_runs(journal.close())
    assert runs["attempt_seconds"][0] == 12.0
    assert math.isnan(runs["attempt_seconds"][1])


def test_a_step_reported_twice_counts_once_with_its_later_value(journal):
    name = journal.trial("a", 0, {"validation/loss": 2.0})
    for value, time in ((3.0, 10.0), (2.5, 40.0)):
        journal.report(name, 5, 500, 5000, time, train__loss=value)
    journal.report(name, 6, 600, 6000, 50.0, train__loss=2.4)
    curves = load_curves(journal.close(), ["train/loss", "validation/loss"])
    assert curves["value"].tolist() == [2.5, 2.4]
    assert curves["seconds"].tolist() == [30.0, 40.0]
    assert curves["tokens"].tolist() == [500, 600]


def test_curves_are_of_the_runs_that_are_loaded_and_of_other_roles_where_they_are_asked_for(journal):
    for arm, seed, options in (
        ("a", 0, {}),
        ("a", 7, {"role": "tuning"}),
        ("b", 0, {"status": "failed", "reason": "because"}),
        ("b", 1, {"status": "stopped"}),
    ):
        name = journal.trial(arm, seed, {"validation/loss": 2.0}, **options)
        journal.report(name, 5, 500, 5000, 10.0, train__loss=3.0, train__lr=0.1)
    folder = journal.close()
    curves = load_curves(folder, ["train/loss"])
    assert curves[["arm", "seed", "metric", "flops"]].to_numpy().tolist() == [["a", 0, "train/loss", 5000]]
    assert load_runs(folder)[["arm", "seed"]].to_numpy().tolist() == [["a", 0]]
    for roles, seeds in ((("tuning",), {7}), (None, {0, 7})):
        curves = load_curves(folder, ["train/loss", "train/lr"], roles=roles)
        assert set(curves["seed"]) == set(load_runs(folder, roles=roles)["seed"]) == seeds
        assert set(curves["metric"]) == {"train/loss", "train/lr"}


def test_a_running_sweep_can_be_read_while_its_owner_writes(journal):
    journal.trial("a", 0, {"validation/loss": 2.0})
    journal.connection.commit()
    journal.trial("a", 1, {"validation/loss": 2.1})  # not committed yet
    assert len(load_runs(journal.directory)) == 1


# -------------------------------------------------------------------------------------------------------- CSV


def test_a_csv_is_read_with_its_types_and_its_states(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("arm,seed,loss,flops,status\na,0,2.0,1e12,finished\na,1,,1e12,finished\nb,0,1.8,1e12,failed\n")
    runs = load_runs(path)
    assert runs["seed"].tolist() == [0, 1]
    assert math.isnan(runs["loss"][1])
    assert runs.attrs["exclusions"][0]["why"] == "failed"
    assert runs.attrs["exclusions"][0]["arm"] == "b"


def test_infinity_in_a_csv_and_its_stand_in_are_both_infinity(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("arm,seed,loss\na,0,inf\na,1,1.7976931348623157e308\nb,0,-1.7976931348623157e+308\nb,1,2.0\n")
    assert load_runs(path)["loss"].tolist() == [math.inf, math.inf, -math.inf, 2.0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "the file is empty"),
        ("arm,seed,loss\n", "has no rows"),
        ("arm,seed,loss,loss\na,0,2.0,3.0\n", "two columns are called 'loss'; rename one"),
        (None, "no such file"),
    ],
)
def test_a_csv_that_is_empty_or_missing_is_refused(tmp_path, content, words):
    path = tmp_path / "runs.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(AnalysisError, match=words):
        load_runs(path)


def test_a_folder_without_a_journal_names_the_sweeps_inside(ablation, tmp_path):
    with pytest.raises(AnalysisError, match="it holds the sweeps ablation"):
        load_runs(ablation.parent)
    with pytest.raises(AnalysisError, match="no such file or folder"):
        load_runs(tmp_path / "nowhere")


def test_a_report_on_a_journal_of_another_version_names_the_journal_and_what_to_do(ablation):
    path = ablation / "journal.sqlite"
    with sqlite3.connect(path) as connection:
        questions = json.loads(connection.execute("SELECT value FROM meta WHERE key = 'questions'").fetchone()[0])
        del questions["stopping"]
        connection.execute("UPDATE meta SET value = ? WHERE key = 'questions'", (json.dumps(questions),))
    with pytest.raises(AnalysisError, match="the entry 'stopping' of the question of its sweep, so another") as refused:
        write_report(ablation)
    assert str(path) in str(refused.value)
    assert "run the same sweep command again with this version" in str(refused.value)


def test_a_database_that_is_no_journal_is_refused_in_words(tmp_path):
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE things (x)")
    with pytest.raises(AnalysisError, match="not a journal of a sweep"):
        load_runs(path)
    path.write_text("plain text, long enough to be no header of a database" * 5)
    with pytest.raises(AnalysisError, match="not a journal of a sweep"):
        load_runs(path)


# ------------------------------------------------------------------------------------------------------ MLflow


def test_a_missing_mlflow_file_is_refused_and_not_created(tmp_path):
    path = tmp_path / "mlflow.db"
    with pytest.raises(AnalysisError, match="no such file"):
        load_runs(f"sqlite:///{path}#lm")
    assert not path.exists()


@pytest.mark.parametrize("words", [[], ["training=depth_time", "training.finish=0.1"]])
def test_what_mlflow_holds_of_a_run_says_its_kind_of_loss_as_the_journal_does(words):
    trial = load_trial(["model=encoder/bert_family/tiny", "data=markov", "training.budget={steps: 8}", *words])
    config = to_plain(trial)
    assert loss_kind(_nested(flatten(config))) == loss_kind(config) is not None


def test_whole_numbers_beyond_what_a_float_holds_stay_text(tmp_path):
    """Of these two, a float makes one."""
    path = tmp_path / "runs.csv"
    path.write_text("run,arm,loss\n9007199254740992,a,3.0\n9007199254740993,b,3.1\n,c,3.2\n")
    names = [name for name in load_runs(path)["run"] if isinstance(name, str)]
    assert names == ["9007199254740992", "9007199254740993"]
