"""`python -m analysis fit` and `… isoflop`: forms of output, options, mistakes."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from command_line import run
from synthetic_laws import make_runs, make_valleys


@pytest.fixture
def csv(tmp_path):
    """Runs under other people's names, without tokens."""
    table = make_runs(n=32, noise=0.004).drop(columns="tokens")
    path = tmp_path / "runs.csv"
    table.rename(columns={"params": "Model Size", "flops": "Training FLOP"}).to_csv(path, index=False)
    return path


MAPPED = ("--map", "params=Model Size", "--map", "flops=Training FLOP", "--map", "loss=loss", "--tokens-from", "6N")


def test_fit_prints_the_law_its_certificate_and_what_was_left_out(csv, capsys):
    words = ("--drop-highest", 2, "--bootstrap", 100, "--allocate", 1e21)
    code, out, _ = run(capsys, "fit", csv, "--law", "chinchilla", *MAPPED, *words)
    assert code == 0
    flat = " ".join(out.split())
    assert "chinchilla by huber_log, 30 runs" in flat
    assert "(1) optimum confirmed" in flat
    assert "left out: 2 × among the 2 highest losses" in flat
    assert "flops are best spent on" in flat
    assert "\x1b[" not in out


def test_fit_speaks_json_markdown_and_latex(csv, capsys):
    words = ("fit", csv, *MAPPED, "--bootstrap", 0)
    found = json.loads(run(capsys, *words, "--json", "--allocate", 1e21)[1])
    assert found["n"] == 32
    assert found["certificate"]["optimum"]["confirmed"] is True
    assert found["allocation"]["params"] > 0
    words = ("fit", csv, "--law", "power", "--map", "flops=Training FLOP", "--bootstrap", 0)
    assert "| parameter | estimate |" in run(capsys, *words, "--markdown")[1]
    assert r"\begin{tabular}" in run(capsys, *words, "--latex")[1]


@pytest.mark.slow
def test_isoflop_prints_the_budgets_and_their_growth(tmp_path, capsys):
    path, figure = tmp_path / "runs.csv", tmp_path / "isoflop.png"
    make_valleys(seeds=2).drop(columns="tokens").to_csv(path, index=False)
    code, out, _ = run(capsys, "isoflop", path, "--bootstrap", 100, "--figure", figure)
    assert code == 0
    assert "(3 of 3 budgets have a best size)" in out
    assert figure.is_file()
    found = json.loads(run(capsys, "isoflop", path, "--bootstrap", 100, "--json")[1])
    assert len(found["budgets"]) == 3
    assert "| budget | runs |" in run(capsys, "isoflop", path, "--bootstrap", 0, "--markdown")[1]


def test_the_command_line_ties_and_fixes_parameters_and_takes_a_level(csv, capsys):
    words = ("--tie", "alpha=beta", "--fix", "E=1.8", "--level", 0.9, "--bootstrap", 100, "--no-holdout", "--json")
    code, out, _ = run(capsys, "fit", csv, *MAPPED, *words)
    assert code == 0
    found = json.loads(out)
    assert found["parameters"]["E"] == 1.8
    assert found["parameters"]["alpha"] == found["parameters"]["beta"]
    assert found["level"] == found["calibration"]["level"] == 0.9


def test_an_accuracy_is_said_at_a_loss_and_of_a_run_that_a_law_predicts(tmp_path, capsys):
    table = make_runs(n=32, noise=0.002)
    table["acc"] = 0.25 + 0.6 / (1 + np.exp((table["loss"] - 2.8) / 0.3))
    table.to_csv(tmp_path / "runs.csv", index=False)
    words = ("accuracy", tmp_path / "runs.csv", "--accuracy", "acc", "--chance", 0.25, "--bootstrap", 100)
    code, out, _ = run(capsys, *words, "--at", 2.8, "--run", "params=1e9", "--run", "tokens=2e10")
    assert code == 0
    assert "at a loss of 2.8000: acc 0.55" in out
    assert "at params=1e9 tokens=2e10: acc 0." in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("fit", "CSV"), "no column 'params' in the table; say which one holds it (--map params=COLUMN"),
        (("fit", "CSV", "--loss", "huber"), "did you mean 'huber_log'?"),
        (("fit", "CSV", "--map", "params"), "write NAME=COLUMN"),
        (("fit", "CSV", "--map", "params=Model"), "did you mean 'Model Size'?"),
        (("fit", "CSV", "--map", "loss=loss", "--map", "loss=Model Size"), "--map names 'loss' twice"),
        (("fit", "CSV", "--law", "chinchila"), "law = 'chinchila' is not a law; did you mean 'chinchilla'?"),
        (("fit", "nowhere.csv"), "no such file"),
        (("fit", "CSV", "--fix", "E"), "--fix 'E': write NAME=NUMBER, for example E=1.69"),
        (("fit", "CSV", "--fix", "E=1_0"), "--fix 'E=1_0': write NAME=NUMBER"),
        (("fit", "CSV", "--fix", "E="), "--fix 'E=': write NAME=NUMBER"),
        (("fit", "CSV", "--fix", "E=1", "--fix", "E=2"), "--fix gives 'E' twice: 1 and 2"),
        (("isoflop", "CSV", "--budgets", "budget", "--map", "params=Model Size"), "budgets = 'budget' is not a column"),
    ],
)
def test_a_mistake_in_a_law_is_one_message_and_exit_code_2(words, message, csv, capsys):
    code, out, err = run(capsys, *(csv if word == "CSV" else word for word in words))
    assert code == 2
    assert message in err
    assert "Traceback" not in err + out


def test_fitting_a_law_never_loads_torch_or_ray(csv):
    code = (
        f"import sys, analysis; t = analysis.load_runs({str(csv)!r}).rename(columns={{'Training FLOP': 'flops'}}); "
        "analysis.fit_scaling_law(t, law='power', bootstrap=0); print({'torch', 'ray', 'mlflow'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
