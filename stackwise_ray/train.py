"""`python -m stackwise_ray.train`: one trial in this process, without Ray.

The command: arguments, a progress display, messages, exit codes. What it does is in `running.single`. Called as
a function, this module is `sw.train`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.interruption import stop_signals
from stackwise_ray.core.metric_catalogue import format_metric
from stackwise_ray.core.quantities import format_count, format_seconds
from stackwise_ray.sweep import OUTPUT, plan, print_plan, run_and_answer
from stackwise_ray.terminal import (
    EXIT_FAILED,
    HydraOption,
    PluginOption,
    Waiting,
    complain,
    examples,
    exit_codes,
    load_plugins,
    make_console,
    plugins_of_before,
    say,
)

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from stackwise_ray.config.trial import TrialConfig
    from stackwise_ray.core.records import MetricRecord
    from stackwise_ray.planning.sweep_plan import SweepPlan
    from stackwise_ray.training.trial_folder import TrialResult

RECORD_SECONDS = 60.0
"""Seconds between two lines of a run, where standard output is no terminal."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


class _CallableModule(ModuleType):
    """This module, callable: `sw.train(trial, output=...)` and `import stackwise_ray.train` share a name."""

    def __call__(self, *arguments: Any, **options: Any) -> TrialResult:
        """`running.single.train`."""
        from stackwise_ray.running.single import train

        return train(*arguments, **options)


sys.modules[__name__].__class__ = _CallableModule


