"""One command on one sweep directory: own it, note what was asked, run what is missing, leave a report.

The order matters: the lock before anything is read, the journal before Ray (finished trials are never started), Ray
only where something is left to run, the tracker beside everything and never in its way. What the analysis package adds
(the report, the verdicts of adaptive replicates) is handed in as callables by the command.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from stackwise_ray.config.identity import plan_hash, sweep_hash
from stackwise_ray.config.reading.yaml import dump_yaml
from stackwise_ray.config.space.designs import Design
from stackwise_ray.config.space.sweep_config import SweepConfig, sweep_to_plain
from stackwise_ray.core import plugins
from stackwise_ray.core.atomic import atomic_write_json, atomic_write_text
from stackwise_ray.core.calibration_store import Calibration
from stackwise_ray.core.callbacks import NoWaitingLine, WaitingLine
from stackwise_ray.core.environment import describe_environment
from stackwise_ray.core.errors import ConfigError, DiskFullError
from stackwise_ray.core.invocation import ANALYSIS, as_started
from stackwise_ray.core.ownership import SweepLock
from stackwise_ray.core.records import TrialRecord
from stackwise_ray.distributed.delivery import Delivery
from stackwise_ray.distributed.display import ProgressDisplay
from stackwise_ray.distributed.ledger import Ledger
from stackwise_ray.distributed.messages import RunSettings
from stackwise_ray.distributed.schedulers import make_scheduler
from stackwise_ray.distributed.session_directory import remove_stale_directory
from stackwise_ray.flags import FLAGS
from stackwise_ray.planning.demand import Demand
from stackwise_ray.planning.preparation import PreparedCorpora
from stackwise_ray.planning.sweep_plan import SweepPlan
from stackwise_ray.tracking.journal import Journal
from stackwise_ray.trials.adaptive_seeds import AnytimeVerdicts
from stackwise_ray.trials.proposals import plan_sweep, source_for, unreported
from stackwise_ray.trials.sources import TrialSource, TunedSource

if TYPE_CHECKING:
    from stackwise_ray.distributed.session import Session

WORKER = "stackwise_ray.running.run:run_trial"
JOURNAL = "journal.sqlite"
EXIT_LOST = 1


@dataclass(frozen=True, kw_only=True)
class SweepOutcome:
    """How the command ended.

    Attributes:
        trials: Every trial of this sweep, with its present status.
        failed: Those that failed, with their reasons.
        problems: What the user must know besides: arms without tuning, limits that were hit, a full disk.
        kept: Trials that were finished before this command.
        ui: How to open the MLflow UI on this experiment; None where the store has not answered.
        report: The written report; None where nothing could be reported.
    """

    directory: Path
    trials: tuple[TrialRecord, ...]
    failed: tuple[TrialRecord, ...]
    problems: tuple[str, ...] = ()
    kept: int = 0
    ui: str | None = None
    report: Path | None = None

    @property
    def exit_code(self) -> int:
        """0: all done; 1: something failed or is left to be run again."""
        return 1 if self.failed or self.problems else 0


@dataclass(kw_only=True)
class Options:
    """What the command line adds to the file.

    Attributes:
        waiting: Shows what the command waits for before and after the trials.
    """

    address: str | None = None
    max_concurrent: int | None = None
    retry_failed: bool = False
    report: Callable[[Path], Path] | None = None
    verdicts: AnytimeVerdicts | None = None
    worker: str = WORKER
    waiting: WaitingLine = field(default_factory=NoWaitingLine)


def run_sweep(sweep: SweepConfig, design: Design, directory: Path, console: Console, options: Options) -> SweepOutcome:
    """Run `sweep` in `directory` until nothing is left, or as far as it goes.

    Raises:
        ConfigError: The sweep cannot be run as written, or the directory belongs to somebody else.
        DiskFullError: The disk filled up; the same command continues later.
        KeyboardInterrupt: Ctrl-C; the same command continues.
    """
    directory = directory.absolute()
    made = _make_directory(directory)
    with SweepLock(directory) as lock:
        try:
            return _owned(sweep, design, directory, lock, console, options)
        except ConfigError:
            if made and not (directory / "sweep.yaml").exists():  # refused before anything was noted: leave no trace
                shutil.rmtree(directory, ignore_errors=True)  # as its owner: nobody else is at work in it
            raise


def _owned(
    sweep: SweepConfig, design: Design, directory: Path, lock: SweepLock, console: Console, options: Options
) -> SweepOutcome:
    with Journal(directory / JOURNAL) as journal:
        if lock.taken_over_from is not None:
            console.print(f"taking over from {lock.taken_over_from}, which is gone", markup=False, highlight=False)
        for line in plugins.ask_again(journal.get_meta("plugins") or (), str(directory)):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        journal.interrupt_dangling("its driver was killed")
        remove_stale_directory(journal.get_meta("ray_directory"))
        for record in journal.trials() if options.retry_failed else ():
            journal.reset(record.trial_id)
        tracker = Delivery(sweep, design.questions.first_goal, directory, journal, console, options.waiting)
        try:
            return _run(sweep, design, directory, journal, tracker, console, options)
        finally:
            options.waiting.clear()
            tracker.close("interrupted")  # does nothing where the sweep came to its end


def _run(
    sweep: SweepConfig,
    design: Design,
    directory: Path,
    journal: Journal,
    tracker: Delivery,
    console: Console,
    options: Options,
) -> SweepOutcome:
    corpora = PreparedCorpora(options.waiting)
    source = source_for(sweep, design, journal, options.verdicts)
    resources = sweep.resources
    settings = RunSettings(
        worker=options.worker,
        directory=directory,
        objective=design.questions.stopping.metric,
        cpus=resources.cpus_per_trial,
        gpus=resources.gpus_per_trial,
        workers=resources.workers,
        attempt_timeout_s=60 * sweep.limits.trial_minutes if sweep.limits.trial_minutes else None,
        keep_models=sweep.tracking.keep_models != "none",
        max_flops=sweep.limits.flops,
    )
    ledger = Ledger(journal, source, settings, corpora.fingerprint)

    def accept() -> None:
        """Nothing of the sweep is written before it has been planned and found good."""
        _note(sweep, design, directory, journal, console)
        tracker.start()

    try:
        if ledger.anything_to_run():
            _run_missing(sweep, design, ledger, corpora, tracker, console, options, accept)
        else:
            accept()
    finally:
        if source.exhausted and journal.get_meta("sweep") is not None:
            journal.put_meta("trial_set", list(ledger.trial_set.values()))
    problems = list(_problems(ledger, source))
    trials = tuple(ledger.records())
    problems += unreported(sweep, trials)
    failed = tuple(record for record in trials if record.status == "failed")
    _keep_models(sweep, design, directory, trials)
    report = _report(directory, options, problems)
    return SweepOutcome(
        directory=directory,
        trials=trials,
        failed=failed,
        problems=tuple(problems),
        kept=ledger.known,
        ui=tracker.finish(report, "failed" if failed or problems else "finished"),
        report=report,
    )


def _run_missing(
    sweep: SweepConfig,
    design: Design,
    ledger: Ledger,
    corpora: PreparedCorpora,
    tracker: Delivery,
    console: Console,
    options: Options,
    accept: Callable[[], None],
) -> None:
    """Run what is left; Ray starts while the plan is made."""
    began = time.monotonic()
    options.waiting("loading Ray")
    from stackwise_ray.distributed.session import ray_session

    demand = Demand.of(sweep.resources, options.max_concurrent)

    def note(temp_directory: Path) -> None:
        ledger.journal.put_meta("ray_directory", str(temp_directory))  # the next command removes it if this one dies

    with ThreadPoolExecutor(1, "plan") as pool:
        options.waiting("starting Ray")
        planning = pool.submit(
            plan_sweep,
            sweep,
            design,
            corpora,
            max_concurrent=options.max_concurrent,
            address=options.address,
            verdicts=options.verdicts,
        )
        with contextlib.ExitStack() as stack:
            session = stack.enter_context(ray_session(demand, address=options.address, on_directory=note))
            ray_seconds = time.monotonic() - began
            options.waiting(f"planning {sweep.name}")
            plan = planning.result()
            options.waiting.clear()
            _refuse(plan)
            accept()
            atomic_write_json(ledger.settings.directory / "plan.json", plan.to_dict())
            began = time.monotonic()
            try:
                _train(sweep, design, ledger, plan, session, demand, tracker, console)
            finally:
                if ledger.first_report is not None and options.address is None:
                    _remember_start(ray_seconds + ledger.first_report - began, console)


def _remember_start(seconds: float, console: Console) -> None:
    """Stores how long the start took, for later plans; never a reason to fail."""
    calibration = Calibration()
    try:
        calibration.add_start(seconds)
    except (OSError, DiskFullError) as error:
        console.print(f"the calibration at {calibration.path} could not be written: {error}", soft_wrap=True)


def _train(
    sweep: SweepConfig,
    design: Design,
    ledger: Ledger,
    plan: SweepPlan,
    session: Session,
    demand: Demand,
    tracker: Delivery,
    console: Console,
) -> None:
    from stackwise_ray.distributed.tuner import end_processes_of_this_one, run_trials

    scheduler = None
    if sweep.scheduler is not None:
        scheduler = make_scheduler(sweep.scheduler, design.questions.stopping.direction)

    def lost(reason: str) -> None:
        ledger.interrupt_all(reason)
        progress.__exit__()
        console.print(
            f"error: {reason}. Everything up to the last report is kept; run the same command again to continue.",
            style="red",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        ledger.journal.close()
        end_processes_of_this_one()
        if session.temp_directory is not None:
            shutil.rmtree(session.temp_directory, ignore_errors=True)
        os._exit(EXIT_LOST)  # Tune's loop in the main thread waits for a scheduler that is no more

    with ProgressDisplay(console, slots=session.slots, goal=design.questions.first_goal) as progress:
        progress.watch(ledger, plan)
        ledger.planned = lambda proposal: plan.row(proposal.arm, proposal.role).predicted
        ledger.watcher = tracker.notify
        run_trials(
            ledger,
            session,
            demand,
            scheduler=scheduler,
            wall_seconds=3600 * sweep.limits.wall_hours if sweep.limits.wall_hours else None,
            on_ray_lost=lost,
        )


# ------------------------------------------------------------------------------------------- before and after


def _make_directory(directory: Path) -> bool:
    """Make the sweep's folder; whether this command made it."""
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        try:
            directory.mkdir()
            made = True
        except FileExistsError:
            made = False
        (directory / "trials").mkdir(exist_ok=True)
        return made
    except (FileExistsError, NotADirectoryError):
        at = next((p for p in [directory / "trials", *directory.parents, directory] if p.is_file()), directory)
        raise ConfigError(
            f"{at} is a file where a folder should be; choose another --output", path="--output"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{directory} cannot be made ({error.strerror}); choose a folder that you can write", path="--output"
        ) from None


