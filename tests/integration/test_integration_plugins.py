"""A user's own flag and corpus, as the examples have them, run by Ray workers that get them from the driver."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from tests.integration.sweep_processes import SweepProcess, trials

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SWEEP = """
base:
  model: decoder/gpt2_family/tiny
  training: classical
  overrides:
    data.corpus: sums
    data.digits: 1
    data.seq_len: 64
    data.validation_tokens: 2048
    data.final_evaluation: fixed
    model.n_layers: 2
    training.batch_tokens: 256
    training.evaluations: 1
    training.budget: {steps: 20} # a warm-up of one step or of four
name: own
question: Does a long warm-up help?
design:
  kind: arms
  arms: {base: {}, warm: {flags: [long_warmup]}}
  baseline: base
replicates: {seeds: 1}
"""


def test_workers_run_a_users_flag_and_corpus_and_a_sweep_asks_for_them_again(tmp_path: Path) -> None:
    flag, corpus = (shutil.copy(EXAMPLES / name, tmp_path) for name in ("08_your_own_flag.py", "09_your_own_corpus.py"))
    file = tmp_path / "own.yaml"
    file.write_text(SWEEP)
    refused = SweepProcess(file, tmp_path)
    assert refused.wait() == 2, "a search-space file alone loads no plugin"

    ran = SweepProcess(file, tmp_path, "--plugin", str(flag), "--plugin", str(corpus))
    assert ran.wait(600) == 0, ran.text()
    records = {record.arm: record for record in trials(tmp_path / "own")}
    assert {record.status for record in records.values()} == {"finished"}
    assert records["warm"].metrics["train/loss"] != records["base"].metrics["train/loss"]
    for record in records.values():
        environment = tmp_path / "own" / "trials" / record.trial_id / "metadata" / "environment.json"
        recorded = json.loads(environment.read_text())["plugins"]
        assert [Path(plugin["file"]).name for plugin in recorded] == [Path(flag).name, Path(corpus).name]
        assert all(len(plugin["sha256"]) == 64 for plugin in recorded)
    with sqlite3.connect(tmp_path / "own" / "journal.sqlite") as journal:
        (stored,) = journal.execute("SELECT value FROM meta WHERE key = 'plugins'").fetchone()
    assert json.loads(stored) == recorded

    again = SweepProcess(file, tmp_path, "--plugin", str(flag))
    assert again.wait() == 2
    assert f"add --plugin {Path(corpus).resolve()}" in again.text().replace("\n", "")
