"""Two workers (real processes, gloo) train what one trains, each with the whole model or with a shard of it (FSDP2)."""

from __future__ import annotations

import json
import os
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from stackwise_ray.config.trial import Budget, TrialConfig
from stackwise_ray.config.trial.registered import NamedOptions
from stackwise_ray.data.corpora.markov import MarkovSource
from stackwise_ray.models.components.early_exit import EarlyExitOptions
from stackwise_ray.training.growth_options import Lora
from tests import warm_processes
from tests.small_trials import with_data, with_model, with_training

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("module_cache")]

DECODER = with_training(
    with_data(validation_tokens=272, final_evaluation=None),
    budget=Budget(tokens=20 * 128 + 16),  # the last batch is one sequence: a worker has none
)
ENCODER = with_model(DECODER, family="bert", role="encoder")
GROWING = with_training(ENCODER, regime="depth_time")
ADAPTED = with_training(GROWING, trunk="lora", lora=Lora(rank=4, dual=1), finish=0.3)
CACHED = with_training(
    with_data(ENCODER, markov=MarkovSource(order=1, n_symbols=4, n_tokens=400)), regime="append", cache=True
)
TIMED = with_training(ENCODER, regime="append", time="input")

CASES = {
    "next token": (DECODER, DECODER),
    "masked tokens": (ENCODER, ENCODER),
    "depth as time": (GROWING, GROWING),
    "depth as time with consistency": (with_training(GROWING, consistency=0.5),) * 2,
    "stabilisers": (with_training(DECODER, spectral_norm=True, residual_gain=0.5),) * 2,
    "adapters on a trunk": (ADAPTED, ADAPTED),
    "time as input": (TIMED, TIMED),
    "a cached prefix": (CACHED, CACHED),
    "micro-batches": (DECODER, with_training(DECODER, accumulation=2)),
    "next token, in shards": (DECODER, with_training(DECODER, parallel="sharded", accumulation=2)),
    "masked tokens, in shards": (ENCODER, with_training(ENCODER, parallel="sharded", activation_checkpointing=True)),
    "adapters on a trunk, in shards": (ADAPTED, with_training(ADAPTED, parallel="sharded")),
    "depth as time, in shards": (GROWING, with_training(GROWING, parallel="sharded")),
    "time as input, in shards": (TIMED, with_training(TIMED, parallel="sharded")),
}


def worker(
    trial: TrialConfig,
    directory: Path,
    rank: int,
    world_size: int,
    attempt: int,
    bucket_bytes: int | None,
    pipe: Connection,
) -> None:
    import torch
    import torch.distributed as dist

    from stackwise_ray.running.run import run_trial
    from stackwise_ray.training.parallel import collectives

    torch.set_num_threads(1)
    collectives._BUCKET_BYTES = bucket_bytes or collectives._BUCKET_BYTES
    if world_size > 1:
        store = f"file://{directory}.{attempt}.store"
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world_size)
    generator = run_trial(trial, directory, trial_id="t", attempt=attempt, rank=rank, world_size=world_size)
    for record in generator:
        pipe.send((record.step, record.tokens, record.flops, dict(record.metrics)))
    pipe.send(None)


def train(
    trial: TrialConfig,
    directory: Path,
    world_size: int,
    attempt: int = 1,
    kill_after: int | None = None,
    bucket_bytes: int | None = None,
) -> list:
    """The first worker's records of metrics; all workers are killed once it has reported `kill_after` steps."""
    processes, pipes = [], []
    for rank in range(world_size):
        ours, theirs = Pipe(duplex=False)
        process = warm_processes.process(worker, trial, directory, rank, world_size, attempt, bucket_bytes, theirs)
        process.start()
        theirs.close()
        processes.append(process)
        pipes.append(ours)
    records = []
    while (record := pipes[0].recv()) is not None:
        records.append(record)
        if record[0] == kill_after:
            for process in processes:
                os.kill(process.pid, 9)
            break
    for process, pipe in zip(processes, pipes, strict=True):
        if kill_after is None and pipe is not pipes[0]:
            list(iter(pipe.recv, None))
        process.join(timeout=60)
        assert process.exitcode == (0 if kill_after is None else -9)
    return [record for record in records if record[3]]  # the rest are signs of life, which fall by the clock


def losses(records: list) -> dict[int, float]:
    return {step: metrics["train/loss"] for step, *_, metrics in records if "train/loss" in metrics}


