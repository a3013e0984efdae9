"""The Markov source: entropy rate by independent methods, the oracle as a floor, the leak check."""

import itertools

import numpy as np
import pytest

from stackwise_ray.config.trial import data_config
from stackwise_ray.core.errors import ConfigError, TrialError
from stackwise_ray.data import fixed_validation_windows, gather, leak_check, prepare
from stackwise_ray.data.corpora.markov import MarkovSource
from stackwise_ray.data.markov_chain import MarkovChain

SMALL = data_config(corpus="markov", seq_len=64, markov=MarkovSource(n_tokens=200_000, n_symbols=5))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare(SMALL, cache_directory=tmp_path_factory.mktemp("cache"))


def chain(order=2, n_symbols=3, concentration=0.5, seed=0):
    return MarkovChain(order=order, n_symbols=n_symbols, concentration=concentration, seed=seed)


def test_two_symbols_of_order_one_have_the_entropy_rate_of_the_closed_form():
    source = chain(order=1, n_symbols=2)
    to_1, to_0 = source.transitions[0, 1], source.transitions[1, 0]

    def binary_entropy(p):
        return -p * np.log(p) - (1 - p) * np.log(1 - p)

    by_hand = (to_0 * binary_entropy(to_1) + to_1 * binary_entropy(to_0)) / (to_0 + to_1)
    assert source.entropy_rate == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize(("order", "n_symbols"), [(1, 4), (2, 3), (3, 2)])
def test_the_entropy_rate_is_the_growth_of_block_entropies(order, n_symbols):
    """H(n+1) − H(n) over all blocks by brute force, with the stationary distribution by repeated squaring."""
    source = chain(order, n_symbols)
    contexts = list(itertools.product(range(n_symbols), repeat=order))
    step = np.zeros((len(contexts), len(contexts)))
    for i, context in enumerate(contexts):
        for symbol in range(n_symbols):
            step[i, contexts.index((*context[1:], symbol))] += source.transitions[i, symbol]
    share = np.linalg.matrix_power(step, 2**14)[0]
    blocks = {context: share[i] for i, context in enumerate(contexts)}
    entropies = []
    for _ in range(3):
        entropies.append(-sum(p * np.log(p) for p in blocks.values() if p > 0))
        blocks = {
            (*block, symbol): p * source.transitions[contexts.index(block[-order:]), symbol]
            for block, p in blocks.items()
            for symbol in range(n_symbols)
        }
    np.testing.assert_allclose(np.diff(entropies), source.entropy_rate, rtol=1e-9)


def test_the_entropy_rate_is_what_a_long_sample_costs():
    """Monte Carlo within 5 standard errors of 200 block means (1,000 symbols each are all but independent)."""
    source = chain(order=2, n_symbols=8)
    windows = source.sample(200_000, stream=1, seed=0).reshape(200, 1000)
    costs = source.losses(windows)[:, 2:].mean(axis=1)
    error = costs.std(ddof=1) / np.sqrt(len(costs))
    assert abs(costs.mean() - source.entropy_rate) < 5 * error
    assert error < 0.01


def test_iteration_and_elimination_find_the_same_stationary_distribution(monkeypatch):
    direct = chain(order=3, n_symbols=5)
    assert np.abs(direct._step(direct.stationary) - direct.stationary).sum() < 1e-14
    monkeypatch.setattr("stackwise_ray.data.markov_chain._DIRECT_CONTEXTS", 0)
    iterated = chain(order=3, n_symbols=5)
    # The iteration stops when a step moves less than 1e-12; with a spectral gap above 0.01 the error is below 1e-10.
    np.testing.assert_allclose(iterated.stationary, direct.stationary, atol=1e-10)


def test_a_source_of_two_halves_that_hardly_meet_is_refused_though_each_alone_settles():
    chain = MarkovChain(order=10, n_symbols=2, concentration=1.0, seed=0)  # above the size that is solved directly
    again = np.tile([1.0 - 1e-14, 1e-14], (chain.n_contexts, 1))
    again[1::2] = again[1::2, ::-1]  # whatever the last symbol was comes again
    chain.transitions = again
    with pytest.raises(ConfigError, match="almost never leaves some of its 1,024 contexts"):
        _ = chain.stationary


