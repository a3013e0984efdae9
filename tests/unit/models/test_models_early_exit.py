"""Early exit on every family: what leaves, what runs for what is left, and what that costs."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from stackwise_ray.config.trial.editing import edit
from stackwise_ray.config.trial.registered import NamedOptions
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.metrics.flops import FlopCounter
from stackwise_ray.models.component import Scored, attached
from stackwise_ray.models.components.early_exit import CURVE, EarlyExit, EarlyExitOptions
from stackwise_ray.models.stack_view import stack_view
from stackwise_ray.training.assembly import build_training_model
from tests.small_models import MODELS, mostly_slow
from tests.small_trials import TRIAL

VOCAB, N = 50, 16


def _model(config: Any, *, seed: int = 0, **options: Any) -> tuple[Any, Any]:
    """A model of four layers with exits after the first three, whose confidences are spread; and its component."""
    chosen = NamedOptions({"early_exit": EarlyExitOptions(**options)})
    trial = replace(TRIAL, seed=seed, model=replace(config, n_layers=4, components=chosen))
    torch.manual_seed(3)
    model = build_training_model(trial, vocab_size=VOCAB, special_ids={"mask": 1})
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3.0)
        model.get_output_embeddings().weight.mul_(4.0)
    return model.eval(), attached(model)["early_exit"]


def _inputs(batch: int = 3) -> dict[str, torch.Tensor]:
    return {"input_ids": torch.randint(2, VOCAB, (batch, N), generator=torch.Generator().manual_seed(5))}


def _confidences(model: Any, exits: Any) -> torch.Tensor:
    """Of all tokens at all exits when none leaves, sorted."""
    found: list[torch.Tensor] = []
    whole = exits._exit_logits
    exits._exit_logits = lambda number, hidden: (found.append(logits := whole(number, hidden)), logits)[1]
    exits.costliest_pass(_inputs())
    del exits._exit_logits
    return torch.cat([logits.softmax(-1).amax(-1).flatten() for logits in found]).sort().values


@pytest.mark.parametrize("config", mostly_slow(MODELS))
def test_without_a_threshold_it_is_the_full_model_to_the_bit_and_costs_the_same(config):
    model, exits = _model(config)
    with torch.no_grad(), FlopCounter() as plain:
        wanted = model(**_inputs()).logits
    with FlopCounter() as counted:
        given = exits.logits(_inputs(), threshold=None)
    assert torch.equal(given, wanted)
    assert counted.count.forward == plain.count.forward
    assert exits.block_tokens == [3 * N] * 4


@pytest.mark.parametrize("config", mostly_slow(MODELS))
def test_a_pass_gives_what_running_every_token_through_frozen_states_gives(config):
    model, exits = _model(config)
    spread = _confidences(model, exits)
    threshold = float(spread[len(spread) // 2])
    given = exits.logits(_inputs(), threshold=threshold)
    torch.testing.assert_close(given, _naive(model, exits, threshold), rtol=2e-3, atol=2e-3)


def _naive(model: Any, exits: Any, threshold: float) -> torch.Tensor:
    return _naively(model, exits, threshold)[0]


def _naively(model: Any, exits: Any, threshold: float) -> tuple[torch.Tensor, float]:
    """The definition: every block runs on all tokens, and the states of those that have left are put back.

    Returns:
        (logits, layers per token that were not put back).
    """
    view, left, logits, layers = stack_view(model), None, None, 0

    def after(number: int, given: Any, output: Any) -> Any:
        nonlocal left, logits, layers
        states = output[0] if isinstance(output, tuple) else output
        if left is None:
            left = torch.zeros(states.shape[:2], dtype=torch.bool)
        layers += int((~left).sum())
        states = torch.where(left.unsqueeze(-1), given[0], states)
        if number in exits._exits:
            mine = exits._exit_logits(number, states)
            logits = torch.zeros_like(mine) if logits is None else logits
            now = (mine.softmax(-1).amax(-1) >= threshold) & ~left
            logits, left = torch.where(now.unsqueeze(-1), mine, logits), left | now
        return view.passed_on(states)

    handles = [
        block.register_forward_hook(lambda _, given, output, number=number: after(number, given, output))
        for number, block in enumerate(view.blocks)
    ]
    with torch.no_grad():
        last = model(**_inputs()).logits
    for handle in handles:
        handle.remove()
    return torch.where(left.unsqueeze(-1), logits, last), layers / left.numel()


@pytest.mark.parametrize("config", mostly_slow(MODELS))
def test_lower_thresholds_take_fewer_layers_and_the_matrices_run_on_the_tokens_that_are_left(config):
    model, exits = _model(config)
    spread = _confidences(model, exits)
    thresholds = [0.0, *(float(spread[round(share * (len(spread) - 1))]) for share in (0.3, 0.6, 0.9)), None]
    depths, flops = [], []
    for threshold in thresholds:
        seen = [0] * 4
        handles = [_count(stack_view(model).own_token(block)[-1], seen, n) for n, block in _blocks(model)]
        exits.forget_depths()
        with FlopCounter() as counter:
            exits.logits(_inputs(), threshold=threshold)
        for handle in handles:
            handle.remove()
        assert seen == exits.block_tokens
        assert all(earlier >= later for earlier, later in itertools.pairwise(seen))
        depths.append(sum(seen) / (3 * N))
        flops.append(counter.count.forward)
    assert depths[0] == 1
    assert depths == sorted(depths)
    assert depths[-1] == 4
    assert len(set(depths)) > 2
    assert flops[:-1] == sorted(flops[:-1])  # the last one asks no exit at all


def _blocks(model: Any) -> Any:
    return enumerate(stack_view(model).blocks)


def _count(module: nn.Module, seen: list[int], number: int) -> Any:
    def count(_: Any, given: tuple[torch.Tensor, ...]) -> None:
        seen[number] += given[0][..., 0].numel()

    return _Last(module, count)


class _Last:
    """A look at what a module really computes on, after all hooks that change it."""

    def __init__(self, module: Any, count: Any) -> None:
        self._module, whole = module, module.forward
        module.forward = lambda *given: (count(None, given), whole(*given))[1]

    def remove(self) -> None:
        del self._module.forward


def test_a_sequence_whose_tokens_have_left_goes_out_of_the_batch():
    model, exits = _model(MODELS["gpt2"])
    sizes: list[int] = []
    handle = stack_view(model).blocks[1].attn.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    exits._leave = lambda now, number, hidden, threshold: (
        setattr(now, "logits", torch.zeros(3, N, VOCAB)) or now.remaining.__setitem__(slice(0, 2), False)
    )
    exits.logits(_inputs(), threshold=0.5)
    handle.remove()
    assert sizes == [1]


def test_layer_dropout_grows_with_depth_and_training_and_never_takes_the_first_layer():
    _, exits = _model(MODELS["gpt2"], layer_dropout=0.2)
    assert [exits._dropout(number, 1.0) for number in range(4)] == pytest.approx([0, 0.05198, 0.11748, 0.2], abs=1e-4)
    assert exits._dropout(3, 0.0) == 0
    assert exits._dropout(3, 0.5) == pytest.approx(0.2 * (2**0.5 - 1))


def test_what_a_step_drops_follows_from_the_seed_and_the_step_alone():
    _, exits = _model(MODELS["gpt2"], layer_dropout=0.9)
    keys = [exits.begin_step(step=step, share=1.0) for step in range(30)]
    assert [exits.begin_step(step=step, share=1.0) for step in reversed(range(30))] == keys[::-1]
    assert len(set(keys)) > 1


def test_another_seed_drops_other_layers():
    def dropped(seed: int) -> list[frozenset[int]]:
        _, exits = _model(MODELS["gpt2"], seed=seed, layer_dropout=0.9)
        return [(exits.begin_step(step=step, share=1.0), exits._dropped)[1] for step in range(30)]

    assert dropped(1) == dropped(1)
    assert dropped(1) != dropped(2)


def test_exits_begin_to_learn_one_by_one_from_the_last():
    _, exits = _model(MODELS["gpt2"])
    assert [sorted(exits._enabled(share)) for share in (0.0, 0.13, 0.26, 1.0)] == [[2], [1, 2], [0, 1, 2], [0, 1, 2]]


def test_the_weights_of_the_exits_are_those_of_layerskip():
    _, exits = _model(MODELS["gpt2"])
    assert [exits._weight(number) for number in range(3)] == pytest.approx([1 / 10, 3 / 10, 6 / 10])


def test_the_scale_of_the_exits_losses_divides_the_whole_between_them_and_the_last_layer():
    _, exits = _model(MODELS["gpt2"], loss_scale=0.5)
    assert [exits._weight(number) for number in range(3)] == pytest.approx([1 / 14, 3 / 14, 6 / 14])


class _Losses:
    """A scorer of the held-out text whose loss rises by 1 − threshold below a threshold of 1."""

    def score(self, windows: str, forward: Any) -> Any:
        assert windows == "held_out"
        yield
        threshold = forward.keywords["threshold"]
        return Scored(loss=2.0 if threshold is None else 3.0 - threshold, flops=1, tokens=1)

    def total(self, number: int) -> int:
        return number


@pytest.mark.parametrize(("tolerance", "threshold"), [(0.0, None), (0.07, 0.95), (0.45, 0.6), (2.0, 0.1)])
def test_calibration_takes_the_lowest_threshold_whose_loss_the_tolerance_allows(tolerance, threshold):
    _, exits = _model(MODELS["gpt2"], tolerance=tolerance)
    assert _result(exits._calibrated(_Losses())) == threshold


class _Windows:
    """A scorer whose text is three windows, and its loss the number of the pass."""

    def __init__(self) -> None:
        self.thresholds: list[float | None] = []

    def score(self, windows: str, forward: Any) -> Any:
        if windows == "validation":
            self.thresholds.append(forward.keywords["threshold"])
        with FlopCounter() as counter:
            forward(_inputs())
        yield
        return Scored(loss=float(len(self.thresholds)), flops=counter.count.forward, tokens=3 * N)

    def total(self, number: int) -> int:
        return number


def _result(work: Any) -> Any:
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def test_the_mean_depth_is_the_layers_that_a_token_goes_through():
    model, exits = _model(MODELS["gpt2"], threshold=1e-9, exits=(2,))
    assert _result(exits.after_training(_Windows()))["early_exit/mean_depth"] == 2  # all leave at the one exit
    model, exits = _model(MODELS["gpt2"])
    spread = _confidences(model, exits)
    threshold = round(float(spread[len(spread) // 2]), 6)
    model, exits = _model(MODELS["gpt2"], threshold=threshold)
    metrics = _result(exits.after_training(_Windows()))
    points = {"": threshold} | {f"_{round(100 * t)}": t for t in CURVE}
    wanted = {f"early_exit/mean_depth{end}": _naively(model, exits, t)[1] for end, t in points.items()}
    assert {path: metrics[path] for path in wanted} == pytest.approx(wanted)
    assert 1 < metrics["early_exit/mean_depth"] < 4


def test_every_threshold_runs_over_the_windows_once():
    _, exits = _model(MODELS["gpt2"], threshold=0.5)
    scorer = _Windows()
    metrics = _result(exits.after_training(scorer))
    assert scorer.thresholds == [None, 0.5, 0.1, 0.3, 0.7, 0.9]
    assert metrics["early_exit/loss"] == metrics["early_exit/loss_50"] == 2


def test_where_calibration_lets_no_token_leave_the_threshold_is_absent_and_the_model_has_its_full_depth():
    _, exits = _model(MODELS["gpt2"])
    exits._calibrated = _nothing
    scorer = _Windows()
    metrics = _result(exits.after_training(scorer))
    assert scorer.thresholds == [None, *CURVE]
    assert "early_exit/threshold" not in metrics
    assert metrics["early_exit/mean_depth"] == 4
    assert metrics["early_exit/flops_per_token"] == metrics["early_exit/flops_per_token_full"]
    assert exits.state() == {"threshold": None}
    assert any(line.startswith("| none (full depth) | 1.0000 |") for line in EarlyExit().report(metrics))


@pytest.mark.parametrize(("chosen", "after"), [(None, 0.1), (0.9, 0.9)])
def test_the_end_of_training_calibrates_anew_what_was_calibrated_before_and_nothing_that_was_chosen(chosen, after):
    _, exits = _model(MODELS["gpt2"], threshold=chosen)
    exits.restore({"threshold": 0.5 if chosen is None else chosen})
    _result(exits.after_training(_Windows()))  # on these, no candidate has a higher loss
    assert exits.state() == {"threshold": after}


def _nothing(scorer: Any) -> Any:
    """A calibration that finds no candidate within the tolerance."""
    yield


@pytest.mark.parametrize("threshold", [0.0, 1.5])
def test_a_threshold_that_is_no_confidence_is_refused(threshold):
    with pytest.raises(ConfigError, match="threshold"):
        edit(TRIAL, {"model.components.early_exit.threshold": threshold})


def test_generate_goes_through_the_full_depth_of_a_model_with_exits():
    model, exits = _model(MODELS["gpt2"])
    model.generate(_inputs(1)["input_ids"][:, :4], max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert exits.block_tokens == [0] * 4  # no pass with exits has run
