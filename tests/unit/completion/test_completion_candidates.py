"""What can follow on a command line, from the table that is made of the real commands, schema and registries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stackwise_ray.__main__ import app
from stackwise_ray.completion.candidates import candidates
from stackwise_ray.completion.table_collecting import collect
from stackwise_ray.config.loading import shipped_search_spaces
from stackwise_ray.config.reading.presets import list_presets
from stackwise_ray.config.trial.paths import trial_paths
from stackwise_ray.core.registries import REGIMES, TASKS


@pytest.fixture(scope="module")
def table() -> dict[str, Any]:
    return collect(app)[0]


def words(table: dict[str, Any], line: str) -> list[str]:
    program, *rest = line.split(" ")
    return [one.word for one in candidates(table, program, rest)]


def test_the_first_word_is_a_command(table: dict[str, Any]) -> None:
    assert words(table, "stackwise ") == ["new", "sweep", "train", "evaluate", "doctor"]
    assert words(table, "stackwise sw") == ["sweep"]
    assert {"compare", "report", "fit", "power"} <= set(words(table, "stackwise-analysis "))
    assert words(table, "stackwise --sh") == ["--shell", "--show-completion"]


@pytest.mark.parametrize(
    ("begun", "found"),
    [
        ("fit runs.csv --law chin", ["chinchilla"]),
        ("fit runs.csv --loss ", ["huber_log", "gaussian_log", "student_t_log"]),
        ("fit runs.csv --variable p", ["params"]),
        ("compare runs.csv --test s", ["sign_flip"]),
        ("compare runs.csv --correction b", ["bonferroni", "benjamini_hochberg"]),
        ("sequential runs.csv --correction ", ["bonferroni", "none"]),
        ("sequential runs.csv --equal n", ["none"]),
        ("compare runs.csv --equal fl", ["flops"]),
        ("rank runs.csv --direction ma", ["maximize"]),
        ("aggregate runs.csv --statistic i", ["iqm"]),
        ("power --hypothesis n", ["non_inferior"]),
        ("sequential runs.csv --side ", ["both", "better", "worse"]),
        ("items answers.csv --test m", ["mcnemar", "mid_p"]),
    ],
)
def test_choices_of_the_analysis_are_completed(table: dict[str, Any], begun: str, found: list[str]) -> None:
    assert words(table, f"stackwise-analysis {begun}") == found


def test_a_sweep_is_a_shipped_search_space_or_a_file(
    table: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("")
    (tmp_path / "mine.txt").write_text("")
    (tmp_path / "minutes").mkdir()
    assert words(table, "stackwise sweep ") == [*shipped_search_spaces(), "mine.yaml", "minutes/"]
    assert words(table, "stackwise sweep mi") == ["mine.yaml", "minutes/"]
    assert words(table, "stackwise sweep abl") == ["ablation"]
    assert words(table, "stackwise sweep --plan abl") == ["ablation"], "an option before it takes no place"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("stackwise sweep ablation --pla", ["--plan"]),
        ("stackwise sweep ablation replicates.s", ["replicates.seeds.", "replicates.seeds="]),
        ("stackwise sweep ablation design.kind=gr", ["design.kind=grid"]),
        ("stackwise sweep ablation training.l", ["training.lr=", "training.lora."]),
        ("stackwise train training.l", ["training.lr=", "training.lora."]),
        (
            "stackwise train training.schedule.kind=c",
            ["training.schedule.kind=cosine", "training.schedule.kind=constant"],
        ),
        (
            "stackwise train model.mixer.kind=res",
            ["model.mixer.kind=resolvent_apply", "model.mixer.kind=resolvent_diagonal"],
        ),
        ("stackwise train training.spectral_norm=", ["training.spectral_norm=true", "training.spectral_norm=false"]),
        ("stackwise train flags=[mix", ["flags=[mixed_precision]"]),
        ("stackwise train flags=[compile,mix", ["flags=[compile,mixed_precision]"]),
        ("stackwise evaluate --tasks pt", ["ptb"]),
        ("stackwise evaluate --tasks wikitext2,pt", ["wikitext2,ptb"]),
        ("stackwise new --against=dee", ["--against=deeper"]),
        ("stackwise nonsense ", []),
        ("stackwise doctor x", []),
    ],
)
def test_a_word_is_completed(table: dict[str, Any], line: str, expected: list[str]) -> None:
    assert words(table, line) == expected


def test_every_preset_regime_and_task_is_completed(table: dict[str, Any]) -> None:
    assert words(table, "stackwise train model=") == [f"model={name}" for name in list_presets("model")]
    assert words(table, "stackwise train training.regime=") == [f"training.regime={name}" for name in REGIMES.names()]
    assert words(table, "stackwise evaluate --tasks ") == list(TASKS.names())


def test_every_path_of_a_trial_is_reached_level_by_level(table: dict[str, Any]) -> None:
    def reached(begun: str) -> set[str]:
        found: set[str] = set()
        for word in words(table, f"stackwise train {begun}"):
            found |= reached(word) if word.endswith(".") else {word.rstrip("=")}
        return found

    parts = {path.rpartition(".")[0] for path in trial_paths()}
    leaves = {path for path in trial_paths() if path not in parts and path != "model.components"}
    assert leaves <= reached("")


def test_a_path_of_files_is_completed_by_files(
    table: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes of mine.txt").write_text("")
    (tmp_path / "flag.py").write_text("")
    (tmp_path / ".hidden.py").write_text("")
    assert words(table, "stackwise train data.path=no") == ["data.path=notes of mine.txt"]
    assert words(table, "stackwise train --plugin ") == ["flag.py"]
    assert words(table, "stackwise-analysis report fl") == ["flag.py"]
    assert words(table, "stackwise train --output=fl") == ["--output=flag.py"]
    (home,) = candidates(table, "stackwise", ["train", "--output", f"{tmp_path}/not"])
    assert home == (f"{tmp_path}/notes of mine.txt", "", True)
