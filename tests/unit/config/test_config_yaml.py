"""YAML as this program reads it: numbers, words that are not truth values, duplicate keys, values of words."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stackwise_ray.config.reading.yaml import dump_yaml, load_yaml, parse_value, parse_yaml
from stackwise_ray.core.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4),
        ("1E6", 1e6),
        ("-2.5e+3", -2500.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("1_000", 1000),
        ("010", 10),
        ("0x1f", 31),
        ("-7", -7),
        ("~", None),
        ("true", True),
    ],
)
def test_numbers_and_constants_are_read_as_written(text: str, value: object) -> None:
    parsed = parse_yaml(f"key: {text}")["key"]
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize("text", ["yes", "no", "on", "off", "1:30", "2020-01-01", '"3e-4"', "'1'", "e5", "1e", "."])
def test_what_only_resembles_a_number_or_a_truth_value_is_text(text: str) -> None:
    assert parse_yaml(f"key: {text}")["key"] == text.strip("\"'")


def test_a_key_is_text_whatever_it_looks_like() -> None:
    assert parse_yaml("{1: a, true: b, null: c}") == {"1": "a", "true": "b", "null": "c"}


def test_a_duplicate_key_is_refused_with_file_and_both_lines(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("design:\n  arms:\n    a: {}\n    b: {}\n    a: {}\n")
    with pytest.raises(ConfigError, match=r"x\.yaml:5: the key 'a' is given twice, in lines 3 and 5"):
        load_yaml(file)


def test_a_merge_key_gives_defaults_that_the_mapping_overrides() -> None:
    assert parse_yaml("base: &b {x: 1, y: 2}\nmine:\n  y: 3\n  <<: *b\n")["mine"] == {"x": 1, "y": 3}


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.getcwd []", "!!python/name:os.getcwd"])
def test_a_tag_that_builds_python_objects_is_refused(tag: str) -> None:
    with pytest.raises(ConfigError):
        parse_yaml(f"key: {tag}")


def test_missing_files_folders_and_other_documents_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: no such file"):
        load_yaml(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="is a folder"):
        load_yaml(tmp_path)
    for content, problem in ((b"- 1\n", "contains a list"), (b"\xff\xfe", "not UTF-8"), (b"a: [1\n", "column")):
        file = tmp_path / "x.yaml"
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=problem):
            load_yaml(file)


def test_an_empty_file_is_an_empty_mapping(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("# nothing\n")
    assert load_yaml(tmp_path / "x.yaml") == {}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4),
        ('"3e-4"', "3e-4"),
        ("null", None),
        ("[1, 2.5, a]", [1, 2.5, "a"]),
        ("{flops: 1e12}", {"flops": 1e12}),
        ("*.txt", "*.txt"),
        ("a: b", "a: b"),
        ("notes #1", "notes #1"),
        ("- x", "- x"),
        ("@home", "@home"),
        ("C:\\data", "C:\\data"),
        ("bpe:4000", "bpe:4000"),
    ],
)
def test_the_value_of_a_word_is_a_number_a_list_a_mapping_or_the_text_as_it_stands(text: str, value: object) -> None:
    assert parse_value(text) == value


def test_an_unclosed_bracket_in_a_word_is_refused() -> None:
    with pytest.raises(ConfigError):
        parse_value("[1, 2")


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(), below, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(plain)
def test_dumped_data_is_read_back_equal(value: object) -> None:
    again = parse_yaml(dump_yaml(value))
    assert again == value
    assert repr(again) == repr(value)


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_word_that_opens_no_bracket_and_no_quote_is_a_number_a_constant_or_its_own_text(text: str) -> None:
    word = text.strip()
    assume(word[:1] not in ("[", "{", '"', "'"))
    value = parse_value(text)
    assert value is None or isinstance(value, (bool, int, float)) or value == word


@settings(deadline=None)
@given(st.sampled_from("[{\"'"), st.text("[]{}\"',: 1a\n\t\x00", max_size=8))
def test_a_word_that_opens_a_bracket_or_a_quote_is_what_it_would_be_in_a_file(opening: str, rest: str) -> None:
    def outcome(read: Callable[[str], object], text: str) -> str:
        try:
            return repr(read(text))
        except ConfigError as error:
            return f"refused: {error}"

    assert outcome(parse_value, opening + rest) == outcome(parse_yaml, (opening + rest).strip())


@settings(deadline=None)
@given(st.text(max_size=60) | st.text("[]{}\"',:-#&*! 1a\n", max_size=12))
def test_any_text_is_plain_data_that_is_written_and_read_back_equal_or_is_refused_with_its_line(text: str) -> None:
    said = "text:1: "
    try:
        value = parse_yaml(text)
    except ConfigError as error:
        said = str(error)
    else:
        assert repr(parse_yaml(dump_yaml(value))) == repr(value)
    assert re.match(r"text:\d+: |not readable as YAML: ", said)


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_survives_a_word_to_the_bit(value: float) -> None:
    parsed = parse_value(repr(value))
    assert parsed == value
    assert isinstance(parsed, float)
