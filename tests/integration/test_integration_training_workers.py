"""Two workers (real processes, gloo) train what one trains: the loss is normalised over the global batch."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from stackwise_ray.config.trial import Budget, MarkovSource, TrialConfig
from tests.small_trials import with_data, with_model, with_training

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("module_cache")]

DECODER = with_training(
    with_data(validation_tokens=272, final_evaluation=None),
    budget=Budget(tokens=20 * 128 + 16),  # the last batch is one sequence: a worker has none
)
ENCODER = with_model(DECODER, family="bert", role="encoder")
GROWING = with_training(ENCODER, regime="depth_time")
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
    "time as input": (TIMED, TIMED),
    "a cached prefix": (CACHED, CACHED),
    "micro-batches": (DECODER, with_training(DECODER, accumulation=2)),
}


def worker(trial: TrialConfig, directory: Path, rank: int, world_size: int, pipe: Connection) -> None:
    import torch
    import torch.distributed as dist

    from stackwise_ray.training.run import run_trial

    torch.set_num_threads(1)
    if world_size > 1:
        store = f"file://{directory}.store"
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world_size)
    generator = run_trial(trial, directory, trial_id="t", attempt=1, rank=rank, world_size=world_size)
    for record in generator:
        pipe.send((record.step, record.tokens, record.flops, dict(record.metrics)))
    pipe.send(None)


def train(trial: TrialConfig, directory: Path, world_size: int) -> list:
    """The first worker's records."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["stackwise_ray.training.run", "transformers.models.gpt2.modeling_gpt2"])
    processes, pipes = [], []
    for rank in range(world_size):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=worker, args=(trial, directory, rank, world_size, theirs))
        process.start()
        theirs.close()
        processes.append(process)
        pipes.append(ours)
    records = [list(iter(pipe.recv, None)) for pipe in pipes]
    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0
    return records[0]


@pytest.mark.parametrize(("one", "two"), CASES.values(), ids=CASES.keys())
def test_two_workers_give_the_loss_curve_of_one(one, two, tmp_path):
    assert_same_curve(one, two, tmp_path)


@pytest.mark.parametrize("kind", ["finetune", "band"])
def test_two_workers_go_on_from_a_checkpoint_as_one(kind, tmp_path):
    train(with_training(ENCODER, budget=Budget(tokens=4 * 128)), tmp_path / "checkpoint", 1)
    trial = with_training(
        ENCODER,
        regime="hybrid",
        hybrid=kind,
        init_from=str(tmp_path / "checkpoint"),
        budget=Budget(tokens=24 * 128 + 16),
    )
    assert_same_curve(trial, trial, tmp_path)


def assert_same_curve(one, two, folder):
    alone = train(one, folder / "one", 1)
    together = train(two, folder / "two", 2)
    assert [record[:3] for record in together] == [record[:3] for record in alone]  # steps, tokens, FLOPs
    assert len(alone) >= 21
    for (*_, expected), (*_, metrics) in zip(alone, together, strict=True):
        for name in ("train/loss", "train/grad_norm", "validation/loss", "test/perplexity_token", "flops/evaluation"):
            assert (name in metrics) == (name in expected)
            if name in expected:
                assert metrics[name] == pytest.approx(expected[name], rel=1e-5), name


def test_a_budget_of_time_ends_all_workers_at_the_same_step(tmp_path):
    trial = with_training(DECODER, budget=Budget(wall_seconds=1.0), report_seconds=0.1)
    *_, metrics = train(trial, tmp_path / "two", 2)[-1]
    assert metrics["progress"] == 1.0
    assert metrics["time/train_s"] >= 1.0