def _note(sweep: SweepConfig, design: Design, directory: Path, journal: Journal, console: Console) -> None:
    """Write down what was asked; print what changed since the last time."""
    plain = dict(sweep_to_plain(sweep))
    text = dump_yaml(plain)
    file = directory / "sweep.yaml"
    if file.exists() and (before := file.read_text(encoding="utf-8")) != text:
        console.print(f"{file} changed since the last run:", markup=False, highlight=False)
        for line in difflib.unified_diff(before.splitlines(), text.splitlines(), "before", "now", lineterm="", n=1):
            console.print(f"  {line}", markup=False, highlight=False)
    atomic_write_text(file, text)
    declared = plan_hash(sweep)
    journal.put_meta("questions", design.questions.to_plain())  # before the sweep: no reader finds one alone
    journal.put_meta("sweep", plain)
    journal.put_meta("sweep_hash", sweep_hash(sweep))
    journal.put_meta("claims", {name: flag.claim for name, flag in FLAGS.items()})
    measured_by = {name: [asdict(one) for one in flag.measured_by] for name, flag in FLAGS.items()}
    journal.put_meta("claims_measured_by", measured_by)
    journal.put_meta("environment", describe_environment())
    journal.put_meta("plugins", plugins.records())
    journal.put_meta("analysis_plan_hash", declared)
    if journal.get_meta("analysis_plan_first_hash") is None or not journal.trials():
        journal.put_meta("analysis_plan_first_hash", declared)  # in force at the first trial: kept from then on
        journal.put_meta("analysis_plan_amended_after", None)
    elif declared == journal.get_meta("analysis_plan_first_hash"):
        journal.put_meta("analysis_plan_amended_after", None)
    elif journal.get_meta("analysis_plan_amended_after") is None:
        done = sum(record.status in ("finished", "failed", "stopped") for record in journal.trials())
        journal.put_meta("analysis_plan_amended_after", done)
    if journal.get_meta("started_at") is None:
        journal.put_meta("started_at", time.time())


