"""`train` and `evaluate` as a user runs them: real processes, exit codes, messages, interruption, a full disk."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.warm_processes import WarmProcess

pytestmark = pytest.mark.usefixtures("module_cache")

WORDS = [
    "model=decoder/gpt2_family/tiny",
    "data=markov",
    "data.seq_len=32",
    "data.validation_tokens=512",
    "data.markov={order: 1, n_symbols: 4, n_tokens: 4000}",
    "training.evaluations=2",
    "training.batch_tokens=256",
]
SHORT = [*WORDS, "training.max_steps=4"]
LONG = [*WORDS, "training.max_steps=100000", "training.report_seconds=0.1"]


def command(name: str, *words: str) -> list[str]:
    return [sys.executable, "-m", f"stackwise_ray.{name}", *words]


def run(name: str, *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """In a process of its own, as a user does it: seconds, since torch and transformers are loaded anew."""
    return subprocess.run(command(name, *words), cwd=folder, capture_output=True, text=True, check=False, timeout=120)


def call(name: str, *words: str, folder: Path) -> Result:
    """The same command in this process, where everything is loaded; what it raises is not caught."""
    with contextlib.chdir(folder):
        return CliRunner().invoke(import_module(f"stackwise_ray.{name}").app, words, catch_exceptions=False)


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_help_shows_examples_within_a_second_and_loads_no_torch(name, tmp_path):
    began = time.perf_counter()
    answer = run(name, "--help", folder=tmp_path)
    took = time.perf_counter() - began
    assert answer.returncode == 0
    assert f"python -m stackwise_ray.{name} " in answer.stdout
    code = f"import sys, stackwise_ray.{name}; sys.exit('torch' in sys.modules or 'ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert took < 1.0 or os.getloadavg()[0] > 2  # measured 0.2 s on a machine that does nothing else


@pytest.mark.slow
def test_the_python_face_is_light_and_complete():
    code = """
import sys, stackwise_ray as sw
assert not {"torch", "ray", "transformers"} & set(sys.modules)
import stackwise_ray.train  # the command's module takes the name sw.train and stays callable
assert {"load_sweep", "plan", "run", "load_trial", "build_model", "train", "count_flops"} <= set(dir(sw))
trial = sw.load_trial(["model=decoder/gpt2_family/tiny", "training=classical", "data=markov", "training.max_steps=1",
                       "data.seq_len=32", "training.batch_tokens=64", "data.validation_tokens=64",
                       "data.final_evaluation=fixed"])
model = sw.build_model(trial, vocab_size=256)
import torch
assert sw.count_flops(model, torch.zeros(1, 32, dtype=torch.int64)).total > 0
result = sw.train(trial, output=sys.argv[1])
assert result.metrics["steps/total"] == 1
try:
    sw.nothing
except AttributeError as error:
    assert "nothing" in str(error)
else:
    raise AssertionError
