"""What other programs recorded, as rows: each kind of source by itself, and what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis import compare, compare_sequentially, load_runs, rank
from analysis.table.sources.kinds import KINDS, kind_of
from stackwise_ray.core.errors import AnalysisError
from tests import foreign_sources
from tests.foreign_sources import METRIC, paired_runs


def write(path: Path, content: Any) -> Path:
    """A file with JSON, or with text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def refusal(source: str | Path) -> str:
    with pytest.raises(AnalysisError) as refused:
        load_runs(source)
    return str(refused.value)


# --------------------------------------------------------------------------------------------------- tables in files


def test_nested_objects_become_dotted_columns_and_null_is_no_value(tmp_path: Path) -> None:
    line = {"arm": "a", "config": {"lr": 0.1, "betas": [0.9, 0.95]}, "loss": 2.5, "notes": None}
    table = load_runs(write(tmp_path / "runs.jsonl", json.dumps(line) + "\n"))
    assert table["config.lr"].tolist() == [0.1]
    assert table["config.betas"].tolist() == ["[0.9, 0.95]"]
    assert table["loss"].tolist() == [2.5]
    assert "notes" not in table.columns


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("runs.jsonl", '{"arm": "a", "loss": 9.0, "loss": 2.5}', "line 1: the key 'loss' stands twice"),
        ("runs.json", '[{"arm": "a", "loss": 9.0, "loss": 2.5}]', "the key 'loss' stands twice"),
        ("runs.jsonl", '{"arm": "a", "m.loss": 9.0, "m": {"loss": 2.5}}', "run 1 has two values under one dotted name"),
    ],
)
def test_two_values_of_one_name_are_refused_and_not_the_last_one_taken(
    tmp_path: Path, name: str, text: str, words: str
) -> None:
    path = tmp_path / name
    path.write_text(text + "\n")
    assert words in refusal(path)


def test_a_list_of_objects_is_a_table_too(tmp_path: Path) -> None:
    table = load_runs(write(tmp_path / "runs.json", [{"arm": "a", "loss": 1}, {"arm": "b", "loss": 2}]))
    assert table["arm"].tolist() == ["a", "b"]


def test_parquet_keeps_texts_that_look_like_numbers_and_knows_empty_cells(tmp_path: Path) -> None:
    frame = pd.DataFrame({"arm": ["1.10", "1.1"], "loss": [2.5, None], "begun": pd.to_datetime(["2026-01-01"] * 2)})
    frame.index = pd.Index([7, 9])
    frame.to_parquet(tmp_path / "runs.parquet")
    table = load_runs(tmp_path / "runs.parquet")
    assert table["arm"].tolist() == ["1.10", "1.1"]
    assert table["loss"].isna().tolist() == [False, True]
    assert list(table.columns) == ["arm", "loss", "begun"]


def test_a_chart_of_wandb_gives_the_last_value_of_each_run(tmp_path: Path) -> None:
    heading = ",".join(
        f'"{name}{end}"' for name in ("adam-0 - val/loss", "b - c - val/loss") for end in ("", "__MIN", "__MAX")
    )
    lines = [f'"Step",{heading}', "1,3,3,3,4,4,4", "2,2.5,2.5,2.5,,,", "3,,,,3.5,3.5,3.5"]
    table = load_runs(write(tmp_path / "chart.csv", "\n".join(lines)))
    assert table["Name"].tolist() == ["adam-0", "b - c"]
    assert table["val/loss"].tolist() == [2.5, 3.5]
    assert any("end at different steps" in note for note in table.attrs["notes"])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("runs.jsonl", '{"loss": 1}\n{"loss": ', "line 2 is no whole JSON object"),
        ("runs.jsonl", '{"loss": 1}\n[1]', "line 2 holds \\[1\\]"),
        ("runs.jsonl", "", "the file is empty"),
        ("runs.csv", "", "the file is empty"),
        ("runs.json", '{"loss": {"0": 1}}', "orient='records'"),
        ("runs.json", '{"a": 1}\n{"a": 2}', "rename the file to .jsonl"),
        ("runs.json", '[{"a": 1', "no whole JSON"),
        ("runs.csv", '{"loss": 1}', "this file holds JSON; rename it to end in .jsonl"),
        ("runs.tsv", '[{"loss": 1}]', "rename it to end in .json"),
        ("runs.parquet", "arm,loss\na,1\n", "no Parquet file"),
        ("runs.parquet", "PAR1 cut off", "no whole Parquet file"),
        ("runs.csv", "PAR1 and more", "this file is a Parquet file"),
        ("runs.csv", "PK\x03\x04 a sheet", "a spreadsheet"),
        ("runs.docx", "text", "not a source that runs are read from.*an Optuna study.*a folder with TensorBoard"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path: Path, name: str, content: str, words: str) -> None:
    with pytest.raises(AnalysisError, match=f"(?s){words}"):
        load_runs(write(tmp_path / name, content))