def test_a_sample_has_the_transition_frequencies_of_its_source():
    source = chain(order=2, n_symbols=3)
    sample = source.sample(100_000, stream=2, seed=0).astype(int)
    contexts = sample[:-2] * 3 + sample[1:-1]
    counts = np.zeros((9, 3))
    np.add.at(counts, (contexts, sample[2:]), 1)
    totals = counts.sum(axis=1, keepdims=True)
    deviation = np.sqrt(source.transitions * (1 - source.transitions) / totals)
    assert (np.abs(counts / totals - source.transitions) < 5 * deviation + 1e-9).all()


def test_streams_and_seeds_give_different_paths_and_the_same_ones_again():
    source = chain()
    np.testing.assert_array_equal(source.sample(500, stream=1, seed=0), source.sample(500, stream=1, seed=0))
    assert (source.sample(500, stream=1, seed=0) != source.sample(500, stream=2, seed=0)).any()
    assert (chain(seed=1).transitions != source.transitions).any()


def test_the_oracle_sums_out_the_symbols_that_a_window_does_not_show():
    """P(next | one symbol) by brute force over the unseen older symbol."""
    source = chain(order=2, n_symbols=3)
    for last, after in itertools.product(range(3), range(3)):
        both = [source.stationary[older * 3 + last] for older in range(3)]
        joint = [p * source.transitions[older * 3 + last, after] for older, p in enumerate(both)]
        expected = -np.log(sum(joint) / sum(both))
        assert source.losses(np.array([[last, after]]))[0, 0] == pytest.approx(expected, rel=1e-12)


def test_the_oracle_of_prepared_data_scores_the_windows_that_training_validates_on(prepared):
    offsets = fixed_validation_windows(prepared.splits["validation"].n_tokens, 64, 6400)
    losses = prepared.oracle_loss(offsets)
    assert losses.shape == (100,)
    error = losses.std(ddof=1) / 10
    assert abs(losses.mean() - prepared.entropy_rate) < 5 * error
    inputs, targets = gather(prepared.splits["validation"].tokens, offsets[:1], 64)
    symbols = np.concatenate([inputs[0], targets[0, -1:]]) - ord("a")
    source = chain(order=2, n_symbols=5, concentration=0.3)
    by_hand = [-np.log(source.transitions[symbols[i - 2] * 5 + symbols[i - 1], symbols[i]]) for i in range(2, 65)]
    first = source.losses(symbols[None, :2])[0, 0]
    assert losses[0] == pytest.approx((sum(by_hand) + first) / 64, rel=1e-12)


def count_model_losses(fit_on, inputs, targets, order, added=0.5):
    """Per-window loss of a count model of a given order with `added` pseudo-counts."""
    context_of = np.zeros(len(fit_on) - order, dtype=int)
    for i in range(order):
        context_of = context_of * 5 + fit_on[i : len(fit_on) - order + i]
    counts = np.full((5**order, 5), added)
    np.add.at(counts, (context_of, fit_on[order:]), 1)
    probabilities = counts / counts.sum(axis=1, keepdims=True)
    windows = np.concatenate([inputs, targets[:, -1:]], axis=1)
    context = np.zeros((len(windows), windows.shape[1] - order), dtype=int)
    for i in range(order):
        context = context * 5 + windows[:, i : windows.shape[1] - order + i]
    return -np.log(probabilities[context, windows[:, order:]]).mean(axis=1)


