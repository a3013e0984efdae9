"""Plugins: loaded once, remembered with their hash, refused by name and reason, and asked for again.

Each test runs in a process of its own, since a registration lasts as long as its process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FLAG = """
from stackwise_ray.flags import FLAGS, Flag, Measure

FLAGS.register("{name}")(
    Flag(name="{name}", summary="Decays little.", claim="None.",
         measured_by=(Measure(metric="validation/loss"),), needs=lambda trial: None,
         edits=lambda trial: {{"optimizer.weight_decay": {value}}})
)
"""
START = """
import json, sys
from pathlib import Path
from stackwise_ray.core import plugins, registries
from stackwise_ray.core.errors import ConfigError
"""


def in_a_process(folder: Path, code: str) -> str:
    done = subprocess.run([sys.executable, "-c", START + code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(FLAG.format(name="mine", value=0.01))
    return tmp_path


def install(folder: Path, group: str, name: str, module: str, text: str) -> None:
    """A distribution as an installer leaves it: a module, and metadata with one entry point."""
    (folder / f"{module}.py").write_text(text)
    metadata = folder / f"{module}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[stackwise_ray.{group}]\n{name} = {module}\n")
    (metadata / "top_level.txt").write_text(f"{module}\n")


def test_a_file_registers_by_the_same_call_as_ours_and_is_remembered_with_its_hash(folder: Path) -> None:
    shown = in_a_process(
        folder,
        """
plugin = plugins.load_plugin("mine.py")
assert plugins.load_plugin("./mine.py") is plugin, "once"
assert "mine" in registries.FLAGS.names() and registries.FLAGS.get("mine").name == "mine"
assert plugins.owner("flags", "mine") is plugin and plugins.owner("flags", "compile") is None
print(json.dumps([plugins.records(), plugin.entries]))
""",
    )
    ((record,), entries) = json.loads(shown)
    assert record["name"] == "mine.py"
    assert Path(record["file"]) == (folder / "mine.py").resolve()
    assert len(record["sha256"]) == 64
    assert entries == [["flags", "mine"]]


BROKEN = {
    "raises": ("import math\n\nmath.sqrt(-1)\n", "ValueError at line 3 of"),
    "syntax": ("x =\n", "SyntaxError"),
    "nothing": ("x = 1\n", "registers nothing"),
    "exits": ("raise SystemExit(3)\n", "SystemExit"),
    "taken": (FLAG.format(name="half", value=0.5) + FLAG.format(name="compile", value=0.5), "stackwise_ray has it"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_named_with_its_reason_and_leaves_nothing_registered(folder: Path, case: str) -> None:
    text, reason = BROKEN[case]
    (folder / f"{case}.py").write_text(text)
    said = in_a_process(
        folder,
        f"""
before = registries.FLAGS.names()
try: plugins.load_plugin("{case}.py")
except ConfigError as error: print(error)
assert registries.FLAGS.names() == before and not plugins.records()
registries.FLAGS.get("compile")
plugins.load_plugin("mine.py")
""",
    )
    assert said.startswith(f"--plugin = {case}.py")
    assert reason in said
    assert len(said.splitlines()) == 1


def test_what_is_no_plugin_at_all_is_refused_with_what_to_write(folder: Path) -> None:
    for asked in ("absent.py", "no_such_module"):
        said = in_a_process(
            folder,
            f"""
try: plugins.load_plugin("{asked}")
except ConfigError as error: print(error)
""",
        )
        assert said.startswith(f"--plugin = {asked}")


def test_an_installed_plugin_is_listed_without_an_import_and_loaded_when_its_entry_is_asked_for(folder: Path) -> None:
    install(folder, "flags", "theirs", "their_package", FLAG.format(name="theirs", value=0.02))
    shown = in_a_process(
        folder,
        """
assert "theirs" in registries.FLAGS.names() and "their_package" not in sys.modules
assert registries.FLAGS.get("theirs").name == "theirs"
print(json.dumps(plugins.records()))
""",
    )
    (record,) = json.loads(shown)
    assert (record["distribution"], record["version"]) == ("their_package", "1.0")


def test_a_broken_installed_plugin_stops_nobody_who_does_not_ask_for_it(folder: Path) -> None:
    install(folder, "flags", "theirs", "their_package", "raise RuntimeError('not today')\n")
    install(folder, "corpora", "markov", "their_corpus", "raise RuntimeError('never imported')\n")
    shown = in_a_process(
        folder,
        """
