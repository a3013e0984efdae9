"""Evaluation: exact NLL of a split by hand, independence of batching, fixed masks, what a stage trains."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from stackwise_ray.config.trial import data_config
from stackwise_ray.core.errors import ConfigError, TrialError
from stackwise_ray.data import PreparedData, prepare
from stackwise_ray.data.corpora.associative_recall import AssociativeRecallSource
from stackwise_ray.metrics.losses import IGNORED
from stackwise_ray.training.assembly import Assembly, assemble, choose_device, enter_stage, seed_step
from stackwise_ray.training.evaluation import Evaluator
from stackwise_ray.training.measure import Meter
from stackwise_ray.training.objectives import Objective
from stackwise_ray.training.parallel.collectives import Alone
from stackwise_ray.training.stage import Stage, Trainable
from tests.small_trials import with_data, with_model

DECODER = with_data(validation_tokens=500)
ENCODER = with_model(DECODER, family="bert", role="encoder")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(module_cache: Path) -> PreparedData:
    return prepare(DECODER.data)


def evaluator(assembly: Assembly, batch_windows: int = 8, *, count: bool = True) -> Evaluator:
    meter = Meter(assembly.model, CPU, Alone(), count=count)
    return Evaluator(assembly=assembly, collectives=Alone(), meter=meter, batch_windows=batch_windows)


def objective(assembly: Assembly) -> Objective:
    return assembly.enter(assembly.plan.stages[0]).objective


def result(generator):
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


def test_the_perplexity_of_a_split_is_that_of_every_token_scored_once_with_its_context(data):
    """By hand: token t + 1 of a 16-token window with stride 8, its context cut at the window's start, one at a time."""
    assembly = assemble(DECODER, data, CPU)
    metrics = result(evaluator(assembly).whole_split("test"))
    tokens = np.asarray(data.splits["test"].tokens, dtype=np.int64)
    assembly.model.eval()
    nll, scored = 0.0, 0
    start = 0
    with torch.no_grad():
        while scored < len(tokens) - 1:
            first = min(start, len(tokens) - 17)
            window = torch.from_numpy(tokens[first : first + 17])
            log_probabilities = assembly.model(input_ids=window[None, :-1]).logits[0].double().log_softmax(-1)
            for position in range(scored - first, 16):  # those that no window before has scored
                nll -= float(log_probabilities[position, window[position + 1]])
                scored += 1
            start += 8
    split = data.splits["test"]
    assert metrics["test/tokens"] == scored == len(tokens) - 1
    assert metrics["test/loss"] == pytest.approx(nll / scored, rel=1e-6)
    assert metrics["test/perplexity_token"] == pytest.approx(math.exp(nll / scored), rel=1e-5)
    assert metrics["test/perplexity_word"] == pytest.approx(math.exp(nll / split.n_words), rel=1e-5)
    assert metrics["test/perplexity_byte"] == pytest.approx(math.exp(nll / split.n_bytes), rel=1e-5)
    assert metrics["test/min_context"] == 9


@pytest.mark.parametrize("trial", [DECODER, ENCODER], ids=["decoder", "encoder"])
def test_validation_does_not_depend_on_the_batching(trial, data):
    assembly = assemble(trial, data, CPU)
    losses = [result(evaluator(assembly, n).validate(objective(assembly)))["validation/loss"] for n in (1, 7, 32)]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)


class Reads(TorchFunctionMode):
    """Counts what is read from tensors to the host."""

    READING = (torch.Tensor.cpu, torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.__float__)
    count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.count += func in self.READING
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("batch_windows", [1, 8])
def test_the_losses_of_all_batches_are_read_from_the_device_at_once(batch_windows, data):
    assembly = assemble(DECODER, data, CPU)
    with Reads() as reads:
        result(evaluator(assembly, batch_windows).whole_split("validation"))
    assert reads.count == 1


def test_counting_flops_changes_no_bit_of_a_loss(data):
    assembly = assemble(DECODER, data, CPU)
    counted, plain = (
        result(evaluator(assembly, count=count).validate(objective(assembly)))["validation/loss"]
        for count in (True, False)
    )
    assert counted == plain


def test_validation_is_in_evaluation_mode_and_leaves_training_mode(data):
    dropout = with_model(DECODER, dropout=0.5)
    losses = []
    for trial in (DECODER, dropout):
        assembly = assemble(trial, data, CPU)
        losses.append(result(evaluator(assembly).validate(objective(assembly)))["validation/loss"])
        assert assembly.model.training
    assert losses[0] == losses[1]


