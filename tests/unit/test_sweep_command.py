"""The command `sweep` where it runs nothing: its list, its plan, how far a sweep is, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from stackwise_ray.config.reading.shipped import shipped_search_spaces
from stackwise_ray.sweep import _name, app
from stackwise_ray.tracking.journal import Journal
from tests.unit.trials.ended_trials import ended_trial
from tests.unit.trials.test_trials_proposals import ARMS


def sweep(*words: str) -> Result:
    return CliRunner().invoke(app, words, catch_exceptions=False)


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A search-space file of three arms on two seeds, and `out` for its results."""
    (tmp_path / "arms.yaml").write_text(ARMS)
    (tmp_path / "out").mkdir()
    return str(tmp_path / "arms.yaml")


def test_the_list_has_every_shipped_file_with_its_question() -> None:
    rows = json.loads(sweep("--list", "--json").stdout)
    assert set(rows) == set(shipped_search_spaces())
    shown = sweep("--list")
    assert shown.exit_code == 0
    assert shown.stdout.splitlines() == [f"{name}  {question}" for name, question in rows.items()]


def test_without_a_file_the_options_that_help_are_named() -> None:
    refused = sweep()
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr == "error: name a search-space file; --list shows the shipped ones, --help the options\n"


def test_a_sweep_that_has_not_begun_has_no_status(file: str, tmp_path: Path) -> None:
    refused = sweep(file, "--status", "--output", str(tmp_path / "out"))
    assert refused.exit_code == 2
    assert f"{tmp_path / 'out' / 'arms'} contains no sweep yet; run the command without --status" in refused.stderr
    (tmp_path / "out" / "arms").mkdir()
    (tmp_path / "out" / "arms" / "journal.sqlite").write_text("no database, and long enough to be none " * 9)
    refused = sweep(file, "--status", "--output", str(tmp_path / "out"))
    assert refused.exit_code == 2
    assert "journal" in refused.stderr


def test_the_status_counts_trials_by_what_became_of_them(file: str, tmp_path: Path) -> None:
    directory = tmp_path / "out" / "arms"
    directory.mkdir()
    words = (file, "--status", "--output", str(tmp_path / "out"))
    with Journal(directory / "journal.sqlite") as journal:
        assert sweep(*words).stdout == "arms: no trial has begun\n"
        for number, status in enumerate(("finished", "finished", "failed", "interrupted")):
            reason = "NaN" if status == "failed" else None
            journal.add_trial(ended_trial(f"t{number}", "a", number, {}, number=number, status=status, reason=reason))
    assert sweep(*words).stdout.splitlines() == ["arms: 1 failed, 2 finished, 1 interrupted", "  t2 failed: NaN"]
    (directory / "plan.json").write_text(json.dumps({"totals": {"trials": 9}, "totals_least": {"trials": 6}}))
    shown = sweep(*words)
    assert shown.exit_code == 0
    assert shown.stdout.splitlines()[0] == (
        "arms: 1 failed, 2 finished, 1 interrupted, 2 not started, of 6 to 9 in its plan"
    )
    found = json.loads(sweep(*words, "--json").stdout)
    assert found == {
        "name": "arms",
        "directory": str(directory),
        "trials": {"finished": 2, "failed": 1, "interrupted": 1, "not started": 2},
        "failed": {"t2": "NaN"},
    }
    (directory / "plan.json").write_text(json.dumps({"totals": {"trials": 3}}))
    assert sweep(*words).stdout.splitlines()[1] == (
        "  1 of them belong to an earlier version of the sweep or of a plugin"
    )
    (directory / "plan.json").write_text("{}")
    assert sweep(*words).stdout.splitlines()[0] == "arms: 1 failed, 2 finished, 1 interrupted"


def test_a_sweep_whose_plugin_is_missing_is_told_which_one_it_needs(file: str, tmp_path: Path) -> None:
    directory = tmp_path / "out" / "arms"
    directory.mkdir()
    plugin = {"name": "mine.py", "file": "/there/mine.py", "sha256": "0123456789abcdef"}
    with Journal(directory / "journal.sqlite") as journal:
        journal.put_meta("plugins", [plugin])
    words = (file, "--output", str(tmp_path / "out"), "--plan", "base.overrides.flags=[mine]")
    refused = sweep(*words)
    assert refused.exit_code == 2
    assert "was started with --plugin mine.py (sha256 0123456789ab); add --plugin /there/mine.py" in refused.stderr
    (directory / "journal.sqlite").unlink()
    assert "flags = mine is an unknown flag" in sweep(*words).stderr


def test_the_name_of_a_file_that_cannot_be_read_in_full_is_its_word_its_own_or_its_files(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("question: which?\n")
    assert _name(str(tmp_path / "mine.yaml"), []) == "mine"
    assert _name(str(tmp_path / "mine.yaml"), ["training.lr=1", "name=x", "name=y"]) == "y"
    (tmp_path / "mine.yaml").write_text("name: own\n")
    assert _name(str(tmp_path / "mine.yaml"), []) == "own"


def test_a_plan_is_json_or_a_table_and_writes_nothing(file: str, tmp_path: Path, module_cache: Path) -> None:
    planned = sweep(file, "--plan", "--json", "--output", str(tmp_path / "out"), "--max-concurrent", "1")
    assert planned.exit_code == 0, planned.output
    plan = json.loads(planned.stdout)
    assert plan["totals"]["trials"] == 6
    assert [row["arm"] for row in plan["rows"]] == ["a", "b", "own"]
    shown = sweep(file, "--plan", "--output", str(tmp_path / "out"))
    assert shown.exit_code == 0
    assert "Plan of arms" in shown.stdout
    assert list((tmp_path / "out").iterdir()) == []
    cannot = sweep(file, "--plan", "base.overrides.training.budget={flops: 1000}", "--output", str(tmp_path / "out"))
    assert cannot.exit_code == 2