def weights(directory: Path) -> dict:
    from safetensors.torch import load_file

    return load_file(directory / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def alone(module_cache, tmp_path_factory):
    """What one worker reports of a trial: trained once for all the tests that compare with it."""
    known: dict[str, list] = {}

    def records_of(trial: TrialConfig) -> list:
        if repr(trial) not in known:
            known[repr(trial)] = train(trial, tmp_path_factory.mktemp("alone"), 1)
        return known[repr(trial)]

    return records_of


KILLED = {"next token, in shards": 2, "depth as time, in shards": 3}
"""Cases that a test trains, kills, continues on so many workers and compares with one worker."""
GOES_ON = [
    pytest.param(
        name, number, id=f"{name}, on {number}", marks=() if KILLED[name] == number else pytest.mark.exhaustive
    )
    for name in KILLED
    for number in (2, 3)
]
CELLS = [
    pytest.param(*case, id=name, marks=pytest.mark.exhaustive if name == "depth as time" else ())
    for name, case in CASES.items()
    if name not in KILLED
]


@pytest.mark.parametrize(("one", "two"), CELLS)
def test_two_workers_give_the_loss_curve_of_one(one, two, tmp_path, alone):
    assert_same_curve(alone(one), two, tmp_path)


@pytest.mark.parametrize("kind", ["finetune", "band"])
def test_two_workers_go_on_from_a_checkpoint_as_one(kind, tmp_path, alone):
    train(with_training(ENCODER, budget=Budget(tokens=4 * 128)), tmp_path / "checkpoint", 1)
    trial = with_training(
        ENCODER,
        regime="hybrid",
        hybrid=kind,
        init_from=str(tmp_path / "checkpoint"),
        budget=Budget(tokens=24 * 128 + 16),
    )
    assert_same_curve(alone(trial), trial, tmp_path)


def test_a_checkpoint_trained_in_the_same_run_is_the_same_on_two_workers(tmp_path, alone):
    grown = {"regime": "hybrid", "hybrid": "band", "pretraining_share": 0.5, "budget": Budget(tokens=24 * 128 + 16)}
    trial = with_training(ENCODER, **grown)
    assert_same_curve(alone(trial), trial, tmp_path)


def assert_same_curve(one, two, folder):
    assert_same_records(one, train(two, folder / "two", 2))


def assert_same_records(one, together):
    assert [record[:3] for record in together] == [record[:3] for record in one]  # steps, tokens, FLOPs
    assert len(one) >= 21
    for (*_, expected), (*_, metrics) in zip(one, together, strict=True):
        for name in ("train/loss", "train/grad_norm", "validation/loss", "test/perplexity_token", "flops/evaluation"):
            assert (name in metrics) == (name in expected)
            if name in expected:
                assert metrics[name] == pytest.approx(expected[name], rel=1e-5), name


VARYING = with_model(
    DECODER, n_layers=3, components=NamedOptions({"early_exit": EarlyExitOptions(layer_dropout=0.5, threshold=0.9)})
)


@pytest.mark.parametrize("trial", [with_training(DECODER, accumulation=2), VARYING], ids=["micro-batches", "varying"])
def test_gradients_summed_inside_the_backward_pass_are_those_summed_after_it(trial, tmp_path):
    """In a hundred buckets, of which most begin inside the pass, and in one, which the tied embedding ends."""
    import torch

    for name, size in (("many", 64), ("one", None)):
        train(trial, tmp_path / name, 2, bucket_bytes=size)
    many, one = weights(tmp_path / "many"), weights(tmp_path / "one")
    assert all(torch.equal(many[key], tensor) for key, tensor in one.items())


def test_a_budget_of_time_ends_all_workers_at_the_same_step(tmp_path):
    trial = with_training(DECODER, budget=Budget(wall_seconds=1.0), report_seconds=0.1)
    *_, metrics = train(trial, tmp_path / "two", 2)[-1]
    assert metrics["progress"] == 1.0
    assert metrics["time/train_s"] >= 1.0


@pytest.mark.parametrize(("name", "number"), GOES_ON)
def test_workers_with_shards_train_as_one_and_go_on_after_a_kill_in_the_same_and_in_another_number(
    name, number, tmp_path, alone
):
    import torch

    one, two = CASES[name]
    two = with_training(two, checkpoint_seconds=0.0)
    whole = train(two, tmp_path / "whole", 2)
    assert_same_records(alone(one), whole)
    train(two, tmp_path / "again", 2, kill_after=10)
    again = train(two, tmp_path / "again", number, attempt=2)
    began = again[0][0]
    assert began > 8  # it does not begin again
    if number == 2:
        expected, found = weights(tmp_path / "whole"), weights(tmp_path / "again")
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)
        assert {step: loss for step, loss in losses(whole).items() if step > began}.items() <= losses(again).items()
    else:
        expected = losses(alone(one))
        for step, loss in losses(again).items():
            if step > began:
                assert loss == pytest.approx(expected[step], rel=1e-5)
    environment = json.loads((tmp_path / "again" / "metadata" / "environment.json").read_text())
    assert environment["bit_exact"] is (number == 2)


@pytest.mark.parametrize("trial", [GROWING, with_training(DECODER, residual_gain=0.5)], ids=["growing", "with a gain"])
def test_a_model_trained_in_shards_is_saved_whole_and_scores_what_its_run_said(trial, tmp_path):
    from stackwise_ray.training.scoring import score_run

    *_, metrics = train(with_training(trial, parallel="sharded"), tmp_path / "two", 2)[-1]
    scores = score_run(tmp_path / "two").metrics
    for name in {"validation/loss", "validation/masked_loss"} & metrics.keys():
        assert scores[name] == pytest.approx(metrics[name], rel=1e-6)


def test_workers_with_shards_hold_less_and_save_as_many_activations(tmp_path):
    trial = with_model(DECODER, d_model=64, d_ff=256, n_layers=4)
    whole, shards = (
        train(with_training(trial, parallel=parallel), tmp_path / parallel, 2)[-1][-1]
        for parallel in ("replicated", "sharded")
    )
    assert shards["memory/saved_activation_bytes"] == whole["memory/saved_activation_bytes"]
    # Half of the weights, gradients and moments, and less than one more copy of the weights, gathered for a pass.
    saved = whole["memory/peak_bytes"] - shards["memory/peak_bytes"]
    assert (4 / 2 - 1.5) * whole["model/bytes"] < saved <= 4 / 2 * whole["model/bytes"]
