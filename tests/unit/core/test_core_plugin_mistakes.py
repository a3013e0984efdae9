"""What a plugin's entry does wrong is one line with entry, file and reason, and whoever does not ask for it goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FLAG = """
from stackwise_ray.flags import FLAGS, Flag

def broken(trial):
    return {{}}["nothing"]

FLAGS.register("mine")(
    Flag(name="mine", summary="Is wrong.", claim="None.", measured_by=(), needs={needs}, edits={edits}))
"""
APPLY = """
import os, sys
from dataclasses import replace
from pathlib import Path
from stackwise_ray.config.loading import load_trial
from stackwise_ray.core import plugins
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.flags import apply_flags
trial = load_trial(["model=decoder/gpt2_family/tiny", "data=markov"])
for folder in sys.argv[1:]:
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0, folder
        continue
    os.chdir(folder)
    try:
        plugins.load_plugin("mine.py")
        apply_flags(replace(trial, flags=("mine",)))
    except ConfigError as error:
        Path("said").write_text(f"{error}\\n")
    apply_flags(replace(trial, flags=("compile",)))
    break
"""
MISTAKES = {
    "needs raises": (
        FLAG.format(needs="broken", edits="lambda trial: {}"),
        "flags: the flag 'mine' of the plugin FILE: its `needs` raises KeyError at line 5 of FILE: 'nothing'",
    ),
    "edits raises": (
        FLAG.format(needs="lambda trial: None", edits="broken"),
        "flags: the flag 'mine' of the plugin FILE: its `edits` raises KeyError at line 5 of FILE: 'nothing'",
    ),
    "edits gives no mapping": (
        FLAG.format(needs="lambda trial: None", edits="lambda trial: 3"),
        "flags: the flag 'mine' of the plugin FILE: its `edits` gives 3; return a mapping",
    ),
    "edits a field twice": (
        FLAG.format(
            needs="lambda trial: None",
            edits="lambda trial: {'training': {'lr': 1e-3}, 'training.lr': 1e-2}",
        ),
        "flags: the flag 'mine' of the plugin FILE: its `edits` sets training.lr twice, in a mapping and by its",
    ),
    "edits a field and a part of it": (
        FLAG.format(
            needs="lambda trial: None", edits="lambda trial: {'training.budget.steps': 3, 'training.budget': None}"
        ),
        "flags: the flag 'mine' of the plugin FILE: its `edits` sets training.budget twice, in a mapping and by its",
    ),
    "edits an unknown field": (
        FLAG.format(needs="lambda trial: None", edits="lambda trial: {'model.nosuch': 3}"),
        "flags: the flag 'mine' of the plugin FILE cannot be applied: model.nosuch",
    ),
    "edits to a wrong value": (
        FLAG.format(needs="lambda trial: None", edits="lambda trial: {'model.d_model': 'wide'}"),
        "flags: the flag 'mine' of the plugin FILE cannot be applied: model.d_model",
    ),
    "is a string": (
        "from stackwise_ray.flags import FLAGS\nFLAGS.register('mine')('mine')\n",
        "at line 2 of FILE: flag 'mine' is a str, which lacks name, summary, claim, needs, edits",
    ),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder with what was said for each mistake, in a process of its own, forked from one that read the trial."""
    found = {}
    for case, (text, _) in MISTAKES.items():
        found[case] = tmp_path_factory.mktemp("mistake")
        (found[case] / "mine.py").write_text(text)
    words = [sys.executable, "-c", APPLY, *map(str, found.values())]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return found


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_of_a_flag_is_one_line_and_other_flags_work(case: str, folders: dict[str, Path]) -> None:
    said = (folders[case] / "said").read_text()
    assert len(said.splitlines()) == 1
    assert MISTAKES[case][1].replace("FILE", str((folders[case] / "mine.py").resolve())) in said


TASKS = """
from stackwise_ray.core.registries import TASKS

@TASKS.register("mine")
class Mine:
    {body}
"""
PROTOCOL = "facts = None; where = check = prepare = score = lambda *_: None"


def evaluate(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stackwise_ray.evaluate", *words, "--plugin", "mine.py"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_a_task_that_cannot_be_listed_is_one_line_and_the_others_are_listed(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(TASKS.format(body=PROTOCOL))
    listed = evaluate(tmp_path, "--list")
    assert listed.returncode == 0, listed.stderr
    (line,) = [line for line in listed.stdout.splitlines() if line.startswith("mine ")]
    assert f"the task 'mine' of the plugin {(tmp_path / 'mine.py').resolve()}" in line
    assert "AttributeError" in line
    assert "\nptb  " in f"\n{listed.stdout}"
    assert "\nwikitext2  " in listed.stdout


@pytest.mark.parametrize("words", [("--list",), ("--run", "x", "--tasks", "mine")])
def test_a_task_without_the_protocol_is_refused_with_what_it_lacks(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "mine.py").write_text(TASKS.format(body="pass"))
    refused = evaluate(tmp_path, *words)
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
    assert (
        f"{(tmp_path / 'mine.py').resolve()}: task 'mine' is the class Mine, which lacks facts, where" in refused.stderr
    )