assert "compile" in dict(registries.FLAGS.items())
registries.CORPORA.get("markov")
try: registries.FLAGS.get("theirs")
except ConfigError as error: print(error)
print(*plugins.problems(), sep="\\n")
assert not plugins.problems(), "each is told once"
""",
    )
    asked, broken, taken = shown.splitlines()
    assert "their_package 1.0" in asked
    assert "RuntimeError" in asked
    assert "not today" in asked
    assert broken == asked
    assert "offers 'markov' in stackwise_ray.corpora, and stackwise_ray has it" in taken


def command(folder: Path, *words: str) -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, "-m", *words], cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("group", ["components", "tasks", "analyses"])
def test_a_table_may_have_columns_under_the_name_of_a_broken_installed_plugin(group: str, folder: Path) -> None:
    install(folder, group, "theirs", "their_package", "raise RuntimeError('not today')\n")
    rows = ("arm,seed,theirs/score", "a,0,1", "b,0,2", "a,1,1.5", "b,1,2.5")
    (folder / "runs.csv").write_text("\n".join(rows) + "\n")
    words = ("compare", "runs.csv", "--metric", "theirs/score", "--baseline", "a", "--equal", "none")
    code, shown, said = command(folder, "analysis", *words)
    assert code == 0, said
    assert "theirs/score" in shown
    assert said.count("not today") == (group != "analyses")  # of which the table says nothing
    assert "--plugin" not in said


def test_an_error_of_an_installed_plugin_is_said_once_and_asks_for_no_option(folder: Path) -> None:
    install(folder, "analyses", "theirs", "their_package", "raise RuntimeError('not today')\n")
    (folder / "s.yaml").write_text(
        "name: s\nbase: {model: decoder/gpt2_family/tiny, data: markov}\n"
        "design: {kind: arms, arms: {a: {}}}\nanalysis: [{theirs: {}}]\n"
    )
    code, _, said = command(folder, "stackwise_ray.sweep", "s.yaml", "--plan")
    assert code == 2
    assert said.count("not today") == 1
    assert said.startswith("error: the installed plugin theirs (their_package of their_package 1.0) cannot be loaded: ")


def test_a_worker_loads_the_text_that_it_was_sent_where_there_is_no_file(folder: Path) -> None:
    sent = in_a_process(folder, 'plugins.load_plugin("mine.py"); print(json.dumps(plugins.to_workers()))')
    (folder / "mine.py").unlink()
    (folder / "sent.json").write_text(sent)
    in_a_process(
        folder,
        """
sent = json.loads(Path("sent.json").read_text())
plugins.load_sent(sent)
plugins.load_sent(sent)
assert registries.FLAGS.get("mine").name == "mine"
assert plugins.to_workers() == sent
""",
    )


def test_a_plugin_that_is_missing_is_asked_for_by_name_and_a_changed_one_is_told(folder: Path) -> None:
    before = in_a_process(folder, 'plugins.load_plugin("mine.py"); print(json.dumps(plugins.records()))')
    (folder / "before.json").write_text(before)
    ask = 'print(plugins.ask_again(json.loads(Path("before.json").read_text()), "experiments/x"))'
    refused = in_a_process(folder, f"try: {ask}\nexcept ConfigError as error: print(error)")
    assert refused.startswith("experiments/x: was started with --plugin mine.py")
    assert f"add --plugin {folder.resolve() / 'mine.py'}" in refused
    assert in_a_process(folder, f'plugins.load_plugin("mine.py"); {ask}').strip() == "[]"
    (folder / "mine.py").write_text(FLAG.format(name="mine", value=0.02))
    assert "the plugin mine.py has changed" in in_a_process(folder, f'plugins.load_plugin("mine.py"); {ask}')


def test_the_source_of_a_plugin_is_part_of_a_trials_identity_where_the_trial_uses_it(folder: Path) -> None:
    identify = """
from dataclasses import replace
from stackwise_ray.config.identity import trial_id
from stackwise_ray.config.loading import load_trial
plugins.load_plugin("mine.py")
trial = load_trial(["model=decoder/gpt2_family/tiny", "data=markov"])
print(trial_id(trial, "data"), trial_id(replace(trial, flags=("mine",)), "data"))
"""
    plain, with_it = in_a_process(folder, identify).split()
    (folder / "mine.py").write_text(FLAG.format(name="mine", value=0.02))
    plain_again, changed = in_a_process(folder, identify).split()
    assert plain == plain_again
    assert with_it != changed
