"""The journal: status changes, attempts, reports, what is refused, and that a killed writer leaves whole steps."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from stackwise_ray.core.errors import ConfigError, DiskFullError, StaleAttemptError
from stackwise_ray.core.records import MetricRecord, TrialRecord, open_journal, read_reports, read_trials
from stackwise_ray.tracking.journal import Journal
from stackwise_ray.tracking.journal_file import JOURNAL_VERSION


def trial(name: str = "a", number: int = 0) -> TrialRecord:
    config = {"training": {"budget": {"steps": 10}}}
    return TrialRecord(trial_id=name, number=number, arm="gpt2", seed=3, role="replicate", config=config)


def report(name: str = "a", attempt: int = 1, step: int = 1, **metrics: float) -> MetricRecord:
    values = metrics or {"train/loss": 2.0}
    return MetricRecord(
        trial_id=name, attempt=attempt, step=step, tokens=64 * step, flops=1000 * step, time=1e9 + step, metrics=values
    )


@pytest.fixture
def journal(tmp_path: Path):
    with Journal(tmp_path / "journal.sqlite") as opened:
        yield opened


def test_a_trial_is_entered_once_and_comes_back_as_it_was(journal: Journal) -> None:
    assert journal.add_trial(trial()) is True
    assert journal.add_trial(trial(number=7)) is False
    found = journal.trial("a")
    assert found is not None
    assert (found.number, found.arm, found.seed, found.status, found.attempts) == (0, "gpt2", 3, "pending", 0)
    assert found.config == {"training": {"budget": {"steps": 10}}}
    assert journal.next_number() == 1
    assert journal.trial("b") is None


def test_a_finished_trial_holds_its_metrics_and_can_be_read_by_another_connection(journal: Journal) -> None:
    journal.add_trial(trial())
    attempt = journal.start_attempt("a")
    journal.add_reports([report(step=1), report(step=2, **{"train/loss": 1.5})])
    assert journal.finish("a", attempt, {"validation/loss": 1.25, "flops/total": 10**19}, {"torch": "2.13"}) is True
    reader = open_journal(journal.path)
    (found,) = read_trials(reader)
    assert (found.status, found.metrics["flops/total"], found.environment) == ("finished", 10**19, {"torch": "2.13"})
    assert found.ended_at is not None
    assert [record.metrics["train/loss"] for _, record in read_reports(reader, "a")] == [2.0, 1.5]
    reader.close()


def test_attempts_count_up_and_an_open_one_is_closed_as_interrupted(journal: Journal) -> None:
    journal.add_trial(trial())
    assert journal.start_attempt("a") == 1
    assert journal.start_attempt("a", resumed_from_step=40) == 2
    with open_journal(journal.path) as reader:
        rows = reader.execute("SELECT outcome, resumed_from_step FROM attempts ORDER BY attempt").fetchall()
    assert [tuple(row) for row in rows] == [("interrupted", None), (None, 40)]
    found = journal.trial("a")
    assert found is not None
    assert (found.status, found.attempts) == ("running", 2)


def test_reports_of_a_superseded_attempt_are_dropped_and_counted(journal: Journal) -> None:
    journal.add_trial(trial())
    journal.start_attempt("a")
    journal.start_attempt("a")
    assert journal.add_reports([report(attempt=1, step=5), report(attempt=2, step=1)]) == 1
    assert journal.dropped_reports == 1
    with open_journal(journal.path) as reader:
        assert [record.attempt for _, record in read_reports(reader)] == [2]


def test_a_superseded_attempt_cannot_end_the_trial(journal: Journal) -> None:
    journal.add_trial(trial())
    journal.start_attempt("a")
    journal.start_attempt("a")
    with pytest.raises(StaleAttemptError, match="attempt 1 of trial a was superseded by attempt 2"):
        journal.finish("a", 1, {}, {})
    found = journal.trial("a")
    assert found is not None
    assert found.status == "running"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_refused_with_metric_and_step(journal: Journal, value: float) -> None:
    journal.add_trial(trial())
    attempt = journal.start_attempt("a")
    with pytest.raises(ValueError, match=r"trial a, step 7: train/loss = .* is not finite"):
        journal.add_reports([report(step=6), report(step=7, **{"train/loss": value})])
    with pytest.raises(ValueError, match="validation/loss"):
        journal.finish("a", attempt, {"validation/loss": value}, {})
    with open_journal(journal.path) as reader:
        assert list(read_reports(reader)) == []
    found = journal.trial("a")
    assert found is not None
    assert found.status == "running"


def test_the_first_ending_of_an_attempt_counts(journal: Journal) -> None:
    journal.add_trial(trial())
    attempt = journal.start_attempt("a")
    assert journal.fail("a", attempt, "loss is NaN at step 3") is True
    assert journal.finish("a", attempt, {"validation/loss": 1.0}, {}) is False
    assert journal.interrupt("a", attempt, "driver ends") is False
    found = journal.trial("a")
    assert found is not None
    assert (found.status, found.reason, found.metrics) == ("failed", "loss is NaN at step 3", {})


def test_a_result_that_comes_after_an_interruption_is_kept(journal: Journal) -> None:
    journal.add_trial(trial())
    attempt = journal.start_attempt("a")
    assert journal.interrupt("a", attempt, "silent for 60 s") is True
    assert journal.finish("a", attempt, {"validation/loss": 1.0}, {}) is True
    found = journal.trial("a")
    assert found is not None
    assert (found.status, found.reason) == ("finished", None)


@pytest.mark.parametrize("ending", ["finished", "failed", "stopped"])
def test_a_trial_that_has_ended_starts_no_further_attempt(journal: Journal, ending: str) -> None:
    journal.add_trial(trial())
    attempt = journal.start_attempt("a")
    {
        "finished": lambda: journal.finish("a", attempt, {}, {}),
        "failed": lambda: journal.fail("a", attempt, "out of memory"),
        "stopped": lambda: journal.stop("a", attempt, {"validation/loss": 3.0}),
    }[ending]()
    with pytest.raises(ValueError, match=f"trial a is {ending}"):
        journal.start_attempt("a")


def test_only_a_failed_trial_can_be_reset_and_then_starts_again(journal: Journal) -> None:
    journal.add_trial(trial())
    attempt = journal.start_attempt("a")
    assert journal.reset("a") is False
    journal.fail("a", attempt, "out of memory")
    assert journal.reset("a") is True
    found = journal.trial("a")
    assert found is not None
    assert (found.status, found.reason, found.ended_at) == ("pending", None, None)
    assert journal.start_attempt("a") == 2


def test_an_attempt_of_an_unknown_trial_is_an_error(journal: Journal) -> None:
    with pytest.raises(ValueError, match="trial x is not in the journal"):
        journal.start_attempt("x")
    with pytest.raises(ValueError, match="attempt 1 of trial x was never started"):
        journal.add_reports([report("x")])
    with pytest.raises(ValueError, match="attempt 1 of trial x was never started"):
        journal.finish("x", 1, {}, {})


def test_what_a_dead_driver_left_running_is_interrupted(journal: Journal) -> None:
    for number, name in enumerate("abc"):
        journal.add_trial(trial(name, number))
    journal.start_attempt("a")
    journal.finish("b", journal.start_attempt("b"), {}, {})
    assert journal.interrupt_dangling("the driver was killed") == ("a",)
    assert [(t.status, t.reason) for t in journal.trials()] == [
        ("interrupted", "the driver was killed"),
        ("finished", None),
        ("pending", None),
    ]
    assert journal.start_attempt("a") == 2


def test_decisions_keep_their_order_and_do_not_change_by_accident(journal: Journal) -> None:
    assert journal.put_decision("suggestion", "1", {"training.lr": 3e-4}) is True
    assert journal.put_decision("suggestion", "0", {"training.lr": 1e-3}) is True
    assert journal.put_decision("suggestion", "1", {"training.lr": 3e-4}) is False
    with pytest.raises(ValueError, match="suggestion/1"):
        journal.put_decision("suggestion", "1", {"training.lr": 5e-4})
    assert journal.put_decision("suggestion", "1", {"training.lr": 5e-4}, replace=True) is True
    assert list(journal.decisions("suggestion").items()) == [("1", {"training.lr": 5e-4}), ("0", {"training.lr": 1e-3})]
    assert journal.decisions("other") == {}


def test_meta_values_come_back_and_may_be_replaced(journal: Journal) -> None:
    journal.put_meta("sweep", {"name": "ablation"})
    journal.put_meta("sweep", {"name": "smoke"})
    assert journal.get_meta("sweep") == {"name": "smoke"}
    assert journal.get_meta("absent") is None
    assert journal.get_meta("schema_version") == JOURNAL_VERSION
    with pytest.raises(ValueError, match="schema_version"):
        journal.put_meta("schema_version", 0)


def test_a_journal_of_a_newer_version_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    Journal(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE meta SET value = '99' WHERE key = 'schema_version'")
    with pytest.raises(ConfigError, match=r"journal\.sqlite: schema_version = 99 is newer than this program's 1"):
        Journal(path)


def test_a_file_that_is_no_journal_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    path.write_text("not a database, but somebody's notes " * 50)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"journal\.sqlite: this is not a journal"):
        Journal(path)
    assert path.read_bytes() == before


def test_a_missing_folder_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="check that its folder exists"):
        Journal(tmp_path / "absent" / "journal.sqlite")


def test_a_full_disk_is_named_and_the_journal_goes_on_when_there_is_room(journal: Journal) -> None:
    journal.add_trial(trial())
    journal.start_attempt("a")
    pages = journal._connection.execute("PRAGMA page_count").fetchone()[0]
    journal._connection.execute(f"PRAGMA max_page_count = {pages + 2}")  # SQLite's own "database or disk is full"
    many = [report(step=step, **{f"metric/{i}": 1.0 for i in range(20)}) for step in range(1000)]
    with pytest.raises(DiskFullError, match="run the same command again"):
        journal.add_reports(many)
    journal._connection.execute("PRAGMA max_page_count = 1000000")
    with open_journal(journal.path) as reader:
        assert list(read_reports(reader)) == []
    assert journal.add_reports(many) == 1000


def test_flops_beyond_64_bits_are_kept(journal: Journal) -> None:
    journal.add_trial(trial())
    journal.start_attempt("a")
    record = MetricRecord(trial_id="a", attempt=1, step=1, tokens=1, flops=3 * 10**20, time=1.0, metrics={"x": 1.0})
    journal.add_reports([record])
    with open_journal(journal.path) as reader:
        ((_, found),) = read_reports(reader)
    assert found.flops == pytest.approx(3e20)
    assert isinstance(found.flops, int)


def test_two_threads_write_at_once_and_nothing_is_lost(journal: Journal) -> None:
    for number, name in enumerate("abcd"):
        journal.add_trial(trial(name, number))
    errors: list[BaseException] = []

    def write(name: str) -> None:
        try:
            attempt = journal.start_attempt(name)
            for step in range(50):
                journal.add_reports([report(name, attempt, step)])
            journal.finish(name, attempt, {"validation/loss": 1.0}, {})
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert [t.status for t in journal.trials()] == ["finished"] * 4
    with open_journal(journal.path) as reader:
        assert len(list(read_reports(reader))) == 200


def test_a_closed_journal_is_one_file_that_can_be_read_from_a_read_only_folder(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    folder.mkdir()
    with Journal(folder / "journal.sqlite") as journal:
        journal.add_trial(trial())
    assert [path.name for path in folder.iterdir()] == ["journal.sqlite"]
    with sqlite3.connect(f"file:{folder / 'journal.sqlite'}?mode=ro", uri=True) as raw:
        assert raw.execute("PRAGMA journal_mode").fetchone()[0] == "delete"
    journal.close()  # a second time


WRITER = """
import itertools, sys
from stackwise_ray.core.records import MetricRecord, TrialRecord
from stackwise_ray.tracking.journal import Journal

