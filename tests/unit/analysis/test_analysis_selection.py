"""Columns under other names, runs that are asked for, units, and what becomes of the runs that are left out."""

from __future__ import annotations

import math

import pytest

from analysis import AnalysisError, compare, fit_isoflop, fit_scaling_law, load_runs
from analysis.__main__ import app
from analysis.commands.selecting import _spread
from analysis.scaling.law_table import read_law_runs
from analysis.table.selection import drop_missing
from analysis.table.units import convert_units, parse_units


def table(tmp_path, text, **options):
    path = tmp_path / "runs.csv"
    path.write_text(text)
    return load_runs(path, **options)


def ladder(*, params=1.0, tokens=1.0, flops=None, other=lambda row: ""):
    """A law's table of 4 × 4 sizes in some units, with another column."""
    rows = []
    for number, (size, read) in enumerate([(n, d) for n in (1e7, 3e7, 1e8, 3e8) for d in (2e8, 6e8, 2e9, 6e9)]):
        loss = 1.7 + 406 / size**0.34 + 410 / read**0.28 + 0.001 * ((7 * number) % 5)
        spent = "" if flops is None else f",{6 * size * read / flops:.6g}"
        rows.append(f"{size / params:g},{read / tokens:g},{loss:.5f}{spent}{other(number)}")
    return "params,tokens,loss" + (",flops" if flops is not None else ""), rows


def ladder_text(**options):
    heading, rows = ladder(**options)
    return "\n".join([heading, *rows]) + "\n"


# ----------------------------------------------------------------------------------------------------- statuses

SIX = """model,run,score,{column}
a,0,1.0,{good}
a,1,1.2,{good}
a,2,1.1,{good}
b,0,2.0,{good}
b,1,2.3,{good}
b,2,9.9,{bad}
"""


@pytest.mark.parametrize(
    ("column", "good", "bad"),
    [
        ("State", "finished", "crashed"),
        ("state", "COMPLETE", "PRUNED"),
        ("status", "FINISHED", "RUNNING"),
        ("Status", "TERMINATED", "ERROR"),
        ("STATE", "COMPLETED", "PREEMPTED"),
        ("state", "TrialState.COMPLETE", "TrialState.FAIL"),
        ("run_status", "success", "killed"),
        ("trial_status", "TERMINATED", "ERROR"),
        ("JobState", "COMPLETED", "OUT_OF_MEMORY"),
        ("Trial Status", "Done", "timed out"),
    ],
)
def test_a_run_that_did_not_finish_is_a_missing_block_of_its_arm_whatever_the_columns_are_called(
    tmp_path, column, good, bad
):
    runs = table(tmp_path, SIX.format(column=column, good=good, bad=bad))
    found = compare(runs, "score", baseline="a", arm="model", block="run")
    assert found["b"].n == 2
    assert [(item.arm, item.block, item.reason) for item in found.missing] == [("b", "2", bad)]
    assert any("conditional on survival" in note for note in found["b"].notes)


def test_a_word_that_is_no_status_is_refused_unless_the_column_is_renamed(tmp_path):
    text = SIX.format(column="state", good="Ohio", bad="Utah")
    with pytest.raises(AnalysisError, match=r"column 'state' says how runs ended, .*'Ohio', 'Utah'"):
        table(tmp_path, text)
    runs = table(tmp_path, text, columns={"place": "state"})
    assert set(runs["place"]) == {"Ohio", "Utah"}


def test_a_run_whose_status_nobody_wrote_down_counts_and_is_named(tmp_path):
    runs = table(tmp_path, SIX.format(column="status", good="finished", bad=""))
    assert len(runs) == 6
    assert any("1 run has nothing in column 'status'" in note for note in compare_notes(runs))


def compare_notes(runs):
    return compare(runs, "score", baseline="a", arm="model", block="run").notes


def test_an_arm_or_block_that_was_lost_keeps_its_own_name(tmp_path):
    """1.10 is not 1.1: neither takes the other's place when its runs crashed."""
    lines = [f"{ver},{fold},{loss},{status}" for ver, fold, loss, status in (
        ("1.1", "2.1", 3.0, "finished"), ("1.1", "2.2", 3.1, "finished"),
        ("2.0", "2.1", 2.0, "finished"), ("2.0", "2.2", 2.15, "finished"),
        ("1.10", "2.1", 9.0, "crashed"), ("2.0", "2.20", 9.0, "crashed"),
    )]  # fmt: skip
    runs = table(tmp_path, "\n".join(["ver,fold,score,status", *lines]) + "\n")
    found = compare(runs, "score", baseline="2.0", arm="ver", block="fold")
    assert found["1.10"].n == 0
    assert ("1.10", "2.1", "crashed") in [(item.arm, item.block, item.reason) for item in found.missing]
    assert ("2.0", "2.20", "crashed") in [(item.arm, item.block, item.reason) for item in found.missing]