@app.command(
    epilog=examples(
        "train",
        "model=decoder/bk_family/tiny --output runs/bk",
        "model=decoder/gpt2_family/tiny --plan",
        "training.lr=3e-4 flags=[mixed_precision]",
        "flags=[my_flag] --plugin my_flag.py",
        "--multirun training.lr=1e-3,3e-3   # a sweep",
    )
)
def main(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[group=choice | path=value ...]", help="Presets and values, by dotted path."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="The trial's folder; the same command continues in it. Default: runs/<trial>.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: torch's own choice.")] = None,
    multirun: Annotated[bool, typer.Option("--multirun", help="Run every combination of listed values.")] = False,
    plan_only: Annotated[bool, typer.Option("--plan", help="Print what it would cost, and train nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
    plugin: PluginOption = None,
    hydra: HydraOption = None,
) -> None:
    """Train one trial here: progress on the terminal, everything else in its folder.

    Exit codes: 0 done; 1 the trial failed, or the disk is full; 2 a mistake in what was asked; 130 interrupted.
    """
    console = make_console(stderr=as_json)
    with exit_codes(resumable=not plan_only):
        if as_json and not plan_only:
            raise ConfigError("--json prints a plan: add --plan (a run leaves its numbers in outputs/metrics.json)")
        if plan_only and output is not None:
            raise ConfigError("--output is for a run, and --plan writes nothing; leave one of them out")
        if multirun and threads is not None:
            raise ConfigError("--threads is for one trial; a sweep gives each resources.cpus_per_trial of its file")
        load_plugins(plugin)
        if multirun:
            _multirun(words or [], output, console, plan_only=plan_only, as_json=as_json)
            return
        from stackwise_ray.config.loading import load_trial

        with plugins_of_before(output):
            trial = load_trial(words or ())
        if plan_only:
            print_plan(_plan(trial, threads, console), console, as_json=as_json)
        else:
            _train(trial, output, threads, console)


def _multirun(words: list[str], output: Path | None, console: Console, *, plan_only: bool, as_json: bool) -> None:
    """The same trials as a grid over the words that hold several values."""
    from stackwise_ray.config.loading import sweep_from_words

    sweep = sweep_from_words(words)
    if plan_only:
        print_plan(plan(sweep), console, as_json=as_json)
    else:
        run_and_answer(sweep, output or OUTPUT, console)


def _check(trial: TrialConfig) -> None:
    """Refuse what the configuration alone shows, before torch is loaded and data are prepared: both take seconds."""
    from stackwise_ray.config.trial.rules import check_trial
    from stackwise_ray.flags import apply_flags
    from stackwise_ray.training.budget import split_steps
    from stackwise_ray.training.initial import charged
    from stackwise_ray.training.stages import stage_plan

    check_trial(trial)
    trial = charged(apply_flags(trial))
    stages = stage_plan(trial).stages
    if trial.training.budget.steps is not None:
        split_steps(trial.training.budget.steps, [stage.share for stage in stages])


def _plan(trial: TrialConfig, threads: int | None, console: Console) -> SweepPlan:
    """What the trial would cost here, as `sweep --plan` says it of an arm."""
    _check(trial)
    import torch

    from stackwise_ray.planning.plan_display import stages_text
    from stackwise_ray.planning.preparation import PreparedCorpora
    from stackwise_ray.planning.sweep_plan import Cell, plan_cells
    from stackwise_ray.training.assembly import choose_device, float32_products

    with Waiting(console) as waiting:
        facts = PreparedCorpora(waiting).facts(trial)
    cell = Cell(arm=trial.training.regime, role="replicate", trial=trial, trials=1, data=facts)
    here = trial.training.device != "cuda" or torch.cuda.is_available()
    device = choose_device(trial.training.device) if here else torch.device("cuda")
    with float32_products(trial, device) if here else contextlib.nullcontext():
        gpu = device.type == "cuda"
    made = plan_cells(
        _title(trial),
        [cell],
        slots=1,
        threads=threads or torch.get_num_threads(),
        gpus=1 if gpu else 0,
    )
    (row,) = made.rows
    there = [] if here else ["this trial needs a GPU; this machine has none: run it on a machine that has one"]
    stages = [stages_text(row)] if len(row.stages) > 1 else []
    return replace(made, sweep=False, notes=(*there, *made.notes, *stages))


def _title(trial: TrialConfig) -> str:
    return f"{trial.model.family} {trial.model.n_layers}×{trial.model.d_model} on {trial.data.corpus}"


def _train(trial: TrialConfig, output: Path | None, threads: int | None, console: Console) -> None:
    _check(trial)
    with Waiting(console) as waiting:
        waiting("loading torch")
        import torch

        from stackwise_ray.core.errors import TrialError
        from stackwise_ray.data import prepare
        from stackwise_ray.running.single import attempt, owned
        from stackwise_ray.training.initial import identify

        if threads is not None:
            torch.set_num_threads(threads)
        data = prepare(trial.data, progress=waiting)
    for remark in data.remarks:
        say(console, remark)
    folder = output or Path("runs") / identify(trial, data.fingerprint)
    try:
        with owned(trial, folder) as directory, Display(console, trial) as display, stop_signals() as stop:
            run = attempt(trial, directory, data=data)
            while True:
                try:
                    if stop:
                        run.throw(KeyboardInterrupt())
                    display.show(next(run))
                except StopIteration as end:
                    result: TrialResult = end.value
                    break
    except TrialError as error:
        complain(f"failed: {error}")
        raise typer.Exit(EXIT_FAILED) from None
    _answer(result, console)


class Display:
    """Tokens/s, time left and losses: a live bar on a terminal, one line per minute elsewhere."""

    def __init__(self, console: Console, trial: TrialConfig) -> None:
        self._console = console
        self._title = _title(trial)
        self._latest: dict[str, float] = {}
        self._began = self._last_line = time.monotonic()
        self._first_share: float | None = None
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Display:
        if self._console.is_terminal:
            from rich.progress import BarColumn, Progress, TextColumn

            title = TextColumn("{task.description}", markup=False)
            columns = (title, BarColumn(), TextColumn("{task.fields[text]}", markup=False))
            self._progress = Progress(*columns, console=self._console, transient=True)
            self._task = self._progress.add_task(self._title, total=1.0, text="starting")
            self._progress.start()
        else:
            say(self._console, f"{self._title}: starting")
        return self

    def __exit__(self, *exception: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def show(self, record: MetricRecord) -> None:
        """Receives a record, and prints a line when one is due."""
        self._latest.update(record.metrics)
        share = self._latest.get("progress", 0.0)
        if self._first_share is None and record.doing is None:  # compiling is no part of the pace
            self._first_share, self._began = share, time.monotonic()
        text = self._text(record, share)
        if record.doing is not None:
            text = f"{record.doing} …"
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=share, text=text)
        elif record.doing is not None:
            say(self._console, f"{self._title}: {text}")
        elif time.monotonic() - self._last_line >= RECORD_SECONDS:
            self._last_line = time.monotonic()
            say(self._console, f"{self._title}: {share:.0%}, {text}")

    def _text(self, record: MetricRecord, share: float) -> str:
        parts = [f"step {record.step}", f"{format_count(record.tokens)} tokens"]
        for name, label in (("train/loss", "loss"), ("validation/loss", "validation")):
            if name in self._latest:
                parts.append(f"{label} {format_metric(name, self._latest[name])}")
        if "throughput/tokens_per_s" in self._latest:
            parts.append(f"{format_count(self._latest['throughput/tokens_per_s'])} tokens/s")
        done = share - (self._first_share or 0.0)
        if done > 0 and share < 1:
            left = (time.monotonic() - self._began) * (1 - share) / done
            parts.append(f"{format_seconds(left)} left")
        return ", ".join(parts)


def _answer(result: TrialResult, console: Console) -> None:
    metrics = result.metrics
    # An encoder's validation/loss is that of the masks of its last stage: it is no figure to put beside another's.
    where = "on its own masks" if "validation/masked_loss" in metrics else "nats per token"
    rows = (
        ("validation/masked_loss", "masked loss {} nats per token (mean of 15 to 90 % masked)"),
        ("validation/loss", f"validation loss {{}} {where}"),
        ("validation/perplexity", "validation perplexity {}"),
        ("test/perplexity_token", "test perplexity {} per token"),
        ("test/perplexity_word", "{} per word"),
        ("test/perplexity_byte", "{} per byte"),
    )
    quality = [text.format(format_metric(name, metrics[name])) for name, text in rows if name in metrics]
    say(console, ", ".join(quality))
    cost = [f"{format_count(metrics['tokens/total'])} tokens", f"{format_count(metrics['flops/total'])} training FLOPs"]
    if "throughput/tokens_per_s" in metrics:
        cost.append(f"{format_count(metrics['throughput/tokens_per_s'])} tokens/s")
    say(console, ", ".join(cost))
    say(console, f"results: {os.fspath(result.directory)}")


if __name__ == "__main__":
    app()