def oracle_losses(inputs, targets, order):
    """The oracle on the same predictions as `count_model_losses`."""
    windows = np.concatenate([inputs, targets[:, -1:]], axis=1)
    return chain(2, 5, 0.3).losses(windows)[:, order - 1 :].mean(axis=1)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_an_honest_count_model_of_any_order_never_beats_the_oracle(prepared, order):
    train = prepared.splits["train"].tokens.astype(int) - ord("a")
    inputs, targets = gather(prepared.splits["validation"].tokens, np.arange(300) * 64, 64)
    inputs, targets = inputs - ord("a"), targets - ord("a")
    gap = leak_check(count_model_losses(train, inputs, targets, order), oracle_losses(inputs, targets, order))
    if order == 2:
        # 25 contexts × 4 free probabilities cost 100/(2 n) = 0.00025 nats with n = 200,000: all but the floor itself
        assert abs(gap) < 0.002
    else:
        assert gap > 0


def test_a_model_that_saw_the_validation_windows_trips_the_leak_check(prepared):
    inputs, targets = gather(prepared.splits["validation"].tokens, np.arange(300) * 64, 64)
    inputs, targets = inputs - ord("a"), targets - ord("a")
    seen = np.concatenate([inputs.reshape(-1), targets[-1:, -1]])
    with pytest.raises(
        TrialError, match=r"leak: .* below the loss of the source itself.* standard errors over 300 windows"
    ):
        leak_check(count_model_losses(seen, inputs, targets, 6, added=0.01), oracle_losses(inputs, targets, 6))


def test_the_leak_check_trips_beyond_five_standard_errors_and_not_before():
    oracle = np.zeros(100)
    spread = np.tile([-1.0, 1.0], 50) * np.sqrt(0.99)  # standard deviation (ddof=1) 1, standard error 0.1
    assert leak_check(oracle + spread - 0.499, oracle) == pytest.approx(-0.499)
    with pytest.raises(TrialError, match="leak"):
        leak_check(oracle + spread - 0.501, oracle)
    assert leak_check(oracle, oracle) == 0.0


@pytest.mark.parametrize(("model", "oracle"), [([1.0], [1.0]), ([1.0, 2.0], [1.0]), ([1.0, float("nan")], [1.0, 1.0])])
def test_the_leak_check_refuses_losses_that_it_cannot_judge(model, oracle):
    with pytest.raises(ValueError):
        leak_check(model, oracle)


def test_train_validation_and_test_are_different_paths_of_the_right_lengths(prepared):
    lengths = {name: split.n_tokens for name, split in prepared.splits.items()}
    assert lengths == {"train": 200_000, "validation": 20_000, "test": 20_000}
    heads = {split.tokens[:100].tobytes() for split in prepared.splits.values()}
    assert len(heads) == 3
    assert prepared.splits["test"].n_words == prepared.splits["test"].n_bytes == 20_000


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (MarkovSource(n_symbols=1), "data.markov.n_symbols = 1"),
        (MarkovSource(n_symbols=95), "choose 2 to 94"),
        (MarkovSource(order=9), "transition probabilities"),
        (MarkovSource(n_tokens=5), "choose 10 or more"),
        (MarkovSource(n_symbols=3, concentration=0.002, seed=12), "a row of probabilities underflows"),
        (MarkovSource(n_symbols=3, concentration=0.002, seed=4), "never reached again"),
        (MarkovSource(n_symbols=3, concentration=0.002, seed=2), "almost never leaves"),
    ],
)
def test_a_source_that_has_no_known_floor_is_refused(source, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        prepare(data_config(corpus="markov", markov=source, seq_len=4), cache_directory=tmp_path)
    assert not list(tmp_path.rglob("*.bin"))


def test_the_floor_needs_one_token_a_symbol(tmp_path):
    with pytest.raises(ConfigError, match=r"data.tokenizer = words: .* choose bytes"):
        prepare(data_config(corpus="markov", tokenizer="words", markov=MarkovSource()), cache_directory=tmp_path)


def test_settings_of_a_source_without_that_corpus_are_refused(tmp_path):
    with pytest.raises(
        ConfigError,
        match=r"data.markov: has no effect in the corpus python_stdlib; choose the corpus m",
    ):
        prepare(data_config(corpus="python_stdlib", markov=MarkovSource()), cache_directory=tmp_path)