def test_what_was_left_out_is_in_every_later_message(tmp_path):
    text = "arm,seed,loss,status\n" + "".join(f"{arm},{seed},3.0,running\n" for arm in "ab" for seed in range(4))
    runs = table(tmp_path, text)
    words = "8 of 8 runs left out: status running; no run is left"
    with pytest.raises(AnalysisError, match=words):
        compare(runs, "loss", baseline="a")
    with pytest.raises(AnalysisError, match=words):
        compare(runs, "no_such", baseline="a")
    for fit in (fit_scaling_law, fit_isoflop):
        with pytest.raises(AnalysisError, match=words):
            fit(runs)
    half = table(tmp_path, text.replace("a,0,3.0,running", "a,0,3.0,done"))
    with pytest.raises(AnalysisError, match=r"'no_such' is not a column .*\(7 of 8 runs left out: status running\)"):
        compare(half, "no_such", baseline="a")


# ------------------------------------------------------------------------------------------------------ mapping


def test_a_rename_that_is_asked_for_wins_and_the_displaced_column_is_named(tmp_path):
    text = ladder_text(other=lambda number: f",{2.0 + number / 100}").replace("loss\n", "loss,val_loss\n", 1)
    plain = read_law_runs(table(tmp_path, text), ("params", "tokens"))
    assert any("the table has 'val_loss' as well" in note for note in plain.notes)
    runs = table(tmp_path, text, columns={"loss": "val_loss"})
    read = read_law_runs(runs, ("params", "tokens"))
    assert read.loss.tolist() == [2.0 + number / 100 for number in range(16)]
    assert "original_loss" in runs.columns
    assert (
        "loss is the column 'val_loss', as asked; the column 'loss' of the table is called 'original_loss'"
        in read.notes
    )


def test_columns_can_change_places(tmp_path):
    runs = table(tmp_path, "arm,seed,x,y\na,0,1,2\n", columns={"x": "y", "y": "x"})
    assert (runs["x"].tolist(), runs["y"].tolist()) == ([2], [1])


# ---------------------------------------------------------------------------------------------- where and missing

RUNS = """arm,seed,loss,lr,version
a,0,3.0,1e-3,1.1
a,1,3.1,1e-3,1.10
a,2,9.0,0.01,1.1
b,0,2.0,1e-3,1.1
b,1,,1e-3,1.1
b,2,2.4,0.010,1.1
"""


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ("seed < 2", [0, 1, 3, 4]),
        ("loss<=3.0", [0, 3, 5]),
        ("arm == b", [3, 4, 5]),
        ("arm != 'b'", [0, 1, 2]),
        ("version = 1.10", [1]),
        ("seed == 1.0", [1, 4]),
        ("lr > 5e-3", [2, 5]),
    ],
)
def test_runs_that_do_not_meet_a_condition_are_counted_as_left_out(tmp_path, condition, rows):
    runs = table(tmp_path, RUNS, where=[condition])
    assert runs.index.tolist() == rows
    assert len(runs.attrs["exclusions"]) == 6 - len(rows)


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("lr", 'write "COLUMN OP VALUE"'),
        ("learning == 3", "'learning' is not a column of the table"),
        ("arm == c", "no run meets 'arm == c': column 'arm' holds a, b"),
        ("loss < low", "'low' is no number"),
        ("arm < 3", "column 'arm' holds text where a number should be: 'a'"),
    ],
)
def test_a_condition_that_says_nothing_is_refused(tmp_path, condition, words):
    with pytest.raises(AnalysisError, match=words):
        table(tmp_path, RUNS, where=[condition])


