"""Steps from budgets: worked examples, the 1 % rule, splits over stages, workers and micro-batches."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stackwise_ray.config.trial import Budget, ModelConfig, TrialConfig, data_config, training_config
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.data.corpora.markov import MarkovSource
from stackwise_ray.training.budget import (
    StageCost,
    StageFlops,
    StageSteps,
    batch_sequences,
    evaluation_steps,
    shares,
    solve_steps,
)

COST = StageCost(flops_per_sequence=100, flops_per_step=30)  # a full step of 4 sequences costs 430


def solve(budget: Budget, *costs: StageCost) -> tuple[StageSteps, ...]:
    return solve_steps(budget, costs or (COST,), batch_sequences=4, seq_len=16)


@pytest.mark.parametrize(
    ("counted", "beyond"),
    [(989, True), (990, False), (999, False), (1000, None), (1500, None), (1501, False), (1515, False), (1516, True)],
)
def test_a_step_may_cost_one_per_cent_less_than_the_cheapest_and_more_than_the_costliest(counted, beyond):
    planned = StageFlops(
        forward_per_sequence=250,
        backward_per_sequence=500,
        evaluation_per_sequence=250,
        optimizer_per_step=7,
        cheapest_per_sequence=500,
    )
    found = planned.difference(counted, 2)
    assert (None if found is None else found.beyond_tolerance) == beyond
    if found is not None:
        assert found.message == f"a step of 2 sequences costs {counted} FLOPs and was planned with 1000 to 1500"
    steady = replace(planned, cheapest_per_sequence=None)
    assert "planned with 1500" in steady.difference(1499, 2).message


def test_a_budget_of_steps_is_full_steps():
    assert solve(Budget(steps=7)) == (StageSteps(steps=7, batch_sequences=4, last_sequences=4),)


def test_a_budget_of_tokens_ends_with_a_short_batch():
    # 100 steps of 64 tokens and 3 sequences of 16
    assert solve(Budget(tokens=6448)) == (StageSteps(steps=101, batch_sequences=4, last_sequences=3),)


def test_a_budget_of_flops_pays_for_the_optimizer_of_the_short_batch_too():
    # 10 full steps cost 4300, the short one 2·100 + 30: together 4530
    (stage,) = solve(Budget(flops=4530))
    assert stage == StageSteps(steps=11, batch_sequences=4, last_sequences=2)
    assert stage.flops(COST) == 4530
    assert stage.sequences_total == 42
    assert [stage.sequences(step) for step in (0, 9, 10)] == [4, 4, 2]


def test_what_a_short_batch_cannot_buy_is_left_out():
    # 4300 for 10 full steps; 10 more would not pay an optimizer step, so the budget is met to 0.2 %
    assert solve(Budget(flops=4310)) == (StageSteps(steps=10, batch_sequences=4, last_sequences=4),)


@pytest.mark.parametrize(
    ("budget", "path", "least"),
    [
        (Budget(flops=100), "training.budget.flops", 130),  # one sequence, one step
        (Budget(flops=280), "training.budget.flops", 330),  # between 2 and 3 sequences in one step
        (Budget(flops=495), "training.budget.flops", 560),  # between a full step and one with one sequence more
        (Budget(tokens=3), "training.budget.tokens", 16),
    ],
)
def test_a_budget_that_cannot_be_met_is_refused_with_the_next_that_can(budget, path, least):
    with pytest.raises(ConfigError, match=f"give at least {least}") as caught:
        solve(budget)
    assert caught.value.path == path
    assert solve(replace(budget, **{path.rpartition(".")[2]: least}))


@given(
    wanted=st.floats(1, 1e9),
    batch=st.integers(1, 64),
    per_sequence=st.integers(1, 10**6),
    per_step=st.integers(0, 10**6),
)
def test_no_number_of_sequences_comes_nearer_to_the_budget(wanted, batch, per_sequence, per_step):
    cost = StageCost(flops_per_sequence=per_sequence, flops_per_step=per_step)

    def spend(sequences: int) -> int:
        return sequences * per_sequence + -(-sequences // batch) * per_step

    try:
        (stage,) = solve_steps(Budget(flops=wanted), [cost], batch_sequences=batch, seq_len=8)
    except ConfigError:
        full = batch * per_sequence + per_step
        assume(wanted / full < 1000)
        around = range(max(1, int(wanted / full) * batch - 1), int(wanted / full + 2) * batch + 1)
        assert min(abs(spend(n) - wanted) for n in around) > 0.01 * wanted
        return
    total = stage.sequences_total
    assert stage.flops(cost) == spend(total)
    assert abs(spend(total) - wanted) <= 0.01 * wanted
    assert all(abs(spend(n) - wanted) >= abs(spend(total) - wanted) for n in (max(1, total - 1), total + 1))


def test_stages_of_different_cost_share_a_budget_of_flops():
    cheap = StageCost(share=0.25, flops_per_sequence=100, flops_per_step=0)
    dear = StageCost(share=0.75, flops_per_sequence=300, flops_per_step=0)
    first, second = solve(Budget(flops=120_000), cheap, dear)
    assert (first.flops(cheap), second.flops(dear)) == (30_000, 90_000)


def test_a_later_stage_makes_up_for_what_an_earlier_one_could_not_spend():
    coarse = StageCost(share=0.5, flops_per_sequence=7_000, flops_per_step=0)  # 7 sequences cost 49,000
    fine = StageCost(share=0.5, flops_per_sequence=10, flops_per_step=0)
    first, second = solve(Budget(flops=100_000), coarse, fine)
    assert first.flops(coarse) == 49_000
    assert second.flops(fine) == 51_000


@pytest.mark.parametrize(("steps", "expected"), [(2, [1, 1]), (10, [3, 7]), (3, [1, 2])])
def test_steps_are_split_by_share_with_at_least_one_each(steps, expected):
    costs = [replace(COST, share=0.3), replace(COST, share=0.7)]
    assert [stage.steps for stage in solve(Budget(steps=steps), *costs)] == expected


def test_fewer_steps_than_stages_are_refused():
    with pytest.raises(ConfigError, match="= 1 is fewer than the 2 stages"):
        solve(Budget(steps=1), replace(COST, share=0.3), replace(COST, share=0.7))


def trial(**training) -> TrialConfig:
    return TrialConfig(
        model=ModelConfig(family="gpt2", role="decoder", n_layers=1, d_model=8, n_heads=1, d_ff=8),
        data=data_config(corpus="markov", seq_len=16, markov=MarkovSource()),
        training=training_config(budget=Budget(steps=1), **training),
    )


def test_a_batch_is_a_whole_number_of_sequences():
    assert batch_sequences(trial(batch_tokens=64)) == 4
    with pytest.raises(ConfigError, match=r"training.batch_tokens = 70 .*choose 64 or 80"):
        batch_sequences(trial(batch_tokens=70))
    with pytest.raises(ConfigError, match=r"training.batch_tokens = 8 .*choose 16$"):
        batch_sequences(trial(batch_tokens=8))


def test_more_micro_batches_than_sequences_are_refused():
    with pytest.raises(ConfigError, match=r"training.accumulation = 5 micro-batches, but a step has only 4 sequences"):
        batch_sequences(trial(batch_tokens=64, accumulation=5))


@given(total=st.integers(1, 5000), evaluations=st.integers(1, 50))
def test_evaluations_are_spread_evenly_and_end_at_the_end(total, evaluations):
    steps = evaluation_steps(total, evaluations)
    assert steps[-1] == total
    assert len(steps) == min(total, evaluations)
    gaps = {b - a for a, b in zip((0, *steps), steps, strict=False)}
    assert max(gaps) - min(gaps) <= 1


@given(first=st.integers(0, 100), count=st.integers(0, 100), parts=st.integers(1, 20))
def test_shares_cover_everything_once_in_order_and_differ_by_one(first, count, parts):
    pieces = shares(first, count, parts)
    assert [n for piece in pieces for n in piece] == list(range(first, first + count))
    assert max(map(len, pieces)) - min(map(len, pieces)) <= 1