def test_a_perplexity_is_reported_only_where_predictions_see_their_past_alone(data):
    decoder, encoder = (assemble(trial, data, CPU) for trial in (DECODER, ENCODER))
    seen = result(evaluator(decoder).validate(objective(decoder)))
    assert seen["validation/perplexity"] == pytest.approx(math.exp(seen["validation/loss"]))
    assert seen["validation/oracle_loss"] > 0
    assert set(result(evaluator(encoder).validate(objective(encoder)))) == {"validation/loss"}


class Recall(torch.nn.Module):
    """Answers from the pairs of its own window of one sequence; `wrong` makes it answer the first `wrong` falsely."""

    def __init__(self, vocab_size: int, wrong: int) -> None:
        super().__init__()
        self.vocab_size, self.wrong = vocab_size, wrong

    def forward(self, input_ids):
        logits = torch.zeros(*input_ids.shape, self.vocab_size)
        for window, row in zip(input_ids, logits, strict=True):
            values = dict(zip(window[:4:2].tolist(), window[1:4:2].tolist(), strict=True))
            for query, place in enumerate((4, 6)):
                row[place, values[int(window[place])] if query >= self.wrong else 0] = 50.0
        return SimpleNamespace(logits=logits)


def test_answers_are_scored_apart_and_by_their_most_likely_token():
    source = AssociativeRecallSource(n_pairs=2, n_queries=2, n_keys=4, n_values=4, n_tokens=2000)
    config = data_config(corpus="associative_recall", seq_len=8, validation_tokens=160, associative_recall=source)
    recall = prepare(config)
    assembly = assemble(replace(DECODER, data=config), recall, CPU)
    for wrong, accuracy, loss in ((0, 1.0, 0.0), (1, 0.5, 25.0)):  # a wrong answer costs 50 nats, half of them is 25
        fake = replace(assembly, model=Recall(recall.vocab_size, wrong))
        scorer = replace(evaluator(assembly, count=False), assembly=fake)
        seen = result(scorer.validate(objective(assembly)))
        assert seen["validation/answer_accuracy"] == accuracy
        assert seen["validation/answer_loss"] == pytest.approx(loss, abs=1e-4)


def test_a_loss_that_is_not_finite_fails_the_evaluation(data):
    assembly = assemble(DECODER, data, CPU)
    with torch.no_grad():
        next(assembly.model.parameters()).fill_(float("nan"))
    with pytest.raises(TrialError, match="non-finite loss in evaluation: nan in window 0"):
        result(evaluator(assembly).validate(objective(assembly)))


def test_a_sequence_is_masked_alike_in_any_company_and_otherwise_next_time(data):
    masked = objective(assemble(ENCODER, data, CPU))
    together, alone = masked.training_batch(range(3, 9)), masked.training_batch(range(5, 6))
    assert (together.inputs[2] == alone.inputs[0]).all()
    assert (together.targets[2] == alone.targets[0]).all()
    per_epoch = masked.order.windows_per_epoch
    offsets = masked.order.windows(0, 2 * per_epoch)
    again = per_epoch + int(np.flatnonzero(offsets[per_epoch:] == offsets[5])[0])  # the same window, an epoch later
    later = masked.training_batch(range(again, again + 1))
    assert (later.targets != alone.targets).any()


def test_masked_inputs_differ_from_the_text_only_where_there_is_a_loss(data):
    masked = objective(assemble(ENCODER, data, CPU))
    batch = masked.training_batch(range(64))
    tokens = data.splits["train"].tokens
    text = np.stack([tokens[o : o + 16] for o in masked.order.windows(0, 64)]).astype(np.int64)
    lossy = batch.targets != IGNORED
    assert (batch.inputs[~lossy] == text[~lossy]).all()
    assert (batch.targets[lossy] == text[lossy]).all()
    assert batch.loss_positions == lossy.sum()
    assert lossy.mean() == pytest.approx(0.15, abs=5 * math.sqrt(0.15 * 0.85 / lossy.size))


def test_validation_masks_are_the_same_for_every_seed(data):
    windows = np.array([0, 16, 48])
    one, two = (objective(assemble(replace(ENCODER, seed=s), data, CPU)).validation_batch(windows) for s in (0, 1))
    assert (one.inputs == two.inputs).all()
    assert (one.targets == two.targets).all()


@pytest.mark.parametrize(
    ("trainable", "trained"),
    [
        (Trainable(blocks=(1,), embeddings=False, norm=False, head=False), {"transformer.h.1"}),
        (Trainable(blocks=(), embeddings=False, norm=True, head=False), {"transformer.ln_f"}),
        (Trainable(blocks=(0,), embeddings=False, norm=False, head=True), {"transformer.h.0", "transformer.wte"}),
    ],
)
def test_a_stage_trains_its_declared_parts_and_nothing_else(trainable, trained, data):
    """GPT-2's head is tied: training it trains the token table."""
    model = assemble(DECODER, data, CPU).model
    stage = Stage(name="s", active_blocks=(0, 1), trainable=trainable, objective="next_token")
    enter_stage(model, stage)
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert names == {n for n, _ in model.named_parameters() if n.startswith(tuple(f"{part}." for part in trained))}