def _refuse(plan: SweepPlan) -> None:
    refused = [row for row in plan.refused if row.trials]  # cells without trials are no part of the design
    if refused:
        lines = "\n".join(f"  {row.arm}: {row.refused}" for row in refused)
        raise ConfigError(f"{len(refused)} of {len(plan.rows)} cells cannot run:\n{lines}", source=plan.name)


def _problems(ledger: Ledger, source: TrialSource) -> Iterator[str]:
    if ledger.halted:
        yield f"{ledger.halted}; the same command continues"
    if isinstance(source, TunedSource):
        yield from (f"arm {arm} was not run: {reason}" for arm, reason in source.not_tuned.items())


def _keep_models(sweep: SweepConfig, design: Design, directory: Path, trials: tuple[TrialRecord, ...]) -> None:
    """With `keep_models: best`, the weights of each arm's best replicate stay, and of a search's best point."""
    if sweep.tracking.keep_models != "best":
        return
    goal = design.questions.first_goal
    best: dict[str, tuple[float, str]] = {}
    for record in trials:
        if record.role != "tuning" and goal.metric in record.metrics and record.status == "finished":
            scored = (goal.badness(record.metrics[goal.metric]), record.trial_id)
            arm = record.arm if record.role == "replicate" else "search"  # all points of a search are one arm
            best[arm] = min(best.get(arm, scored), scored)
    kept = {trial_id for _, trial_id in best.values()}
    for record in trials:
        if record.status in ("finished", "stopped") and record.trial_id not in kept:
            shutil.rmtree(directory / "trials" / record.trial_id / "model", ignore_errors=True)


def _report(directory: Path, options: Options, problems: list[str]) -> Path | None:
    if options.report is None:
        return None
    try:
        options.waiting("writing the report")
        return options.report(directory)
    except DiskFullError:
        raise
    except Exception as error:  # the trials are there and the report can be written again
        problems.append(f"the report could not be written: {error}; {as_started(ANALYSIS)} report {directory}")
        return None
    finally:
        options.waiting.clear()
