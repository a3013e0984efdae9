"""Associative recall: the sequences ask what they should, the floor is exact, recall and chance are told apart."""

from collections import Counter
from dataclasses import replace
from math import lgamma, log

import numpy as np
import pytest

from stackwise_ray.config.trial import data_config
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.data import fixed_validation_windows, gather, leak_check, prepare
from stackwise_ray.data.corpora.associative_recall import KEYS, VALUES, AssociativeRecallCorpus, AssociativeRecallSource

SOURCE = AssociativeRecallSource(n_pairs=5, n_queries=3, n_keys=7, n_values=4, n_tokens=40_000)
CONFIG = data_config(corpus="associative_recall", seq_len=32, associative_recall=SOURCE)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare(CONFIG, cache_directory=tmp_path_factory.mktemp("cache"))


def sequences(source=SOURCE, split="train"):
    corpus = AssociativeRecallCorpus(replace(CONFIG, associative_recall=source))
    (text,) = (document.text for document in corpus.documents() if document.split == split)
    return [text[i : i + 16] for i in range(0, len(text), 16)]


def test_every_answer_is_the_value_that_its_key_was_given_and_no_key_comes_twice():
    for sequence in sequences():
        pairs, queries = sequence[:10], sequence[10:]
        values = dict(zip(pairs[::2], pairs[1::2], strict=True))
        assert len(values) == 5
        assert len(set(queries[::2])) == 3
        assert [values[key] for key in queries[::2]] == list(queries[1::2])


def test_keys_and_values_come_from_their_own_alphabets_evenly():
    """Shares of 10,000 and more draws: within 5 standard errors of a uniform choice."""
    text = "".join(sequences())
    for characters, alphabet, n in ((text[::2], KEYS, 7), (text[1::2], VALUES, 4)):
        counts = Counter(characters)
        assert set(counts) == set(alphabet[:n])
        error = np.sqrt((1 - 1 / n) / n / len(characters))
        # Draws inside a sequence depend on each other; a query repeats its pair, which at most doubles the variance.
        assert all(abs(count / len(characters) - 1 / n) < 5 * np.sqrt(2) * error for count in counts.values())


def test_any_pair_is_asked_for_at_any_query():
    """Every (query, pair) cell has its share of 1/5: 2,500 sequences, within 5 standard errors of a binomial share."""
    asked = np.zeros((3, 5))
    drawn = sequences()
    for sequence in drawn:
        for query, key in enumerate(sequence[10::2]):
            asked[query, sequence[:10:2].index(key)] += 1
    assert np.abs(asked / len(drawn) - 0.2).max() < 5 * np.sqrt(0.2 * 0.8 / len(drawn))


def test_the_text_depends_on_every_number_of_the_source_and_on_nothing_else():
    assert sequences() == sequences()
    assert sequences()[:200] != sequences(split="validation")
    assert sequences() != sequences(replace(SOURCE, seed=1))
    assert len(sequences()) == 2500
    assert len(sequences(split="test")) == 250


def test_the_floor_is_the_entropy_of_a_sequence(prepared):
    """Counted another way: equally likely keys 7!/2!, values 4^5, orders of the queries 5!/2!; answers cost nothing."""
    bits = (lgamma(8) - lgamma(3)) + 5 * log(4) + (lgamma(6) - lgamma(3))
    assert prepared.entropy_rate == pytest.approx(bits / 16, rel=1e-12)
    losses = prepared.oracle_loss([0, 32, 48])
    np.testing.assert_allclose(losses, bits / 16, rtol=1e-12)
    with pytest.raises(ValueError, match="multiples of 16"):
        prepared.oracle_loss([0, 8])


def test_answers_are_the_targets_that_repeat_a_pair_of_the_window(prepared):
    offsets = fixed_validation_windows(prepared.splits["validation"].n_tokens, 32, 2000)
    asked = prepared.answers(offsets)
    inputs, targets = gather(prepared.splits["validation"].tokens, offsets, 32)
    assert asked.shape == targets.shape
    assert asked.sum(axis=1).tolist() == [6] * len(offsets)
    for window, marks, following in zip(inputs, asked, targets, strict=True):
        for place in np.flatnonzero(marks):
            start = place // 16 * 16
            (given,) = np.flatnonzero(window[start : start + 10] == window[place])
            assert window[start + given + 1] == following[place]


def test_a_model_that_sees_the_answers_is_a_leak_and_one_that_recalls_is_none(prepared):
    offsets = fixed_validation_windows(prepared.splits["validation"].n_tokens, 32, 4000)
    oracle = prepared.oracle_loss(offsets)
    noise = np.random.RandomState(0).normal(0, 0.01, len(oracle))
    assert leak_check(oracle + 0.01 + noise, oracle) == pytest.approx(0.01, abs=0.005)
    with pytest.raises(Exception, match="leak"):
        leak_check(oracle - 0.1 + noise, oracle)


def test_the_facts_tell_chance(prepared):
    facts = prepared.describe()["facts"]
    assert facts["chance_accuracy"] == 0.25
    assert facts["chance_accuracy_of_the_values_left"] == pytest.approx((1 / 5 + 1 / 4 + 1 / 3) / 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_queries": 6}, r"data.associative_recall.n_queries = 6: .* choose 1 to 5"),
        ({"n_keys": 4}, r"data.associative_recall.n_keys = 4: .* choose 5 to 52"),
        ({"n_keys": 53}, r"data.associative_recall.n_keys = 53: .* choose 5 to 52"),
        ({"n_pairs": 53}, r"data.associative_recall.n_pairs = 53: .* choose 1 to 52"),
        ({"n_values": 43}, r"data.associative_recall.n_values = 43: .* choose 2 to 42"),
        ({"n_tokens": 319}, r"data.associative_recall.n_tokens = 319 is too few.* choose 320 or more"),
        ({"n_pairs": 6}, r"data.seq_len = 32 is not a multiple .* = 18 tokens.*choose 18"),
    ],
)
def test_a_source_that_cannot_be_drawn_is_refused_with_what_to_choose(changes, message):
    with pytest.raises(ConfigError, match=message):
        AssociativeRecallCorpus(replace(CONFIG, associative_recall=replace(SOURCE, **changes)))
