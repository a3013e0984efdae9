"""The identity of a trial: stable, complete, and the same for the same trial however it was written."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from stackwise_ray.config.identity import canonical, canonical_json, trial_id
from stackwise_ray.config.loading import load_trial
from stackwise_ray.config.trial.editing import edit, to_plain
from stackwise_ray.config.trial.paths import components_at, trial_paths
from stackwise_ray.core.registries import COMPONENTS, CORPORA, REGIMES

WORDS = ["model=decoder/gpt2_family/tiny", "data=markov"]
TRIAL = load_trial(WORDS)


def test_the_canonical_form_and_the_id_have_known_answers() -> None:
    """If they change, the finished trials of every user are trained again."""
    plain = {"b": 1.0, "a": [1, None, True], "c": {"é": 3e-4}}
    assert canonical(plain) == '{"a":[1,null,true],"b":1.0,"c":{"\\u00e9":0.0003}}'
    text = hashlib.sha256(f"{canonical_json(load_trial(WORDS))}\ndata".encode()).hexdigest()
    assert trial_id(load_trial(WORDS), "data") == text[:16]


def test_the_id_does_not_depend_on_the_process() -> None:
    program = (
        "from stackwise_ray.config.loading import load_trial; from stackwise_ray.config.identity import trial_id;"
        f"print(trial_id(load_trial({WORDS!r}), 'data'))"
    )
    ids = {
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert ids == {trial_id(load_trial(WORDS), "data")}


def test_a_default_a_preset_and_an_override_that_say_the_same_are_one_trial() -> None:
    plain = load_trial(WORDS)
    assert trial_id(load_trial([*WORDS, "training.lr=3e-3", "training.accumulation=1"]), "d") == trial_id(plain, "d")
    assert trial_id(load_trial([*WORDS, "training.budget={tokens: 1000000}"]), "d") == trial_id(plain, "d")
    assert trial_id(edit(plain, {"training.gradient_clip": 1}), "d") == trial_id(plain, "d")


def test_every_field_and_the_data_enter_the_id() -> None:
    trial = load_trial(WORDS)
    own = {"text_files": ["data.path=x"], "hub": ["data.path=x"], "markov": ["data.markov={}"]}
    own["associative_recall"] = ["data.associative_recall={}", "data.seq_len=32"]
    corpora = [[f"data.corpus={name}", *own.get(name, [])] for name in CORPORA.names()]
    regimes = [
        [f"training.regime={name}", *(f"training.{key}={value}" for key, value in regime.example.items())]
        for name, regime in REGIMES.items()
    ]
    components = [[f"model.components.{name}={{}}"] for name in COMPONENTS.names()]
    text = "".join(canonical_json(load_trial([WORDS[0], *words])) for words in (*corpora, *regimes, *components))
    for path in trial_paths():
        if not components_at(path) and not path.startswith(("model.mixer.", "model.channel_mixer.")):
            assert f'"{path.rpartition(".")[2]}":' in text
    ids = {trial_id(trial, "one"), trial_id(trial, "two"), trial_id(dataclasses.replace(trial, seed=1), "one")}
    assert len(ids) == 3
    assert all(len(name) == 16 and set(name) <= set("0123456789abcdef") for name in ids)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(), below, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), plain, max_size=4))
def test_the_canonical_form_forgets_the_order_of_keys_and_nothing_else(value: dict[str, Any]) -> None:
    text = canonical(value)
    assert canonical(dict(reversed(list(value.items())))) == text
    assert json.loads(text) == value
    assert text.isascii()


@given(st.floats(1e-12, 1e6), st.floats(1e-12, 1e6))
def test_learning_rates_that_differ_in_one_bit_are_two_trials(one: float, other: float) -> None:
    same = canonical_json(edit(TRIAL, {"training.lr": one})) == canonical_json(edit(TRIAL, {"training.lr": other}))
    assert same is (one == other)


def test_the_plain_form_is_json_data() -> None:
    assert json.loads(canonical_json(load_trial(WORDS))) == to_plain(load_trial(WORDS))
