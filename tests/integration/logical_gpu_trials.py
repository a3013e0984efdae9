"""Trials under real Ray on GPUs that only Ray counts: run as a module, it prints where each of them was placed."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stackwise_ray.config.trial import Budget, ModelConfig, TrialConfig, data_config, training_config
from stackwise_ray.core.environment import usable_cores
from stackwise_ray.core.records import MetricRecord
from stackwise_ray.data.corpora.markov import MarkovSource
from stackwise_ray.distributed.ledger import Ledger
from stackwise_ray.distributed.messages import RunSettings
from stackwise_ray.distributed.session import Session, ray_session
from stackwise_ray.distributed.tuner import run_trials
from stackwise_ray.planning.demand import Demand
from stackwise_ray.tracking.journal import Journal
from stackwise_ray.trials.sources import FixedSource, Proposal

NAME = "tests.integration.logical_gpu_trials"
PATIENCE_S = 120.0


@dataclass
class Placed:
    """A worker function's result."""

    metrics: dict[str, float]
    environment: dict[str, Any]


def lost_once(*, directory: Path, trial_id: str, attempt: int, **rest: Any) -> Generator[MetricRecord, None, Placed]:
    """Loses its device in the first attempt at the first trial of all; says which process it ran in."""
    mark = directory.parent.parent / "lost"
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        yield _record(trial_id, attempt)
        return Placed({"progress": 1.0}, {"pid": os.getpid()})
    mark.write_text(str(os.getpid()))
    yield _record(trial_id, attempt)
    raise RuntimeError("CUDA error: an illegal memory access was encountered\nwords of the driver")


def together(
    *, directory: Path, trial_id: str, attempt: int, gpus: float, **rest: Any
) -> Generator[MetricRecord, None, Placed]:
    """Waits until two trials run; says which GPU it was given."""
    import ray

    meeting = directory.parent.parent / "meeting"
    meeting.mkdir(exist_ok=True)
    (meeting / trial_id).touch()
    deadline = time.monotonic() + PATIENCE_S
    while len(list(meeting.iterdir())) < 2:
        if time.monotonic() > deadline:
            raise RuntimeError("the other trials did not start beside this one")
        time.sleep(0.1)
        yield _record(trial_id, attempt)
    return Placed({"progress": 1.0}, {"gpu": ray.get_gpu_ids(), "gpus": gpus})


def _record(trial_id: str, attempt: int) -> MetricRecord:
    return MetricRecord(trial_id=trial_id, attempt=attempt, step=1, tokens=1, flops=1, time=time.time(), metrics={})


def _trial(seed: int) -> TrialConfig:
    return TrialConfig(
        model=ModelConfig(family="gpt2", role="decoder", n_layers=1, d_model=8, n_heads=2, d_ff=16),
        data=data_config(corpus="markov", markov=MarkovSource()),
        training=training_config(budget=Budget(steps=3)),
        seed=seed,
    )


def run_together(session: Session, directory: Path, worker: str, gpus: float, n_trials: int, at_once: int) -> Any:
    """Run so many trials that ask for so many GPUs each, as a sweep runs them; where they were, and how they ended."""
    demand = Demand(gpus=gpus, max_concurrent=at_once)
    session = replace(session, slots=demand.slots(usable_cores(), session.gpus))
    settings = RunSettings(worker=f"{NAME}:{worker}", directory=directory, objective="loss", gpus=gpus)
    source = FixedSource(Proposal(arm="a", seed=seed, role="replicate", trial=_trial(seed)) for seed in range(n_trials))
    directory.mkdir()
    with Journal(directory / "journal.sqlite") as journal:
        run_trials(Ledger(journal, source, settings, lambda data: "f"), session, demand, on_ray_lost=sys.exit)
        records = [dataclasses.asdict(record) for record in journal.trials()]
    return {"slots": session.slots, "gpus": session.gpus, "trials": records}


def strand_a_group() -> dict[str, Any]:
    """What is free while a dead actor's reservation is there, and after that was removed; the driver's group stays."""
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    from stackwise_ray.distributed.worker_groups import remove_stranded_groups

    @ray.remote(num_cpus=0)
    class Controller:
        def reserve(self) -> bool:
            return bool(placement_group([{"GPU": 1}, {"GPU": 1}]).wait(60))

    def free(expected: float) -> float:
        end = time.monotonic() + 20
        while (found := ray.available_resources().get("GPU", 0)) != expected and time.monotonic() < end:
            time.sleep(0.1)
        return float(found)

    own = placement_group([{"CPU": 0.5}])  # of the driver, as Tune's are
    controller = Controller.remote()
    assert ray.get(controller.reserve.remote())
    assert own.wait(60)
    alive = remove_stranded_groups()
    ray.kill(controller)
    time.sleep(2)  # Ray does nothing in this time
    told = {"alive": alive, "held": free(0), "stranded": remove_stranded_groups(), "free": free(2), "own": own.wait(1)}
    remove_placement_group(own)
    return told


def main(directory: Path) -> None:
    """Everything in one session of Ray, one after the other."""
    with ray_session(Demand(gpus=1)) as session:
        told = {
            "a stranded group": strand_a_group(),
            "whole GPUs": run_together(session, directory / "whole", "together", 1.0, 2, 2),
            "halves": run_together(session, directory / "halves", "together", 0.5, 2, 2),
            "a lost device": run_together(session, directory / "lost", "lost_once", 1.0, 3, 1),
        }
        print(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