def test_a_compressed_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_bytes(b"\x1f\x8b\x08\x00rest")
    assert "compressed (gzip); unpack it (gunzip)" in refusal(tmp_path / "runs.csv")


def test_a_folder_with_nothing_known_is_refused_with_the_list_of_kinds(tmp_path: Path) -> None:
    write(tmp_path / "notes" / "readme.md", "text")
    said = refusal(tmp_path)
    assert [kind.name for kind in KINDS if kind.described not in said] == []


@pytest.mark.parametrize(
    ("module", "package", "source"),
    [
        ("optuna", "optuna", foreign_sources.optuna),
        ("pyarrow.parquet", "pyarrow", foreign_sources.parquet),
        ("tensorboard.backend.event_processing.event_file_loader", "tensorboard", None),
    ],
)
def test_a_missing_library_is_one_message_with_its_install_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, package: str, source: Callable[..., str] | None
) -> None:
    folder = tmp_path / "lm"
    folder.mkdir()
    where = event_folder(folder, {"run": [1.0]}) if source is None else source(folder, paired_runs(2))
    monkeypatch.setitem(sys.modules, module, None)
    assert f"pip install {package}" in refusal(where)


# ------------------------------------------------------------------------------------------------------- TensorBoard


def event_folder(folder: Path, curves: dict[str, list[float]], tag: str = METRIC) -> Path:
    """A folder with one run per curve, written by tensorboard."""
    from tensorboard.summary import Writer

    for name, values in curves.items():
        writer = Writer(str(folder / name))
        for step, value in enumerate(values):
            writer.add_scalar(tag, value, step)
        writer.close()
    return folder


def test_each_folder_with_event_files_is_a_run_with_the_last_value_of_its_curves(tmp_path: Path) -> None:
    table = load_runs(event_folder(tmp_path, {"adam/seed_0": [3.0, 2.6], "adam/seed_1": [3.0, 2.7, 2.8]}))
    assert table["run_name"].tolist() == ["adam/seed_0", "adam/seed_1"]
    assert table["path/2"].tolist() == ["seed_0", "seed_1"]
    assert table[METRIC].tolist() == [2.6, 2.8]  # the digits that were written, not those of a float32
    assert any("different steps (1 to 2" in note for note in table.attrs["notes"])


def test_the_folders_train_and_validation_of_a_run_are_one_run(tmp_path: Path) -> None:
    event_folder(
        tmp_path, {"a/train": [3.0], "a/validation": [3.5], "b/train": [2.0], "b/validation": [2.5]}, "epoch_loss"
    )
    table = load_runs(tmp_path)
    assert table["run_name"].tolist() == ["a", "b"]
    assert table["validation/epoch_loss"].tolist() == [3.5, 2.5]


def test_the_event_with_the_largest_step_counts_after_a_restart(tmp_path: Path) -> None:
    event_folder(tmp_path, {"run": [3.0, 2.0, 1.0]})
    event_folder(tmp_path, {"run": [3.0, 2.5]})
    assert load_runs(tmp_path)[METRIC].tolist() == [1.0]


