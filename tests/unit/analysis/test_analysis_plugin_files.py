"""An analysis in a plugin's file, on the command line: with the plugin, without it, and where it goes wrong."""

from __future__ import annotations

import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from command_line import run
from synthetic_sweeps import JournalBuilder, final_metrics

PLUGIN = """
from dataclasses import dataclass
from analysis.report.reported_steps import Finding, ReportedStep
from analysis.report.summary import Summary
from stackwise_ray.core.analysis_step import StepOptions
from stackwise_ray.core.registries import ANALYSES

@dataclass(frozen=True, kw_only=True)
class Counted(StepOptions):
    "None."

class CountedStep(ReportedStep):
    options = Counted
    title = "Counted"
    def compute(self, sweep, options):
        return Finding(sentence=f"{len(sweep.trials)} runs were counted.", facts={"runs": len(sweep.trials)})

ANALYSES.register("counted")(CountedStep())
"""


def analysis_command(*words: object) -> tuple[int, str]:
    """Exit code and what `python -m analysis` prints on both channels, in a process that a plugin may change."""
    done = subprocess.run([sys.executable, "-m", "analysis", *map(str, words)], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_a_sweep_with_a_plugins_analysis_is_reported_and_verified_with_the_plugin_and_asks_for_it_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin = tmp_path / "counting.py"
    plugin.write_text(PLUGIN)
    builder = JournalBuilder(tmp_path / "s")
    builder.trial("a", 0, final_metrics(3.0), role="tuning")  # no figure shows it
    record = {"name": "counting.py", "file": str(plugin), "sha256": sha256(PLUGIN.encode()).hexdigest()}
    builder.meta(sweep={"name": "s", "analysis": [{"counted": {}}]}, plugins=[record])
    folder = builder.close()
    code, shown = analysis_command("report", folder, "--plugin", plugin)
    assert (code, "1 runs were counted." in shown) == (0, True)
    assert analysis_command("verify", folder, "--plugin", plugin)[0] == 0
    code, _, shown = run(capsys, "verify", folder)
    assert code == 2
    assert f"add --plugin {plugin} to this command" in shown
    code, shown, _ = run(capsys, "report", folder)
    assert code == 0
    assert f"add--plugin{plugin}tothiscommand" in "".join(shown.split()), "a path of any length is broken over lines"
    code, _, shown = run(capsys, "report", folder, "--plugin", tmp_path / "nowhere.py")
    assert code == 2
    assert shown.startswith("error: --plugin = ")


def test_the_report_command_ends_with_code_one_where_a_plugins_analysis_went_wrong_and_names_its_file(
    tmp_path: Path,
) -> None:
    plugin = tmp_path / "counting.py"
    plugin.write_text(PLUGIN.replace("return Finding", "raise ValueError('nothing\\nto count'); return Finding"))
    line = plugin.read_text().partition("raise ValueError")[0].count("\n") + 1
    builder = JournalBuilder(tmp_path / "s")
    builder.trial("a", 0, final_metrics(3.0), role="tuning")
    builder.meta(sweep={"name": "s", "analysis": [{"counted": {}}]})
    code, shown = analysis_command("report", builder.close(), "--plugin", plugin)
    said = " ".join(shown.split())
    assert code == 1
    assert f"counted could not be computed: the analysis 'counted' of the plugin {plugin}: its `compute`" in said
    assert f"ValueError at line {line} of {plugin}: nothing to count" in said
    assert (tmp_path / "s/report/report.html").is_file()