"""
    with_folder = [sys.executable, "-c", code, "trial"]
    folder = Path(os.environ["STACKWISE_CACHE"])
    answer = subprocess.run(with_folder, cwd=folder, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr


@pytest.mark.slow
def test_a_run_goes_on_in_a_hybrid_one_and_both_regimes_take_the_steps_asked_for(tmp_path):
    words = [*WORDS, "data.final_evaluation=fixed"]
    answer = call("train", *words, "training=depth_time", "training.max_steps=20", "--output", "a", folder=tmp_path)
    assert answer.exit_code == 0, answer.stderr
    hybrid = [*words, "training=hybrid", "training.init_from=a"]
    answer = call("train", *hybrid, "training.max_steps=30", "--output", "b", folder=tmp_path)
    assert answer.exit_code == 0, answer.stderr
    steps = [json.loads((tmp_path / name / "outputs" / "metrics.json").read_text())["steps/total"] for name in "ab"]
    assert steps == [20, 10]
    (tmp_path / "a" / "model" / "model.safetensors").write_bytes(b"other weights")
    answer = call("train", *hybrid, "training.max_steps=30", "--output", "b", folder=tmp_path)
    assert answer.exit_code == 2
    assert "contains a trial that began from other weights" in answer.stderr
    answer = call("train", *hybrid, "training.max_steps=20", "--output", "c", folder=tmp_path)
    assert answer.exit_code == 2
    assert "training.budget.steps = 20, but training.init_from = a has cost 20 and nothing" in answer.stderr


@pytest.mark.slow
def test_a_trial_trains_and_its_weights_score_what_it_reported(tmp_path):
    answer = run("train", *SHORT, "--output", "trial", folder=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert "\x1b" not in answer.stdout + answer.stderr
    assert "validation loss" in answer.stdout
    assert answer.stdout.splitlines()[-1] == "results: trial"
    metrics = json.loads((tmp_path / "trial" / "outputs" / "metrics.json").read_text())
    scored = call("evaluate", "--run", "trial", folder=tmp_path)
    assert scored.exit_code == 0, scored.stderr
    scores = json.loads((tmp_path / "trial" / "outputs" / "evaluation.json").read_text())["metrics"]
    for name in ("validation/loss", "test/perplexity_token", "validation/perplexity_byte", "test/tokens"):
        assert scores[name] == pytest.approx(metrics[name], rel=1e-6), name
    again = call("train", *SHORT, "--output", "trial", folder=tmp_path)
    assert again.exit_code == 0
    assert json.loads((tmp_path / "trial" / "outputs" / "metrics.json").read_text()) == metrics


MISTAKES = {
    "an unknown preset": (["model=decoder/gpt2_family/tny"], "did you mean 'decoder/gpt2_family/tiny'"),
    "an unknown key": ([*SHORT, "training.lrr=1"], "training.lr"),
    "a wrong type": ([*SHORT, "training.lr=fast"], "training.lr"),
    "an unknown flag": ([*SHORT, "flags=[mixed_precison]"], "mixed_precision"),
    "an unknown regime": ([*SHORT, "training.regime=classic"], "classical"),
    "a batch that is no multiple": (
        [*SHORT[:-2], "training.batch_tokens=250", "training.max_steps=4"],
        "choose 224 or 256",
    ),
    "a budget that cannot be met": ([*WORDS, "training.budget={flops: 1000}"], "give at least"),
    "a GPU that is not there": ([*SHORT, "training.device=cuda"], "training.device = cuda"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("words", "said"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_message_with_exit_code_2(words, said, tmp_path):
    if "training.device=cuda" in words and shutil.which("nvidia-smi"):
        pytest.skip("this machine has a GPU")
    answer = call("train", *words, "--output", "trial", folder=tmp_path)
    assert answer.exit_code == 2, answer.stderr
    assert said in answer.stderr
    assert "Traceback" not in answer.stderr
    assert answer.stderr.count("error:") == 1
    assert not (tmp_path / "trial" / "outputs").exists()


@pytest.mark.slow
def test_a_folder_that_holds_another_trial_or_is_a_file_is_not_written_over(tmp_path):
    assert call("train", *SHORT, "--output", "trial", folder=tmp_path).exit_code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "trial").rglob("*") if path.is_file()}
    answer = call("train", *SHORT, "training.lr=1e-4", "--output", "trial", folder=tmp_path)
    assert answer.exit_code == 2
    assert "contains another trial (training.lr was 0.003, is 0.0001)" in answer.stderr
    assert {path: path.read_bytes() for path in (tmp_path / "trial").rglob("*") if path.is_file()} == before
    (tmp_path / "file").write_text("mine")
    answer = call("train", *SHORT, "--output", "file", folder=tmp_path)
    assert answer.exit_code == 2
    assert "there is a file of that name" in answer.stderr
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.slow
def test_a_trial_that_fails_by_its_own_doing_ends_with_exit_code_1_and_the_reason(tmp_path):
    answer = call("train", *SHORT, "training.lr=1e30", "training.gradient_clip=null", folder=tmp_path)
    assert answer.exit_code == 1
    assert "failed: non-finite" in answer.stderr
    assert "lr = " in answer.stderr
    assert "Traceback" not in answer.stderr


PRINTED = "printed"


def start(*words: str, folder: Path) -> WarmProcess:
    """A long training, once its loop is running."""
    log, deadline = folder / "trial" / "logs" / "train.log", time.monotonic() + 60
    before = log.read_text() if log.is_file() else ""
    told = (*words, "--output", "trial")
    process = WarmProcess("stackwise_ray.train", told, output=folder / PRINTED, cwd=folder, env=os.environ)
    while not log.is_file() or log.read_text() == before:
        assert process.poll() is None, (folder / PRINTED).read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1.5)
    return process


@pytest.mark.slow
def test_ctrl_c_leaves_a_checkpoint_and_the_same_command_continues(tmp_path):
    process = start(*LONG, folder=tmp_path)
    other = call("train", *LONG, "--output", "trial", folder=tmp_path)
    assert other.exit_code == 2
    assert f"process {process.pid}" in other.stderr
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    errors = (tmp_path / PRINTED).read_text()
    assert "the same command continues" in errors
    assert "Traceback" not in errors
    checkpoint = max((tmp_path / "trial" / "checkpoints").iterdir())
    step = int(checkpoint.name.removeprefix("step_"))
    assert step > 0

    process = start(*LONG, folder=tmp_path)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 130
    log = (tmp_path / "trial" / "logs" / "train.log").read_text()
    assert f"continues after step {step}" in log


@pytest.mark.slow
def test_a_full_disk_ends_with_exit_code_1_and_the_same_command_continues(tmp_path):
    """On a real file system of 6 MiB in a namespace of its own, which then grows."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let a process mount a small file system of its own")
    (tmp_path / "disk").mkdir()
    words = [*SHORT, "training.checkpoint_seconds=0", "--output", "disk/trial"]
    script = f"""
import json, os, subprocess, sys
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", "disk"], check=True)
first = subprocess.run({command("train", *words)!r}, capture_output=True, text=True)
left = [name for name in os.listdir("disk/trial/checkpoints")]
subprocess.run(["mount", "-o", "remount,size=60m", "disk"], check=True)
second = subprocess.run({command("train", *words)!r}, capture_output=True, text=True)
log = open("disk/trial/logs/train.log").read()
print(json.dumps([first.returncode, first.stderr, left, second.returncode, log]))
"""
    answer = subprocess.run(
        [unshare, "-rm", sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    code, errors, left, second, log = json.loads(answer.stdout)
    assert code == 1
    assert "no space left" in errors
    assert "Traceback" not in errors
    assert sorted(left) == [
        "step_000000000001",
        "step_000000000002",
    ]  # of the third, which did not fit, nothing is left
    assert second == 0
    assert "continues after step 2" in log
