"""`python -m stackwise_ray.doctor`: whether this machine can run a sweep, and how fast it is.

What is checked is in `checkup`. The measured speed goes into the machine's calibration, from which `sweep --plan`
predicts hours and memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from stackwise_ray import checkup
from stackwise_ray.checkup import Check
from stackwise_ray.core.calibration_store import calibration_path
from stackwise_ray.core.environment import usable_cores
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.invocation import as_started
from stackwise_ray.core.quantities import format_count
from stackwise_ray.plugin_checkup import check_plugins
from stackwise_ray.terminal import (
    EXIT_DONE,
    EXIT_FAILED,
    PluginOption,
    Waiting,
    examples,
    exit_codes,
    make_console,
    print_json,
    say,
)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


@app.command(
    epilog=examples(
        "doctor",
        "   # check and measure (about two minutes)",
        "--no-calibrate   # check only (half a minute)",
        "--threads 4   # trials of four threads",
        "--plugin my_flag.py   # a plugin too",
        "--json   # for a program",
    )
)
def main(
    calibrate_: Annotated[
        bool, typer.Option("--calibrate/--no-calibrate", help="Measure the speed of every tiny model, for --plan.")
    ] = True,
    busy: Annotated[
        bool, typer.Option("--even-if-busy", help="Measure the speed although other processes are running.")
    ] = False,
    ray: Annotated[bool, typer.Option("--ray/--no-ray", help="Start a real Ray session.")] = True,
    threads: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Threads per trial to measure with; may be repeated. Default: 1, and all cores."),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds of training per measurement.")] = 1.5,
    output: Annotated[Path, typer.Option(help="Where results will go.")] = Path("experiments"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")] = False,
    plugin: PluginOption = None,
) -> None:
    """Check Python, packages, torch, CUDA, Ray, disk, compiler, tracking store and data; measure the speed for plans.

    Exit codes: 0 all well, or notes; 1 something fails, with its fix; 2 a mistake in what was asked; 130 interrupted.
    """
    console = make_console(stderr=as_json)
    with exit_codes(resumable=False):
        if threads and max(threads) > usable_cores():
            raise ConfigError(
                f"= {max(threads)}: this process may use {usable_cores()} cores; give at most as many", path="--threads"
            )
        counts = threads or sorted({1, usable_cores()})
        checks: list[Check] = []
        with Waiting(console) as waiting:
            plugins = check_plugins(plugin or (), waiting)
            for check in chain(plugins, _diagnose(output, ray, calibrate_, busy, counts, seconds, waiting)):
                checks.append(check)
                _show(console, check)
        failing = [check for check in checks if check.status == "fails"]
        if as_json:
            print_json([asdict(check) for check in checks])
        elif failing:
            say(console, f"{len(failing)} of {len(checks)} checks fail", style="red")
        else:
            say(console, f"all {len(checks)} checks pass; next: {as_started('sweep')} smoke", style="green")
        raise typer.Exit(EXIT_FAILED if failing else EXIT_DONE)


def _diagnose(
    output: Path,
    ray: bool,
    speed: bool,
    busy: bool,
    threads: Sequence[int],
    seconds: float,
    tell: Callable[[str], None],
) -> Iterator[Check]:
    yield checkup.check_python()
    yield checkup.check_packages()
    tell("importing torch")
    torch = checkup.check_torch()
    yield torch
    yield checkup.check_cuda()
    yield from checkup.check_disk(output)
    yield checkup.check_data()
    tell("compiling")
    yield checkup.check_compiler()
    yield checkup.check_cxx_compiler()
    triton = checkup.check_triton()
    if triton is not None:
        yield triton
    tell("writing to the tracking store")
    yield checkup.check_tracking()
    if ray:
        tell("starting Ray")
        yield checkup.check_ray()
    if not speed or torch.status == "fails":
        return
    load = checkup.check_load()
    yield load
    if load.status != "ok" and not busy:
        return
    for number in threads:
        yield from _measure_speed("cpu", number, seconds, tell)
    if checkup.has_gpu():
        yield from _measure_speed("cuda", threads[0], seconds, tell)  # threads do not count there
    yield Check(name="calibration", status="ok", detail=f"for plans, in {calibration_path()}")


def _measure_speed(device: str, threads: int, seconds: float, tell: Callable[[str], None]) -> Iterator[Check]:
    from stackwise_ray.planning.calibration_runs import calibrate, places_here, tiny_trials

    try:
        trials = tiny_trials()
    except ConfigError as error:
        yield Check(name="speed", status="fails", detail=str(error), fix="correct the preset")
        return
    at = places_here(device, threads)
    how = f"{threads} thread(s), {len(at)} at once" if device == "cpu" else f"one trial on each of {len(at)} GPU(s)"
    waiting = iter(trials)
    tell(f"measuring {next(waiting, None)} with {how}")
    for measurement in calibrate(trials, at=at, threads=threads, seconds=seconds):
        trial = measurement.words.replace("model=", "").replace("model.mixer.kind=", "")
        name = f"speed, {trial}" if device == "cpu" else f"speed on the GPU, {trial}"
        if measurement.problem is not None:
            fix = "correct the preset if it is yours; else see the lines of torch and packages"
            yield Check(name=name, status="fails", detail=measurement.problem, fix=fix)
        else:
            speed = median(s.flops_per_s for s in measurement.samples if s.flops_per_s is not None)
            start = median(s.startup_s for s in measurement.samples if s.startup_s is not None)
            detail = f"{format_count(speed)}FLOP/s per trial with {how}; first step after {start:.1f} s"
            yield Check(name=name, status="ok", detail=detail)
        tell(f"measuring {next(waiting, None)} with {how}")


def _show(console: Console, check: Check) -> None:
    colour = {"ok": "green", "note": "yellow", "fails": "red"}[check.status]
    head = Text.assemble((f"{check.status:5}", colour), "  ", (check.name, "bold"), f"  {check.detail}")
    console.print(head, soft_wrap=True)
    if check.fix is not None:
        say(console, f"       fix: {check.fix}")


if __name__ == "__main__":
    app()
