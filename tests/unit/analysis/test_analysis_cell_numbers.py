"""Text as numbers and as names: what every role makes of a cell, and what it refuses."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from analysis import AnalysisError, compare, load_runs
from analysis.table.cell_numbers import numbers
from analysis.table.typed_columns import names_of, numbers_of


def table(tmp_path, text):
    path = tmp_path / "runs.csv"
    path.write_text(text, newline="", encoding="utf-8")
    return load_runs(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.5e9", 1.5e9),
        ("300B", 3e11),
        ("2.1B", 2.1e9),
        ("70M", 7e7),
        ("-12.5k", -12500.0),
        ("+.5", 0.5),
        ("1,048,576", 1048576.0),
        ("1,048.5", 1048.5),
        ("Infinity", math.inf),
        ("-inf", -math.inf),
        ("1.7976931348623157e308", math.inf),
        (" 7 ", 7.0),
    ],
)
def test_a_cell_is_the_number_that_it_says(text, value):
    assert numbers([text]) == [value]


@pytest.mark.parametrize("text", ["", "NaN", "nan", "NA", "null", "None", "n/a"])
def test_words_for_nothing_are_no_number(text):
    assert math.isnan(numbers([text])[0])


@pytest.mark.parametrize("text", ["n/m", "1_000", "45%", "3,192", "70m", "1.2.3", "0x10", "1e", "٣", "1,04,857", "--1"])
def test_what_two_people_read_differently_is_refused(text):
    assert numbers([text, "1.5"]) == [None, 1.5]


def test_a_single_group_of_thousands_is_read_in_counts_and_where_another_cell_shows_what_it_is():
    assert numbers(["512,000"], counts=True) == [512000.0]
    assert numbers(["512,000", "1,048,576"]) == [512000.0, 1048576.0]


def test_decimal_commas_are_read_where_some_cell_can_mean_nothing_else():
    assert numbers(["3,19", "3,201", "4"]) == [3.19, 3.201, 4.0]
    assert numbers(["0,192", "0,201"]) == [0.192, 0.201]
    assert numbers(["3,19", "3.201"]) == [None, 3.201]


def test_a_column_of_numbers_is_numeric_and_keeps_how_they_were_written(tmp_path):
    runs = table(tmp_path, "arm,seed,loss,lr,note\na,007,3.10,1e-3,x\nb,008,3.2,3e-3,\n")
    assert [str(runs[name].dtype) for name in ("seed", "loss", "lr")] == ["int64", "float64", "float64"]
    assert runs["seed"].tolist() == [7, 8]
    assert names_of(runs, "seed").tolist() == ["007", "008"]
    assert names_of(runs, "lr").tolist() == ["1e-3", "3e-3"]
    assert names_of(runs.sort_values("loss", ascending=False).reset_index(drop=True), "seed").tolist() == ["008", "007"]


@pytest.mark.parametrize(
    "names", [("1.1", "1.10"), ("7", "007"), ("0e12345", "0e98765"), ("1e3", "1000"), ("1", "1.0")]
)
def test_two_texts_of_one_number_stay_two_names(tmp_path, names):
    rows = [
        f"{name},{seed},{3 + 0.1 * which + 0.01 * seed**2}" for which, name in enumerate(names) for seed in range(3)
    ]
    runs = table(tmp_path, "version,seed,loss\n" + "\n".join(rows) + "\n")
    found = compare(runs, "loss", baseline=names[0], arm="version")
    assert list(found.verdicts) == [names[1]]
    assert found[names[1]].n == 3


@pytest.mark.parametrize("name", ["NA", "None", "null", "true", "inf", "nan", "1_0", "12345678901234567890", "0x1F"])
def test_an_arm_is_called_what_the_table_calls_it(tmp_path, name):
    runs = table(tmp_path, f"model,seed,loss\n{name},0,3.1\n{name},1,3.3\nbase,0,3.0\nbase,1,3.1\n")
    assert list(compare(runs, "loss", baseline="base", arm="model").verdicts) == [name]


def test_seeds_that_pandas_wrote_as_floats_pair_with_whole_ones(tmp_path):
    runs = table(tmp_path, "arm,seed,loss\na,0.0,3.1\na,1.0,3.3\nb,0.0,3.0\nb,1.0,3.1\n")
    assert compare(runs, "loss", baseline="a")["b"].blocks == ("0", "1")


def test_a_cell_that_is_no_number_is_named_by_row_and_column_with_what_to_write(tmp_path):
    runs = table(tmp_path, 'arm,seed,loss\na,0,"3,192"\nb,0,"3,201"\n')
    with pytest.raises(AnalysisError, match=r"column 'loss' .*'3,192' \(row 0, and 1 more\); its comma may be"):
        numbers_of(runs, "loss")
    runs = table(tmp_path, "arm,seed,accuracy\na,0,45%\nb,0,46%\n")
    with pytest.raises(AnalysisError, match=r"'45%' \(arm 'a', block 0, row 0, and 1 more\); write the share"):
        compare(runs, "accuracy", baseline="a")


def test_budgets_with_commas_and_suffixes_are_checked_as_the_numbers_that_they_are(tmp_path):
    text = 'arm,seed,loss,tokens\na,0,3.0,"1,048,576"\na,1,3.2,1M\nb,0,3.1,1.048576e6\nb,1,3.1,1000k\n'
    assert compare(table(tmp_path, text), "loss", baseline="a", equal="tokens").budgets == "tokens"
    with pytest.raises(AnalysisError, match="tokens differ by more than 1%"):
        compare(table(tmp_path, text.replace("1000k", "1100k")), "loss", baseline="a", equal="tokens")
    with pytest.raises(AnalysisError, match="column 'tokens' holds text where a number should be: 'all'"):
        compare(table(tmp_path, text.replace("1000k", "all")), "loss", baseline="a", equal="tokens")


def test_tables_of_a_notebook_with_nullable_columns_are_read_as_others_are():
    runs = pd.DataFrame({"arm": list("aabb"), "seed": [0, 1, 0, 1], "loss": [3.0, 3.1, 2.9, None]})
    runs = runs.convert_dtypes()
    found = compare(runs, "loss", baseline="a")
    assert [item.reason for item in found.missing] == ["loss is nan"]
    with pytest.raises(AnalysisError, match="baseline = 7 is no text, and arms are names: write '7'"):
        compare(runs.assign(arm=[7, 7, 8, 8]), "loss", baseline=7)
