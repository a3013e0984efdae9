"""Windows: alignment, the order of training, fixed validation sets, exact cover of a split."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackwise_ray.core.errors import ConfigError
from stackwise_ray.data import TrainingOrder, fixed_validation_windows, gather, held_out_windows, strided_windows

COUNTING = np.arange(1000, dtype=np.uint16)


def test_targets_are_the_inputs_shifted_by_one_inside_the_window():
    inputs, targets = gather(COUNTING, TrainingOrder(1000, 37, seed=3).windows(0, 60), 37)
    assert inputs.shape == targets.shape == (60, 37)
    assert inputs.dtype == targets.dtype == np.int64
    np.testing.assert_array_equal(targets, inputs + 1)  # on a counting sequence the next token is one more
    np.testing.assert_array_equal(np.diff(inputs, axis=1), 1)


def test_an_epoch_predicts_every_token_of_the_grid_exactly_once():
    order = TrainingOrder(1000, 37, seed=0)
    assert order.windows_per_epoch == 27  # 27 × 37 = 999 targets: all tokens but the first
    _, targets = gather(COUNTING, order.windows(0, 27), 37)
    np.testing.assert_array_equal(np.sort(targets.reshape(-1)), np.arange(1, 1000))


def test_the_last_window_may_end_with_the_last_token_and_no_window_passes_it():
    inputs, targets = gather(COUNTING[:11], TrainingOrder(11, 10, seed=0).windows(0, 3), 10)
    assert targets[0, -1] == 10
    with pytest.raises(IndexError, match="11 tokens"):
        gather(COUNTING[:11], [1], 10)
    with pytest.raises(IndexError):
        gather(COUNTING[:11], [-1], 10)
    assert inputs.flags.writeable


def test_epochs_are_shuffled_each_in_its_own_way_and_seeds_differ():
    order = TrainingOrder(1000, 10, seed=0)
    n = order.windows_per_epoch
    first, second = order.windows(0, n), order.windows(n, n)
    assert (first != second).any()
    assert (first != np.sort(first)).any()
    np.testing.assert_array_equal(np.sort(first), np.sort(second))
    assert (first != TrainingOrder(1000, 10, seed=1).windows(0, n)).any()


def test_the_order_is_pinned_so_that_a_new_version_cannot_change_it_unnoticed():
    """The values are those of the first version: checkpoints and paired seeds rely on them."""
    assert (TrainingOrder(1000, 10, seed=0).windows(95, 8) // 10).tolist() == [72, 10, 49, 63, 94, 34, 3, 44]


@given(
    n_tokens=st.integers(12, 400),
    seq_len=st.integers(1, 11),
    seed=st.integers(0, 5),
    first=st.integers(0, 500),
    count=st.integers(0, 60),
    workers=st.integers(1, 4),
)
def test_any_worker_after_any_restart_reads_the_same_sequences(n_tokens, seq_len, seed, first, count, workers):
    whole = TrainingOrder(n_tokens, seq_len, seed).windows(0, first + count)[first:]
    resumed = TrainingOrder(n_tokens, seq_len, seed).windows(first, count)
    np.testing.assert_array_equal(resumed, whole)
    shares = [TrainingOrder(n_tokens, seq_len, seed) for _ in range(workers)]
    one_by_one = [shares[i % workers].windows(first + i, 1)[0] for i in range(count)]
    np.testing.assert_array_equal(one_by_one, whole)


def test_every_window_comes_about_equally_often_first():
    """4 windows, 2,000 seeds: each is first about 500 times; 5 standard deviations of a binomial are 97."""
    firsts = [int(TrainingOrder(41, 10, seed).windows(0, 1)[0]) // 10 for seed in range(2000)]
    np.testing.assert_allclose(np.bincount(firsts), 500, atol=97)


@given(n_tokens=st.integers(2, 500), seq_len=st.integers(1, 40), wanted=st.integers(1, 600))
def test_fixed_validation_windows_are_distinct_spread_and_as_many_as_wanted(n_tokens, seq_len, wanted):
    if n_tokens <= seq_len:
        with pytest.raises(ConfigError, match="and one window needs"):
            fixed_validation_windows(n_tokens, seq_len, wanted)
        return
    offsets = fixed_validation_windows(n_tokens, seq_len, wanted)
    available = (n_tokens - 1) // seq_len
    assert len(offsets) == min(available, -(-wanted // seq_len))
    assert (np.diff(offsets) >= seq_len).all()
    assert offsets[-1] + seq_len < n_tokens
    assert (np.diff(offsets) <= seq_len * -(-available // len(offsets))).all()


@given(n_tokens=st.integers(2, 300), seq_len=st.integers(1, 40), data=st.data())
def test_strided_windows_predict_every_token_but_the_first_exactly_once(n_tokens, seq_len, data):
    stride = data.draw(st.one_of(st.none(), st.integers(1, seq_len)))
    if n_tokens <= seq_len:
        with pytest.raises(ConfigError, match="whole split has"):
            strided_windows(n_tokens, seq_len, stride)
        return
    plan = strided_windows(n_tokens, seq_len, stride)
    _, targets = gather(COUNTING[:n_tokens], plan.offsets, seq_len)
    scored = [targets[i, seq_len - n :] for i, n in enumerate(plan.n_scored)]
    assert (plan.n_scored > 0).all()
    np.testing.assert_array_equal(np.concatenate(scored), np.arange(1, n_tokens))  # in order, none twice
    for i, n in enumerate(plan.n_scored[1:], start=1):
        assert seq_len - n + 1 >= plan.min_context, f"window {i} scores a target with too little context"


@pytest.mark.parametrize("stride", [0, -1])
def test_a_stride_that_never_moves_on_is_refused_as_such(stride):
    with pytest.raises(ConfigError, match=f"a stride of {stride} would never move on; choose 1 to seq_len = 10"):
        strided_windows(100, 10, stride)


def test_a_stride_beyond_the_window_is_refused():
    with pytest.raises(ConfigError, match="would skip tokens"):
        strided_windows(100, 10, 11)


def test_a_train_split_shorter_than_a_window_is_an_error_with_both_numbers():
    with pytest.raises(ConfigError, match=r"data.seq_len = 10: the train split has 10 tokens.* = 11;"):
        TrainingOrder(10, 10, seed=0)


@given(st.integers(1, 60), st.integers(1, 8), st.integers(1, 400), st.integers(1, 400))
def test_held_out_windows_predict_no_token_that_a_fixed_window_predicts(n_windows, seq_len, n_fixed, n_wanted):
    n_tokens = n_windows * seq_len + 1
    fixed = fixed_validation_windows(n_tokens, seq_len, n_fixed)
    held_out = held_out_windows(n_tokens, seq_len, n_fixed, n_wanted)
    assert not set(fixed) & set(held_out)
    assert len(set(held_out)) == min(n_windows - len(fixed), -(-n_wanted // seq_len))
    assert all(0 <= offset <= n_tokens - 1 - seq_len and offset % seq_len == 0 for offset in held_out)