def said(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\\n")  # one write: a kill cannot split it
    sys.stdout.flush()

journal = Journal(sys.argv[1])
journal.interrupt_dangling("killed")
for number in itertools.count(journal.next_number()):
    name = f"t{number}"
    journal.add_trial(TrialRecord(trial_id=name, number=number, arm="a", seed=0, role="search", config={}))
    said("added", name)
    attempt = journal.start_attempt(name)
    said("started", name)
    for step in range(0, 30, 10):
        journal.add_reports([
            MetricRecord(trial_id=name, attempt=attempt, step=step + i, tokens=0, flops=0, time=0.0, metrics={"x": 1.0})
            for i in range(10)
        ])
        said("reported", name, step)
    journal.finish(name, attempt, {"validation/loss": 1.0}, {})
    said("finished", name)
"""


@pytest.mark.slow
def test_a_writer_killed_at_random_moments_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    chance = random.Random(20240607)
    said: list[list[str]] = []
    for _ in range(10):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        said.append(writer.stdout.readline().split())  # it is up
        time.sleep(chance.uniform(0.0, 0.3))
        os.kill(writer.pid, signal.SIGKILL)
        said += [line.split() for line in writer.stdout.read().splitlines()]
        writer.wait()
        with open_journal(path) as reader:
            assert reader.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    with Journal(path) as journal:
        journal.interrupt_dangling("killed")
        trials = {t.trial_id: t for t in journal.trials()}
        with open_journal(path) as reader:
            steps: dict[str, list[int]] = {}
            for _, record in read_reports(reader):
                steps.setdefault(record.trial_id, []).append(record.step)
    assert [t.number for t in trials.values()] == list(range(len(trials)))
    assert len(said) > 100
    for word, name, *rest in said:
        assert name in trials
        if word == "finished":
            assert trials[name].status == "finished"
        if word == "reported":
            assert int(rest[0]) in steps[name]
    for name, t in trials.items():
        assert t.status in ("finished", "interrupted", "pending")
        assert (t.status == "finished") == (json.dumps(dict(t.metrics)) != "{}")
        assert steps.get(name, []) == list(range(len(steps.get(name, [])))), "a batch of reports is whole or absent"
        assert len(steps.get(name, [])) % 10 == 0


# ------------------------------------------------------------------------------------------------ disks


def test_only_the_end_of_a_trial_waits_for_the_disk(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.sqlite") as journal:
        journal.add_trial(trial())
        statements: list[str] = []
        journal._connection.set_trace_callback(statements.append)
        attempt = journal.start_attempt(trial().trial_id)
        assert [s for s in statements if "synchronous" in s] == ["PRAGMA synchronous = NORMAL"]
        statements.clear()
        journal.finish(trial().trial_id, attempt, {"validation/loss": 1.0}, {})
        assert [s for s in statements if "synchronous" in s] == ["PRAGMA synchronous = FULL"]


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE])
def test_a_disk_without_room_for_sqlite_is_a_full_disk_and_not_a_foreign_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    class Full(sqlite3.Connection):
        def execute(self, statement: str, *arguments: object) -> sqlite3.Cursor:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = code
            raise error

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **{**k, "factory": Full}))
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=8192))
    with pytest.raises(DiskFullError, match="free some space"):
        Journal(tmp_path / "journal.sqlite")