def test_a_number_that_a_column_writes_in_two_ways_is_asked_for_as_a_number_or_as_a_text(tmp_path):
    text = "arm,seed,loss,lr\na,0,3.0,1e-3\na,1,3.1,0.001\na,2,3.3,0.01\nb,0,2.0,1e-3\nb,1,2.4,0.001\nb,2,2.5,0.02\n"
    with pytest.raises(AnalysisError, match=r"column 'lr' writes this number in 2 ways \(1e-3, 0.001\)"):
        table(tmp_path, text, where=["lr == 0.001"])
    assert table(tmp_path, text, where=["lr == '0.001'"]).index.tolist() == [1, 4]
    assert table(tmp_path, text, where=["lr >= 0.001", "lr <= 1e-3"]).index.tolist() == [0, 1, 3, 4]
    assert table(tmp_path, text, where=["lr == 1e-2"]).index.tolist() == [2]


def test_runs_chosen_by_their_result_are_missing_blocks_and_runs_chosen_by_a_setting_are_not(tmp_path):
    by_result = compare(table(tmp_path, RUNS, where=["loss < 5"]), "loss", baseline="a")
    assert ("a", "2", "not loss < 5, as asked") in [(item.arm, item.block, item.reason) for item in by_result.missing]
    by_setting = compare(table(tmp_path, RUNS, where=["seed != 2"]), "loss", baseline="a")
    assert [(item.arm, item.block) for item in by_setting.missing] == [("b", "1")]


def test_runs_without_a_value_are_left_out_on_request_and_stay_missing_blocks(tmp_path):
    runs = drop_missing(table(tmp_path, RUNS), ["loss", "no_such"])
    assert len(runs) == 5
    assert runs.attrs["exclusions"][0]["why"] == "no loss"
    assert [item.reason for item in compare(runs, "loss", baseline="a").missing] == ["no loss"]
    words = drop_missing(table(tmp_path, RUNS.replace("b,1,,", "b,1,NA,")), ["loss"])
    assert len(words) == 5
    assert len(drop_missing(table(tmp_path, RUNS.replace("b,", "None,")), ["arm"])) == 6, "a name is a name"


# -------------------------------------------------------------------------------------------------------- units


@pytest.mark.parametrize(
    ("units", "words"),
    [
        ({"params": 1e6}, r"column 'params' is 10 .*likely in millions; say so \(--units params=M, or params=1"),
        ({"params": 1e9}, "likely in billions"),
        ({"tokens": 1e9}, "column 'tokens' is 0.2 .*likely in billions"),
        ({"params": 1e3, "tokens": 1e7}, r"likely in thousands; say so \(--units tokens=K, or"),
        ({"params": 1e3, "flops": 1.0}, r"flops / \(params · tokens\) is 6e\+03 .*in thousands"),
        ({"tokens": 1e3, "flops": 1.0}, "tokens"),
        ({"flops": 8.64e19}, "likely flops in PFdays"),
        ({"flops": 1e12}, "likely flops in TFLOPs"),
    ],
)
def test_sizes_that_can_be_no_counts_are_refused_with_the_likely_unit(tmp_path, units, words):
    runs = table(tmp_path, ladder_text(**units))
    with pytest.raises(AnalysisError, match=words):
        read_law_runs(runs, ("params", "tokens"), ("flops",))


def test_sizes_beyond_every_model_are_not_taken_for_billions(tmp_path):
    text = "params,tokens,loss\n0.5,1e9,4\n40,1e9,3\n{most},1e10,2\n"
    for most, unit in (("900", "billions"), ("9000", "millions")):
        with pytest.raises(AnalysisError, match=f"likely in {unit}"):
            read_law_runs(table(tmp_path, text.format(most=most)), ("params", "tokens"))


def test_the_fewest_tokens_per_parameter_are_one_in_a_thousand(tmp_path):
    read_law_runs(table(tmp_path, "params,tokens,loss\n1e9,1.1e6,3\n1e9,2e9,2\n"), ("params", "tokens"))
    with pytest.raises(AnalysisError, match="fewer than one per thousand parameters"):
        read_law_runs(table(tmp_path, "params,tokens,loss\n1e9,9e5,3\n1e9,2e9,2\n"), ("params", "tokens"))


def test_units_that_are_said_give_the_numbers_of_the_table_in_counts(tmp_path):
    there = read_law_runs(table(tmp_path, ladder_text(flops=1.0)), ("params", "tokens"), ("flops",))
    told = table(
        tmp_path,
        ladder_text(params=1e6, tokens=1e9, flops=8.64e19),
        units={"params": "M", "tokens": "B", "flops": "PFdays", "loss": "bits"},
    )
    read = read_law_runs(told, ("params", "tokens"), ("flops",))
    for name in ("params", "tokens", "flops"):
        assert read.columns[name] == pytest.approx(there.columns[name], rel=1e-5)
    assert read.loss == pytest.approx(there.loss * math.log(2))
    assert "params converted from M to counts (× 1e+06)" in read.notes
    assert "loss converted from bits to nats (× 0.693147)" in read.notes