def test_a_damaged_event_file_is_refused_and_one_that_was_cut_off_is_noted(tmp_path: Path) -> None:
    (file,) = event_folder(tmp_path, {"run": [3.0, 2.0, 1.0]}).rglob("*tfevents*")
    whole = file.read_bytes()
    file.write_bytes(whole[:-5])
    table = load_runs(tmp_path)
    assert table[METRIC].tolist() == [2.0]
    assert any("ends within a record" in note for note in table.attrs["notes"])
    file.write_bytes(whole[: len(whole) // 2] + b"\xff" + whole[len(whole) // 2 + 1 :])
    assert "damaged after" in refusal(tmp_path)


# ------------------------------------------------------------------------------------------------------------ Optuna


def test_a_pruned_trial_is_left_out_and_a_study_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "lm"
    folder.mkdir()
    source = foreign_sources.optuna(folder, paired_runs(2))
    table = load_runs(source)
    assert table["value"].tolist() == [run[METRIC] for run in paired_runs(2)]
    assert [(item["by"], item["why"]) for item in table.attrs["exclusions"]] == [("status", "pruned")]
    assert any("minimize value" in note for note in table.attrs["notes"])
    uri = source.removesuffix("#lm")
    assert "name a study after '#'; the storage has: lm" in refusal(uri)
    assert "no study 'ln'; did you mean 'lm'?" in refusal(f"{uri}#ln")
    assert kind_of(f"{tmp_path}/study.db#lm").name == "optuna"


def test_a_journal_of_optuna_is_a_storage_too_and_metrics_keep_their_names(tmp_path: Path) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal.log"))
    storage = optuna.storages.JournalStorage(backend)
    study = optuna.create_study(storage=storage, study_name="two", directions=["minimize", "maximize"])
    study.optimize(lambda trial: (trial.suggest_float("lr", 0, 1), 0.5), n_trials=2)
    table = load_runs(f"{tmp_path}/journal.log#two")
    assert {"values/0", "values/1", "lr"} <= set(table.columns)
    assert table["values/0"].tolist() == table["lr"].tolist()


def test_the_goal_of_a_study_decides_which_way_is_better_and_the_caller_may_differ(tmp_path: Path) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    url = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(storage=url, study_name="score", direction="maximize")
    for seed in range(4):
        for arm in ("adam", "sgd"):
            fixed = {"optimizer": arm, "seed": seed}
            domains = {
                "optimizer": optuna.distributions.CategoricalDistribution(["adam", "sgd"]),
                "seed": optuna.distributions.IntDistribution(0, 9),
            }
            value = 0.5 + 0.01 * seed**2 + (arm == "sgd") * (0.2 + 0.01 * seed)
            study.add_trial(optuna.trial.create_trial(params=fixed, distributions=domains, value=value))
    runs = load_runs(f"{url}#score")
    found = compare(runs, "value", baseline="adam", arm="optimizer")
    assert (found["sgd"].verdict, found.assumed) == ("better", False)
    assert compare(runs, "value", baseline="adam", arm="optimizer", direction="minimize")["sgd"].verdict == "worse"
    assert compare_sequentially(runs, "value", "adam", arm="optimizer")["sgd"].decision == "better"
    assert rank(runs, "value", task="seed", arm="optimizer").direction == "maximize"
    renamed = load_runs(f"{url}#score", columns={"their_score": "value"})
    assert compare(renamed, "their_score", baseline="adam", arm="optimizer")["sgd"].verdict == "better"


# ------------------------------------------------------------------------------------------------------ transformers


def trainer_state(step: int, last: int, **values: Any) -> dict[str, Any]:
    """A state as `TrainerState.save_to_json` writes it."""
    log = [{"loss": 4.0, "step": 1, "epoch": 0.1}, {"eval_loss": 3.0 - step / 100, "step": step, "epoch": 1.0}]
    counted = {"total_flos": 0, "num_input_tokens_seen": 0, "stateful_callbacks": {}}
    return {"global_step": step, "max_steps": last, "log_history": log, **counted, **values}


def test_the_state_of_a_run_counts_and_its_checkpoints_are_no_runs(tmp_path: Path) -> None:
    write(tmp_path / "adam" / "0" / "trainer_state.json", trainer_state(10, 10, total_flos=6e9, best_metric=2.8))
    write(tmp_path / "adam" / "0" / "checkpoint-5" / "trainer_state.json", trainer_state(5, 10))
    write(tmp_path / "adam" / "0" / "all_results.json", {"perplexity": 18.2, "eval_loss": 2.9, "epoch": 1.0})
    write(tmp_path / "adam" / "1" / "checkpoint-10" / "trainer_state.json", trainer_state(10, 10))
    table = load_runs(tmp_path)
    assert table["run_name"].tolist() == ["adam/0", "adam/1"]
    assert table["eval_loss"].tolist() == [2.9, 2.9]
    assert table["train/loss"].tolist() == [4.0, 4.0]
    assert "loss" not in table.columns  # that of the training must not pass for it
    assert table["flops"].tolist()[0] == 6e9
    assert table["flops"].isna().tolist() == [False, True]  # 0 is a count that was not made
    assert "tokens" not in table.columns
    assert table["perplexity"].tolist()[0] == 18.2
    assert any("adam/1 (step 10)" in note for note in table.attrs["notes"])


def test_a_trainer_that_ended_early_is_left_out(tmp_path: Path) -> None:
    write(tmp_path / "a" / "trainer_state.json", trainer_state(10, 10))
    write(tmp_path / "b" / "trainer_state.json", trainer_state(4, 10))
    stop = {"TrainerControl": {"args": {"should_training_stop": True}}}
    write(tmp_path / "c" / "trainer_state.json", trainer_state(6, 10, stateful_callbacks=stop))
    table = load_runs(tmp_path)
    assert table["run_name"].tolist() == ["a"]
    assert [item["why"] for item in table.attrs["exclusions"]] == [
        "interrupted: step 4 of 10",
        "stopped: step 6 of 10, stopped by a callback",
    ]


def test_a_last_evaluation_before_the_last_step_is_noted(tmp_path: Path) -> None:
    state = trainer_state(8, 10)
    write(tmp_path / "a" / "trainer_state.json", {**state, "global_step": 10})
    assert any("a (step 8 of 10)" in note for note in load_runs(tmp_path).attrs["notes"])


@pytest.mark.parametrize("content", ['{"global_step": 10', '{"other": 1}', "[]"])
def test_a_state_that_is_none_is_refused_by_its_path(tmp_path: Path, content: str) -> None:
    assert "trainer_state.json" in refusal(write(tmp_path / "a" / "trainer_state.json", content).parents[1])


# ------------------------------------------------------------------------------------------------------------- Hydra


def hydra_job(folder: Path, config: str, choices: str = "{}") -> Path:
    """A job's folder as Hydra leaves it."""
    write(folder / ".hydra" / "config.yaml", config)
    write(folder / ".hydra" / "hydra.yaml", f"hydra:\n  runtime:\n    choices: {choices}\n")
    return folder


def test_a_job_of_hydra_is_its_configuration_and_what_it_wrote(tmp_path: Path) -> None:
    for number, name in enumerate(("adam", "muon")):
        job = hydra_job(
            tmp_path / "multirun" / str(number),
            f"optimizer:\n  name: {name}\nseed: 0\ncommit: 1.10\nnotes: null\n",
            f"{{optimizer: {name}, hydra/launcher: basic}}",
        )
        write(job / "metrics.json", {"val": {"loss": 3.0 - number}})
    table = load_runs(tmp_path / "multirun")
    assert table["optimizer"].tolist() == ["adam", "muon"]
    assert table["optimizer.name"].tolist() == ["adam", "muon"]
    assert table["commit"].tolist() == ["1.10", "1.10"]
    assert table["val.loss"].tolist() == [3.0, 2.0]
    assert not {"notes", "hydra/launcher"} & set(table.columns)


def test_the_last_values_of_metrics_csv_are_those_of_a_job_and_a_silent_job_is_noted(tmp_path: Path) -> None:
    job = hydra_job(tmp_path / "0", "seed: 0\n")
    write(job / "csv" / "version_0" / "metrics.csv", "epoch,train_loss,val_loss\n0,4,\n0,,3.5\n1,3,\n1,,3.25\n")
    hydra_job(tmp_path / "10", "seed: 1\n")
    hydra_job(tmp_path / "2", "seed: 2\n")
    table = load_runs(tmp_path)
    assert table["run_name"].tolist() == ["0", "2", "10"]
    assert table["val_loss"].tolist()[0] == 3.25
    assert any("2 of 3 jobs measured nothing: 2, 10" in note for note in table.attrs["notes"])


def test_event_files_of_a_job_are_what_it_measured(tmp_path: Path) -> None:
    event_folder(hydra_job(tmp_path / "0", "seed: 3\n"), {"tb": [3.0, 2.5]})
    table = load_runs(tmp_path)
    assert (table[METRIC].tolist(), table["seed"].tolist()) == ([2.5], [3])


def test_jobs_that_measured_nothing_at_all_are_refused_with_what_to_write(tmp_path: Path) -> None:
    hydra_job(tmp_path / "0", "seed: 0\n")
    assert "write an object in metrics.json" in refusal(tmp_path)


# --------------------------------------------------------------------------------------------- lm-evaluation-harness


def results(model: str, scores: dict[str, dict[str, Any]], **more: Any) -> dict[str, Any]:
    """A result file of the harness."""
    base = {"configs": {}, "versions": dict.fromkeys(scores, 1.0), "model_name": model, "config": {"model": "hf"}}
    return {"results": scores, "n-shot": dict.fromkeys(scores, 0), **base, **more}


def test_a_model_and_a_task_are_a_row_and_a_group_of_tasks_is_none(tmp_path: Path) -> None:
    scores = {
        "mmlu": {"acc,none": 0.4, "alias": "mmlu"},
        "mmlu_law": {"acc,none": 0.5, "acc_stderr,none": 0.05, "alias": " - law"},
        "gsm8k": {
            "exact_match,strict-match": 0.2,
            "exact_match,flexible-extract": 0.3,
            "exact_match_stderr,strict-match": "N/A",
        },
    }
    content = results("org/a", scores, group_subtasks={"mmlu": ["mmlu_law"], "gsm8k": []}, groups={"mmlu": {}})
    write(tmp_path / "org__a" / "results_2026-01-01T10-00-00.000000.json", content)
    table = load_runs(tmp_path)
    assert list(zip(table["model"], table["task"], strict=True)) == [("org/a", "mmlu_law"), ("org/a", "gsm8k")]
    assert table["acc"].tolist()[0] == 0.5
    assert table["acc_stderr"].tolist()[0] == 0.05
    assert table["exact_match/strict-match"].tolist()[1] == 0.2
    assert "exact_match_stderr/strict-match" not in table.columns
    assert any("the groups mmlu" in note for note in table.attrs["notes"])


def test_the_newest_result_of_a_model_and_a_task_counts(tmp_path: Path) -> None:
    for day, accuracy in ((1, 0.4), (2, 0.5)):
        content = results("a", {"arc": {"acc,none": accuracy}})
        write(tmp_path / f"results_2026-01-0{day}T10-00-00.000000.json", content)
    table = load_runs(tmp_path)
    assert table["acc"].tolist() == [0.5]
    assert any("1 older results" in note for note in table.attrs["notes"])


def test_logged_samples_are_items_and_missing_or_cut_ones_are_refused(tmp_path: Path) -> None:
    stamp = "2026-01-01T10-00-00.000000"
    write(tmp_path / f"results_{stamp}.json", results("a", {"arc": {"acc,none": 0.5}}))
    assert "evaluate with --log_samples" in refusal(f"{tmp_path}#items")
    line = {"doc_id": 3, "doc": {}, "target": "x", "filter": "none", "metrics": ["acc"], "acc": 1.0}
    samples = write(tmp_path / f"samples_arc_{stamp}.jsonl", json.dumps(line) + "\n")
    table = load_runs(f"{tmp_path}#items")
    assert table[["model", "task", "item", "acc"]].values.tolist() == [["a", "arc", "arc/3", 1.0]]
    assert "no such part" in refusal(f"{tmp_path}#documents")
    samples.write_text(json.dumps(line) + "\n{")
    assert "line 2 is no whole JSON" in refusal(f"{tmp_path}#items")


# ------------------------------------------------------------------------------------------------------ which is which


def test_a_trainer_folder_with_event_files_is_read_by_its_states(tmp_path: Path) -> None:
    write(tmp_path / "a" / "trainer_state.json", trainer_state(10, 10))
    event_folder(tmp_path / "a", {"runs/Jan01": [1.0]})
    assert kind_of(str(tmp_path)).name == "trainer"


def test_the_folder_above_sweeps_is_none_of_tensorboard_though_ray_writes_events(tmp_path: Path) -> None:
    write(tmp_path / "ablation" / "journal.sqlite", "x")
    event_folder(tmp_path / "ablation", {"trial": [1.0]})
    assert "it holds the sweeps ablation" in refusal(tmp_path)
