"""Constraints without `eval`: what they compute, what they refuse, and that nothing escapes them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackwise_ray.config.space.expressions import parse_expression
from stackwise_ray.core.errors import ConfigError

PLAIN: dict[str, Any] = {
    "model": {"d_model": 512, "n_heads": 8, "d_ff": 2048, "n_kv_heads": None, "family": "llama", "mixer": None},
    "training": {"lr": 3e-4, "activation_checkpointing": True, "schedule": {"warmup": 0.1}},
    "data": {"seq_len": 256},
    "flags": ["mixed_precision"],
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("model.d_model % model.n_heads == 0", True),
        ("model.d_model % 7 == 0", False),
        ("model.d_ff == 4 * model.d_model", True),
        ("1e-4 < training.lr <= 3e-4 < 1", True),
        ("1 < 2 > 3", False),
        ("model.family in ['llama', 'gpt2']", True),
        ("model.family not in ('llama', 'gpt2')", False),
        ("'mixed_precision' in flags", True),
        ("'act' in flags", False),
        ("not training.activation_checkpointing or model.d_model > 100", True),
        ("model.n_kv_heads == null or model.n_heads % model.n_kv_heads == 0", True),
        ("model.mixer.n_heads == null", True),
        ("-model.n_heads + 8 == +0", True),
        ("2 ** 10 // 3 == 341 and 7 / 2 == 3.5 and 7 - 2 != 4", True),
        ("training.activation_checkpointing == true", True),
        ("training.activation_checkpointing == 1", False),
        ("false or false", False),
    ],
)
def test_a_constraint_holds_or_not(text: str, value: bool) -> None:
    assert parse_expression(text).holds(PLAIN) is value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model.n_head == 8", "did you mean 'model.n_heads'?"),
        ("modl.d_model == 8", "but a trial has no such key"),
        ("model == 8", "is a group of fields; name one of its fields"),
        ("model.mixer == null", "is a group of fields"),
        ("__import__('os').system('true') == 0", "uses a call"),
        ("open('x')", "uses a call"),
        ("flags[0] == 'a'", "uses an index"),
        ("().__class__.__bases__ == 1", "not a dotted path"),
        ("(lambda: 1) == 1", "uses a lambda"),
        ("[x for x in flags] == 1", "uses a comprehension"),
        ("1 if true else 2", "uses a conditional"),
        ("f'{model.d_model}' == ''", "uses a format string"),
        ("model.d_model & 1 == 0", "uses a bit operation"),
        ("model.n_kv_heads is None", "write =="),
        ("(x := 1) == 1", "uses NamedExpr"),
        ("b'a' == b'a'", "constants are numbers"),
        ("1j == 1", "constants are numbers"),
        ("... == 1", "constants are numbers"),
        ("1e999 > 1", "not finite"),
        ("model.d_model ==", "is not an expression"),
        ("", "is not an expression"),
        ("a = 1", "is not an expression"),
        ("\0", "is not an expression"),
        ("(" * 300 + ")" * 300, "constraint"),
        ("1 < 2 and " * 60 + "true", "characters"),
        ("1+" * 200 + "1 == 1", "parts"),
    ],
)
def test_what_is_not_on_the_list_is_refused_before_it_is_evaluated(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match="constraint") as caught:
        parse_expression(text, place="design.require.0")
    assert words in str(caught.value)


def test_a_constraint_that_is_not_text_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"design.require.0 = true is a truth value; a constraint must be text"):
        parse_expression(True, place="design.require.0")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model.d_model % model.n_kv_heads == 0", "guard it: model.n_kv_heads == null or"),
        ("model.d_model", "a constraint must give true or false"),
        ("model.d_model and true", "true or false is needed there"),
        ("model.d_model / 0 == 1", "divides 512 by zero"),
        ("9 ** 9 ** 9 == 1", "largest exponent is 64"),
        ("9e99 ** 9 == 1", "above 1e300"),
        ("99999999 ** 64 == 1", "above 1e300"),
        ("(0 - 8) ** 0.5 == 1", "negative"),
        ("'a' * 9 == 'b'", "a number is needed there"),
        ("model.family < 'z'", "a number is needed there"),
        ("training.activation_checkpointing + 1 == 2", "a number is needed there"),
        ("1 in model.d_model", "a list is needed there"),
    ],
)
def test_a_type_that_does_not_fit_is_an_error_and_never_a_silent_no(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match="the constraint") as caught:
        parse_expression(text).holds(PLAIN)
    assert words in str(caught.value)


@given(st.text(max_size=80))
def test_any_text_is_true_or_false_or_is_refused_with_the_text(text: str) -> None:
    try:
        held = parse_expression(text).holds(PLAIN)
    except ConfigError as error:
        said = str(error)
    else:
        said = f"the constraint '{text}'"
        assert held is eval(text.strip(), {"__builtins__": {}, "true": True, "false": False, "null": None})
    assert said.startswith(f"the constraint '{text}'")


numbers = st.integers(-50, 50).map(str) | st.sampled_from(["model.d_model", "model.n_heads", "training.lr"])
terms = st.recursive(
    numbers,
    lambda below: st.tuples(below, st.sampled_from(["+", "-", "*", "/", "//", "%"]), below).map(
        lambda part: f"({part[0]} {part[1]} {part[2]})"
    ),
    max_leaves=6,
)
clauses = st.recursive(
    st.tuples(terms, st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), terms).map(" ".join),
    lambda below: (
        st.tuples(below, st.sampled_from(["and", "or"]), below).map(lambda part: f"({' '.join(part)})")
        | below.map(lambda part: f"not ({part})")
    ),
    max_leaves=4,
)


@given(clauses)
def test_arithmetic_and_logic_agree_with_python(text: str) -> None:
    class Model:
        d_model, n_heads = 512, 8

    class Training:
        lr = 3e-4

    try:
        expected: bool | None = eval(text, {"__builtins__": {}}, {"model": Model, "training": Training})
    except ZeroDivisionError:
        expected = None
    if len(text) > 500:
        return
    if expected is None:
        with pytest.raises(ConfigError, match="by zero"):
            parse_expression(text).holds(PLAIN)
    else:
        assert parse_expression(text).holds(PLAIN) is expected