def test_a_size_that_is_said_to_be_meant_is_taken_as_it_is(tmp_path):
    runs = table(tmp_path, ladder_text(params=1e6), units={"params": "1"})
    read = read_law_runs(runs, ("params", "tokens"))
    assert read.columns["params"][0] == 10
    assert "params is in counts, as said" in read.notes


def test_total_params_narrow_what_flops_may_be(tmp_path):
    text = ladder_text(flops=1 / 30)
    read_law_runs(table(tmp_path, text), ("params", "tokens"), ("flops",))
    total = table(tmp_path, text)
    with pytest.raises(AnalysisError, match=r"flops / \(total params · tokens\) is 180"):
        read_law_runs(total.assign(params_total=total["params"]), ("params", "tokens"), ("flops",))


@pytest.mark.parametrize(
    ("units", "words"),
    [
        ({"params": "lots"}, "params = lots is no unit of it"),
        ({"loss": "M"}, "loss = M is no unit of it"),
        ({"size": "M"}, "'size' is not a column"),
    ],
)
def test_a_unit_that_is_none_is_refused(tmp_path, units, words):
    with pytest.raises(AnalysisError, match=words):
        convert_units(table(tmp_path, ladder_text()), units)


def test_units_are_written_apart_or_in_one_word():
    assert parse_units(["params=M tokens=B", "loss=bits"]) == {"params": "M", "tokens": "B", "loss": "bits"}
    assert _spread(["a.csv", "--units", "params=M", "tokens=B", "b.csv"])[1:5] == [
        "--units",
        "params=M",
        "--units",
        "tokens=B",
    ]
    for words in (["params"], ["params=M", "params=B"]):
        with pytest.raises(AnalysisError, match="--units"):
            parse_units(words)


# --------------------------------------------------------------------------------------------- runs of the same sizes


def test_runs_that_differ_in_any_column_are_no_copies_and_a_law_wants_the_best_of_settings(tmp_path):
    heading, rows = ladder(other=lambda number: ",0.001")
    twice = [*rows, *(row.replace(",0.001", ",0.003") for row in rows)]
    read = read_law_runs(table(tmp_path, "\n".join([f"{heading},lr", *twice])), ("params", "tokens"))
    assert len(read) == 32
    (note,) = (note for note in read.notes if "differ in lr (2 values)" in note)
    assert "a law describes the best of them" in note
    with pytest.raises(AnalysisError, match="duplicated runs: row 0, row 16 have the same loss, tokens, params, lr"):
        read_law_runs(table(tmp_path, "\n".join([f"{heading},lr", *rows, rows[0]])), ("params", "tokens"))


def test_a_refusal_of_a_command_says_which_runs_are_not_in_its_table(tmp_path):
    rows = [
        f"{arm},{seed},{item},{(7 * seed + 3 * item) % 5},{'crashed' if (arm, seed) == ('b', 2) else 'done'}"
        for arm in "ab"
        for seed in range(4)
        for item in range(3)
    ]
    (tmp_path / "runs.csv").write_text("arm,seed,item,score,state\n" + "\n".join(rows))
    words = ["hierarchical", str(tmp_path / "runs.csv"), "--level", "seed", "--baseline", "a"]
    with pytest.raises(AnalysisError, match=r"cannot be subtracted \(3 of 24 runs left out: status crashed\)"):
        app(words, standalone_mode=False)
    (tmp_path / "runs.csv").write_text("arm,seed,item,score\na,0,0,1\n")
    with pytest.raises(AnalysisError) as refused:
        app(words, standalone_mode=False)
    assert "left out" not in str(refused.value)


def test_every_command_on_a_table_takes_the_same_options():
    import typer

    commands = typer.main.get_command(app).commands
    for name in ("compare", "sequential", "rank", "aggregate", "hierarchical", "fit", "isoflop"):
        options = {option for parameter in commands[name].params for option in parameter.opts}
        assert {"--map", "--where", "--drop-missing", "--units"} <= options, name
