"""`python -m stackwise_ray.sweep FILE`: plan a search-space file, run it, answer it.

The command: arguments, messages, exit codes. What it does is in `trials.proposals` (planning), `distributed.driver`
(running) and `analysis` (the answer). `plan` and `run` are the Python interface, `sw.plan` and `sw.run`.
"""

from __future__ import annotations

import html
import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

from stackwise_ray.core.beside import analysis_module
from stackwise_ray.core.errors import ConfigError, SweepFailedError
from stackwise_ray.core.plugins import ask_again
from stackwise_ray.terminal import (
    EXIT_MISTAKE,
    HydraOption,
    PluginOption,
    Waiting,
    examples,
    exit_codes,
    load_plugins,
    make_console,
    print_json,
    say,
    warn_about_plugins,
)

if TYPE_CHECKING:
    import pandas as pd

    from stackwise_ray.config.space.sweep_config import SweepConfig
    from stackwise_ray.core.records import TrialRecord
    from stackwise_ray.distributed.driver import SweepOutcome
    from stackwise_ray.planning.sweep_plan import SweepPlan
    from stackwise_ray.trials.adaptive_seeds import AnytimeVerdicts
    from stackwise_ray.trials.detectable_effects import EffectSizes

OUTPUT = Path("experiments")
_SHOWN = 5
"""Problems that a short view of a result shows."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


@dataclass(frozen=True, kw_only=True, repr=False)
class SweepResult:
    """What `run` gives back. At a prompt and in a notebook it shows the answer in short.

    Attributes:
        directory: The sweep's folder, with journal, trials and report.
        failed: Trials that failed, with their reasons.
        outcome: Everything else: problems, trials kept from before, the MLflow command.
        summary: What the report says, as `analysis.summary_table` gives it; None where none was written.
    """

    directory: Path
    failed: tuple[TrialRecord, ...]
    outcome: SweepOutcome
    summary: Any = None

    @property
    def table(self) -> pd.DataFrame:
        """One row per replicate, by the one table schema (`core.records.TABLE_COLUMNS`)."""
        table: pd.DataFrame = analysis_module().load_runs(self.directory)
        return table

    def __repr__(self) -> str:
        counts = Counter(record.status for record in self.outcome.trials)
        shown = ", ".join(f"{count} {status}" for status, count in counts.items()) or "no trial"
        lines = [f"<SweepResult {self.directory.name}: {shown}>"]
        if self.summary is not None:
            lines += [self.summary.error] if self.summary.error else [*self.summary.warnings, self.summary.verdict]
        lines += [f"problem: {problem}" for problem in self.outcome.problems[:_SHOWN]]
        report = self.outcome.report
        return "\n".join([*lines, f"folder: {self.directory}" if report is None else f"report: {report}"])

    def _repr_html_(self) -> str:
        if self.summary is None:
            return f"<pre>{html.escape(repr(self))}</pre>"
        where = html.escape(str(self.outcome.report or self.directory))
        problems = "".join(f"<p>problem: {html.escape(problem)}</p>" for problem in self.outcome.problems[:_SHOWN])
        shown: str = self.summary._repr_html_()
        return f"{shown}{problems}<p>report: {where}</p>"


def plan(
    sweep: SweepConfig,
    *,
    output: str | Path = OUTPUT,
    address: str | None = None,
    max_concurrent: int | None = None,
) -> SweepPlan:
    """Count and cost every cell of a sweep; allocates no weights and starts no Ray.

    What this machine lacks (CPUs, GPUs, memory, data) is no reason to refuse: the plan says in its notes where the
    sweep can run.

    Args:
        output: As in `run`: trials that have ended there are told apart from those that are left.
        address: The Ray cluster on which it is to run; None: this machine.
        max_concurrent: Most trials at once.

    Raises:
        ConfigError: The design is refused, or the data are not what the file says.
    """
    from stackwise_ray.config.space.designs import expand
    from stackwise_ray.planning.preparation import PreparedCorpora
    from stackwise_ray.trials.proposals import plan_sweep

    with Waiting() as waiting:
        waiting(f"planning {sweep.name}")
        return plan_sweep(
            sweep,
            expand(sweep),
            PreparedCorpora(waiting),
            max_concurrent=max_concurrent,
            address=address,
            verdicts=_anytime_verdicts(),
            sizes=_effect_sizes(),
            directory=Path(output) / sweep.name,
            progress=waiting,
        )


def run(
    sweep: SweepConfig,
    output: str | Path = OUTPUT,
    *,
    address: str | None = None,
    max_concurrent: int | None = None,
    retry_failed: bool = False,
    console: Console | None = None,
) -> SweepResult:
    """Run what is missing of a sweep in ``output/<sweep name>`` and write its report.

    Args:
        address: A Ray cluster; None: this machine.
        max_concurrent: Most trials at once.
        retry_failed: Try failed trials again.
        console: Where progress goes; None: standard error.

    Raises:
        ConfigError: The sweep cannot be run as written, or its directory belongs to another process.
        DiskFullError: The disk filled up; the same call continues later.
        SweepFailedError: Every trial failed; its `result` is the `SweepResult`.
    """
    from stackwise_ray.config.space.designs import expand
    from stackwise_ray.distributed.driver import Options, run_sweep

    written: list[Any] = []

    def report(directory: Path) -> Path:
        written.append(analysis_module("report.compose").write_report(directory))
        path: Path = written[-1].report
        return path

    console = console or make_console(stderr=True)
    options = Options(
        address=address,
        max_concurrent=max_concurrent,
        retry_failed=retry_failed,
        report=report,
        verdicts=_anytime_verdicts(),
        waiting=Waiting(console),
    )
    directory = Path(output) / sweep.name
    outcome = run_sweep(sweep, expand(sweep), directory, console, options)
    summary = written[-1] if written else None
    if summary is not None:
        wrong = (f"{answer.called} could not be computed; the report says why" for answer in summary.failed)
        outcome = replace(outcome, problems=(*outcome.problems, *wrong))
    result = SweepResult(directory=directory, failed=outcome.failed, outcome=outcome, summary=summary)
    if summary is not None and summary.error is not None:
        raise SweepFailedError(f"{summary.error} (report: {outcome.report})", result)
    return result


def _anytime_verdicts() -> AnytimeVerdicts:
    from stackwise_ray.trials.adaptive_seeds import AnytimeVerdicts

    return AnytimeVerdicts(
        undecided=analysis_module("anytime.adaptive_verdicts").is_undecided,
        seeds_possible=analysis_module("anytime.adaptive_verdicts").first_decision,
    )


def _effect_sizes() -> EffectSizes:
    from stackwise_ray.trials.detectable_effects import EffectSizes

    detectable = analysis_module("anytime.detectable")
    return EffectSizes(power=detectable.POWER, smallest=detectable.smallest_effect, noise=detectable.observed_noise)


# ------------------------------------------------------------------------------------------------- the command


@app.command(
    epilog=examples(
        "sweep",
        "ablation   # run it, or finish what is missing",
        "ablation --plan   # what would run, at what cost",
        "ablation replicates.seeds=5   # two more seeds",
        "my.yaml training.lr=1e-3 --output results",
        "my.yaml --plugin my_flag.py",
        "ablation --status --json   # for a program",
    )
)
def main(
    file: Annotated[str | None, typer.Argument(help="A search-space file, or the name of a shipped one.")] = None,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[path=value ...]", help="Changes to the file, by dotted path.")
    ] = None,
    plan_only: Annotated[bool, typer.Option("--plan", help="Print what would run, and run nothing.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Print how far the sweep is, and run nothing.")] = False,
    shipped: Annotated[bool, typer.Option("--list", help="List the shipped files.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try failed trials again.")] = False,
    output: Annotated[Path, typer.Option(help="Results go to OUTPUT/<sweep name>.")] = OUTPUT,
    address: Annotated[str | None, typer.Option(help="Run on this Ray cluster instead of this machine.")] = None,
    max_concurrent: Annotated[int | None, typer.Option(min=1, help="Most trials at once.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")] = False,
    plugin: PluginOption = None,
    hydra: HydraOption = None,
) -> None:
    """Plan, run and answer one search-space file: finished trials are kept, the rest is trained, a report is written.

    Exit codes: 0 done; 1 done but something failed, or to be continued; 2 a mistake in what was asked; 130 interrupted.
    """
    console = make_console(stderr=as_json)
    with exit_codes(resumable=not (plan_only or status or shipped)):
        if shipped:
            _list(as_json)
            return
        if file is None:
            raise ConfigError("name a search-space file; --list shows the shipped ones, --help the options")
        load_plugins(plugin)
        sweep = _load(file, words or (), output)
        if sweep.source and Path(sweep.source) != Path(file):
            say(console, f"reading {sweep.source}")
        if status:
            _status(sweep, output / sweep.name, console, as_json)
        elif plan_only:
            made = plan(sweep, output=output, address=address, max_concurrent=max_concurrent)
            print_plan(made, console, as_json=as_json)
        else:
            options = {"address": address, "max_concurrent": max_concurrent, "retry_failed": retry_failed}
            run_and_answer(sweep, output, console, as_json=as_json, **options)


def run_and_answer(
    sweep: SweepConfig, output: Path, console: Console, *, as_json: bool = False, **options: Any
) -> NoReturn:
    """Run a sweep, print what it found, and end the command with its exit code.

    Args:
        options: Of `run`.
    """
    try:
        result = run(sweep, output, console=console, **options)
    except SweepFailedError as error:
        result = error.result  # printed as any other, with the reasons of its trials
    print_answer(result, console, as_json=as_json)
    raise typer.Exit(result.outcome.exit_code)


def _load(file: str, words: Sequence[str], output: Path) -> SweepConfig:
    """The sweep; where it cannot be read without a plugin that it was started with, that is the message.

    What is wrong with installed plugins is printed now: the trials may take hours.
    """
    from stackwise_ray.config.loading import load_sweep

    try:
        return load_sweep(file, overrides=words)
    except ConfigError as error:
        warn_about_plugins(error)
        directory = output / _name(file, words)
        if (directory / "journal.sqlite").is_file():
            from stackwise_ray.core.records import open_journal, read_meta

            with closing(open_journal(directory / "journal.sqlite")) as connection:
                ask_again(read_meta(connection).get("plugins") or (), str(directory))
        raise
    finally:
        warn_about_plugins()


def _name(file: str, words: Sequence[str]) -> str:
    """The name of a sweep that cannot be read in full."""
    from stackwise_ray.config.reading.extending import extended
    from stackwise_ray.config.reading.shipped import find_search_space

    given = [word.removeprefix("name=") for word in words if word.startswith("name=")]
    path = find_search_space(file)
    return given[-1] if given else str(extended(path)[0].get("name", path.stem))


def _list(as_json: bool) -> None:
    from rich.text import Text

    from stackwise_ray.config.reading.shipped import shipped_search_spaces
    from stackwise_ray.config.reading.yaml import load_yaml

    rows = {name: str(load_yaml(path).get("question", "")) for name, path in shipped_search_spaces().items()}
    if as_json:
        print_json(rows)
        return
    console = make_console()
    for name, question in rows.items():
        console.print(Text.assemble((name, "bold"), f"  {question}"), soft_wrap=True)


def print_plan(made: SweepPlan, console: Console, *, as_json: bool) -> None:
    """A plan on the terminal or as JSON; one that cannot run ends the command as a mistake."""
    if as_json:
        print_json(made.to_dict())
    else:
        from stackwise_ray.planning.plan_display import plan_table

        console.print(plan_table(made))
    if made.refused:
        raise typer.Exit(EXIT_MISTAKE)


def _status(sweep: SweepConfig, directory: Path, console: Console, as_json: bool) -> None:
    from stackwise_ray.core.records import open_journal, read_trials, unreadable_journal

    path = directory / "journal.sqlite"
    if not path.is_file():
        raise ConfigError(f"{directory} contains no sweep yet; run the command without --status to start it")
    connection = open_journal(path)
    try:
        trials = read_trials(connection)
    except sqlite3.DatabaseError as error:
        raise unreadable_journal(error, path) from None
    finally:
        connection.close()
    count = Counter(str(record.status) for record in trials)
    planned = _planned_trials(directory)
    if planned is not None and planned[0] > len(trials):
        count["not started"] = planned[0] - len(trials)
    failed = {record.trial_id: record.reason for record in trials if record.status == "failed"}
    if as_json:
        print_json({"name": sweep.name, "directory": str(directory), "trials": dict(count), "failed": failed})
        return
    standing = ", ".join(f"{n} {status}" for status, n in sorted(count.items())) or "no trial has begun"
    of = "" if planned is None else f", of {' to '.join(map(str, dict.fromkeys(planned)))} in its plan"
    say(console, f"{sweep.name}: {standing}{of}")
    if planned is not None and len(trials) > planned[1]:
        say(console, f"  {len(trials) - planned[1]} of them belong to an earlier version of the sweep or of a plugin")
    for trial_id, reason in failed.items():
        say(console, f"  {trial_id} failed: {reason}")


def _planned_trials(directory: Path) -> tuple[int, int] | None:
    """The least and the most trials of the plan that the last command left; None where there is none."""
    try:
        plan = json.loads((directory / "plan.json").read_text(encoding="utf-8"))
        least = plan.get("totals_least") or plan["totals"]
        return int(least["trials"]), int(plan["totals"]["trials"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def print_answer(result: SweepResult, console: Console, *, as_json: bool) -> None:
    """What a sweep found, on the terminal or as JSON: the summary, what failed, where the report is."""
    outcome = result.outcome
    if as_json:
        print_json(
            {
                "directory": str(result.directory),
                "report": str(outcome.report) if outcome.report else None,
                "mlflow": outcome.ui,
                "trials": dict(Counter(record.status for record in outcome.trials)),
                "failed": {record.trial_id: record.reason for record in outcome.failed},
                "problems": list(outcome.problems),
                "table": json.loads(result.table.to_json(orient="records")),
            }
        )
    elif outcome.trials:
        console.print(result.summary or analysis_module("report.summary").summary_table(result.directory))
    for record in outcome.failed:
        where = f"{record.arm}, seed {record.seed}, {record.role} ({record.trial_id})"
        say(console, f"failed: {where}: {record.reason}", style="red")
    for problem in outcome.problems:
        say(console, f"problem: {problem}", style="red")
    if outcome.kept:
        say(console, f"{outcome.kept} of {len(outcome.trials)} trials were there already")
    if outcome.report is not None:
        say(console, f"report: {outcome.report}")
    if outcome.ui is not None:
        say(console, f"MLflow: {outcome.ui}")


if __name__ == "__main__":
    app()