def test_what_a_step_draws_depends_on_seed_step_and_worker_alone():
    def draw(*arguments: int) -> float:
        seed_step(*arguments)
        return float(torch.rand(()))

    assert draw(0, 1, 0) == draw(0, 1, 0)
    assert len({draw(0, 1, 0), draw(1, 1, 0), draw(0, 2, 0), draw(0, 1, 1)}) == 4


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused_and_auto_takes_the_cpu():
    assert choose_device("auto") == CPU
    with pytest.raises(ConfigError, match=r"training\.device|no CUDA device"):
        choose_device("cuda")


def test_a_trial_that_was_given_no_gpu_trains_on_the_cpu_also_where_it_sees_one(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)  # what a worker sees beside other workers' GPUs
    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    assert choose_device("auto", gpus=0) == CPU
    assert choose_device("cpu", gpus=1) == CPU
    assert choose_device("auto", gpus=1) == choose_device("auto") == torch.device("cuda", 0)
    with pytest.raises(ConfigError, match=r"training\.device = cuda, .* no GPU \(resources\.gpus_per_trial = 0"):
        choose_device("cuda", gpus=0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("wanted", ["auto", "cuda"])
def test_a_trial_that_was_given_a_gpu_and_finds_none_is_refused_and_not_trained_on_the_cpu(wanted):
    with pytest.raises(ConfigError, match=rf"training\.device = {wanted}, but torch sees no CUDA device here"):
        choose_device(wanted, gpus=1)


def test_a_share_of_a_gpu_is_a_share_of_its_memory(monkeypatch):
    shares = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    monkeypatch.setattr("torch.cuda.set_per_process_memory_fraction", lambda *words: shares.append(words))
    for gpus in (None, 1, 2):
        choose_device("auto", gpus=gpus)
    assert shares == []
    choose_device("auto", gpus=0.25)
    assert shares == [(0.25, torch.device("cuda", 0))]


def test_an_evaluation_in_which_nothing_can_be_masked_says_so(data):
    """A window of special tokens alone; one of ordinary tokens has a mask at any share."""
    assembly = assemble(ENCODER, data, CPU)
    one = replace(assembly, validation_windows=assembly.validation_windows[:1])
    stage = replace(one.plan.stages[0], noise=((1e-6, 1e-6),))
    assert result(evaluator(one).validate(one.enter(stage).objective))["validation/loss"] > 0
    tokens = data.splits["validation"].tokens
    reserved = data.special_ids | {f"token {token}": int(token) for token in np.unique(tokens)}
    bare = replace(one, data=replace(data, special_ids=reserved))
    with pytest.raises(
        TrialError, match=r"none of the 1 windows of the evaluation has .* raise data\.validation_tokens"
    ):
        result(evaluator(bare).validate(bare.enter(stage).objective))


class _OfOthers(Alone):
    """Adds what the other worker has in its tensors."""

    def __init__(self, theirs: Sequence[torch.Tensor] = ()) -> None:
        self.theirs, self.mine = theirs, list[torch.Tensor]()

    def sum_(self, tensors: Sequence[torch.Tensor]) -> None:
        self.mine = [tensor.clone() for tensor in tensors]
        for tensor, other in zip(tensors, self.theirs, strict=False):
            tensor += other


def test_two_workers_score_the_windows_of_one_each_at_its_place(data, monkeypatch):
    score, seen = Evaluator.score, []

    def noted(self, *arguments, **options):
        losses = yield from score(self, *arguments, **options)
        seen.append(losses.sums)
        return losses

    monkeypatch.setattr(Evaluator, "score", noted)
    alone = assemble(DECODER, data, CPU)
    result(evaluator(alone, 1).whole_split("validation"))
    collectives = _OfOthers()
    for rank in (1, 0):
        collectives = _OfOthers(collectives.mine)
        assembly = replace(alone, rank=rank, world_size=2)
        meter = Meter(assembly.model, CPU, collectives)
        worker = Evaluator(assembly=assembly, collectives=collectives, meter=meter, batch_windows=1)
        with contextlib.suppress(TrialError):  # one of them alone has half of the losses
            result(worker.whole_split("validation"))
    np.testing.assert_array_equal(seen[-1], seen[0])
