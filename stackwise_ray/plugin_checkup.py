"""What `doctor --plugin` checks: whether a plugin loads, here and in another process, and keeps its contracts.

The contracts are those that our own entries are tested by (`contracts`). One line per check; a plugin that cannot be
loaded is a line that fails, and the diagnosis goes on.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from stackwise_ray.checkup import Check
from stackwise_ray.core.errors import PluginError
from stackwise_ray.core.plugins import Plugin, load_plugin
from stackwise_ray.core.registries import BY_KIND

HEAVY = ("torch", "ray", "transformers", "mlflow", "optuna", "datasets")
"""Modules that an entry must not load before it is used, because configs are validated with every entry."""


def check_plugins(asked: Sequence[str], tell: Callable[[str], None]) -> Iterator[Check]:
    """The lines of every plugin.

    Args:
        asked: What `--plugin` names.
        tell: Called with what is being checked.
    """
    for name in asked:
        tell(f"loading {name}")
        try:
            plugin = load_plugin(name)
        except PluginError as error:
            fix = "correct the plugin; commands without this --plugin work as before"
            yield Check(name=f"plugin {name}", status="fails", detail=error.problem.removeprefix("= "), fix=fix)
            continue
        entries = [f"{BY_KIND[kind].kind} '{entry}'" for kind, entry in plugin.entries]
        has = ", ".join((*entries, *(f"metric '{path}'" for path in plugin.metrics)))
        yield Check(name=f"plugin {name}", status="ok", detail=f"registers {has} (sha256 {plugin.sha256[:12]})")
        yield _check_light(plugin)
        for kind, entry in plugin.entries:
            tell(f"checking {BY_KIND[kind].kind} {entry}")
            yield from check_entry(kind, entry, title=f"{BY_KIND[kind].kind} {entry} ({name})")


def check_entry(kind: str, name: str, *, title: str) -> Iterator[Check]:
    """One line per promise of an entry.

    Args:
        kind: As in `core.registries.BY_KIND`, such as ``flags``.
        title: The name of the entry in a line.
    """
    from stackwise_ray.contracts import ContractError, NotAtHand, contracts_of, promise

    fix = "correct the plugin"
    for contract in contracts_of(kind):
        try:
            contract(name)
        except ContractError as error:
            yield Check(name=title, status="fails", detail=f"{promise(contract)} It does not: {error}", fix=fix)
        except NotAtHand as reason:
            yield Check(name=title, status="note", detail=f"not checked: {promise(contract)} {reason}")
        except Exception as error:  # whatever a plugin raises is what is wrong with it
            said = f"{type(error).__name__}: {' '.join(str(error).split())}"
            yield Check(name=title, status="fails", detail=f"{promise(contract)} It raises {said}", fix=fix)
        else:
            yield Check(name=title, status="ok", detail=promise(contract))


def _check_light(plugin: Plugin) -> Check:
    """Whether a second process can load the plugin, as every worker does, and loads nothing heavy with it."""
    code = (
        "import json, sys; from pathlib import Path; from stackwise_ray.core.errors import PluginError\n"
        "from stackwise_ray.core.plugins import load_plugin\n"
        "try: load_plugin(sys.argv[1]); problem = None\n"
        "except PluginError as error: problem = str(error)\n"
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "Path(sys.argv[2]).write_text(json.dumps({'problem': problem, 'loaded': loaded}), encoding='utf-8')\n"
        "sys.exit(problem is not None)"
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "answer.json")  # not what it prints: a plugin may print at any time, at its end too
        command = [sys.executable, "-c", code, plugin.name, str(file)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        answer = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    name = f"plugin {plugin.name}"
    if done.returncode != 0 or not answer:  # no answer: it ended the process
        return Check(
            name=name,
            status="fails",
            detail=f"a second process cannot load it (exit code {done.returncode}): "
            f"{answer.get('problem') or done.stderr.strip()}",
            fix="correct the plugin: every worker of a sweep loads it in a process of its own",
        )
    loaded = answer["loaded"]
    if not loaded:
        return Check(name=name, status="ok", detail=f"It loads none of {', '.join(HEAVY)}.")
    return Check(
        name=name,
        status="note",
        detail=f"loading it loads {', '.join(loaded)}",
        fix="import what is heavy inside the functions that use it: every command and every --help waits for it",
    )
