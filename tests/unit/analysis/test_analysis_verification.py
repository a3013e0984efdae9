"""`python -m analysis verify`: a report that no longer says what its sweep says is found, and what differs is named."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import pytest
from command_line import run
from synthetic_sweeps import JournalBuilder, final_metrics

from analysis import AnalysisError, write_report
from analysis.report.digests import of_file
from analysis.report.verification import verify_report


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small sweep with its report."""
    journal = JournalBuilder(tmp_path_factory.mktemp("verified") / "small")
    for arm in ("a", "b"):
        for seed in range(3):
            journal.trial(arm, seed, final_metrics(2.0 + 0.1 * seed + (arm == "b") * (0.3 + 0.01 * seed)))
    journal.meta(sweep={"name": "small", "design": {"baseline": "a"}, "analysis": [{"compare": {"baseline": "a"}}]})
    folder = journal.close()
    write_report(folder)
    return folder


@pytest.fixture
def reported(original: Path, tmp_path: Path) -> Path:
    """A copy of it to be tampered with."""
    return Path(shutil.copytree(original, tmp_path / "small"))


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_a_report_that_nobody_touched_stands_whatever_the_database_did_for_itself(reported):
    with sqlite3.connect(reported / "journal.sqlite") as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.commit()
        connection.execute("VACUUM")
    found = verify_report(reported)
    assert found.differences == ()
    assert found.inputs >= 13  # six trials with an attempt each, and the sweep's file
    assert found.outputs >= 10


def test_a_number_changed_in_the_text_is_named_with_what_is_recomputed(reported):
    replace(reported / "report" / "report.md", "| 2.1000 |", "| 2.0000 |")
    found = verify_report(reported).differences
    assert "output report.md: changed since the report was written" in found
    line = next(line for line in found if line.startswith("report.md, line"))
    assert "2.0000" in line
    assert "is not what is recomputed" in line
    assert "2.1000" in line


def test_a_number_changed_in_the_page_or_in_a_file_of_results_is_named(reported):
    replace(reported / "report" / "report.html", ">2.1000<", ">2.0000<")
    path = reported / "report" / "comparisons" / "comparison_b_vs_a.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["comparisons"][0]["result"]["p"] = 0.5
    path.write_text(json.dumps(content), encoding="utf-8")
    found = verify_report(reported).differences
    assert any(line.startswith("report.html, line") for line in found)
    assert any("comparisons[0].result.p is 0.5, recomputed " in line for line in found)


def test_a_value_that_was_taken_out_is_named_where_null_is_recomputed_and_so_are_bytes_alone(reported):
    path = reported / "report" / "comparisons" / "comparison_b_vs_a.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["comparisons"][0]["margin"] is None
    del content["comparisons"][0]["margin"]
    path.write_text(json.dumps(content), encoding="utf-8")
    assert any(
        line.endswith("comparisons[0].margin is absent, recomputed null")
        for line in verify_report(reported).differences
    )
    path = reported / "report" / "results" / "a_results.json"
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    found = verify_report(reported).differences
    assert "results/a_results.json: its bytes are not those that are recomputed" in found


def test_a_file_that_the_report_would_not_have_now_is_named(reported):
    digests = reported / "report" / "digests.json"
    content = json.loads(digests.read_text(encoding="utf-8"))
    extra = reported / "report" / "analyses" / "gone.json"
    extra.parent.mkdir()
    extra.write_text("{}")
    content["outputs"]["analyses/gone.json"] = of_file(extra)
    digests.write_text(json.dumps(content))
    assert verify_report(reported).differences == ("analyses/gone.json: in the report, not recomputed",)


def test_a_file_that_the_report_would_have_now_and_has_not_is_named(reported):
    digests = reported / "report" / "digests.json"
    content = json.loads(digests.read_text(encoding="utf-8"))
    del content["outputs"]["results/a_results.json"]
    digests.write_text(json.dumps(content))
    (reported / "report" / "results" / "a_results.json").unlink()
    assert verify_report(reported).differences == ("results/a_results.json: recomputed, not in the report",)


@pytest.mark.parametrize("name", ["report.md", "report.html", "results/a_results.json", "figures/comparison_plots.png"])
def test_a_file_of_bytes_that_are_no_text_is_named(name, reported):
    path = reported / "report" / name
    length = path.stat().st_size
    with path.open("ab") as file:
        file.write(b"\xff")
    found = verify_report(reported).differences
    assert f"output {name}: changed since the report was written" in found
    assert (f"{name}: no text in UTF-8 any more (byte {length})" in found) != name.endswith(".png")


@pytest.mark.parametrize("name", ["report.md", "results/a_results.json", "figures/comparison_plots.png"])
def test_a_folder_or_a_link_to_nowhere_in_place_of_a_file_counts_as_gone(name, reported):
    path = reported / "report" / name
    path.unlink()
    path.mkdir()
    assert f"output {name}: gone" in verify_report(reported).differences
    path.rmdir()
    path.symlink_to(reported / "nowhere")
    assert f"output {name}: gone" in verify_report(reported).differences


@pytest.mark.parametrize("content", ["", "[" * 100_000, '{"a": 1'])
def test_a_file_that_is_no_json_any_more_is_named(content, reported):
    (reported / "report" / "results" / "a_results.json").write_text(content)
    found = verify_report(reported).differences
    assert any(line.startswith("results/a_results.json: no JSON any more (") for line in found)


BROKEN_RECORDS = {
    "a list": b"[]",
    "text": b'"inputs"',
    "no JSON": b"{",
    "no text": b"\xff\xfe",
    "too deep": b"[" * 100_000,
    "no outputs": b'{"inputs": {}}',
    "outputs are a list": b'{"inputs": {}, "outputs": []}',
    "outputs are numbered": b'{"inputs": {}, "outputs": [["a", "b"]]}',
    "outputs elsewhere": b'{"inputs": {}, "outputs": {"../journal.sqlite": ""}}',
}


@pytest.mark.parametrize("case", BROKEN_RECORDS)
def test_a_record_of_digests_that_cannot_be_read_is_refused_with_what_to_do(case, reported):
    (reported / "report" / "digests.json").write_bytes(BROKEN_RECORDS[case])
    with pytest.raises(AnalysisError, match=r"digests\.json: cannot be read .*write the report again"):
        verify_report(reported)


def test_a_folder_in_place_of_the_record_of_digests_is_refused_as_no_report(reported):
    (reported / "report" / "digests.json").unlink()
    (reported / "report" / "digests.json").mkdir()
    with pytest.raises(AnalysisError, match=r"no report here that could be verified"):
        verify_report(reported)


def test_an_input_that_changed_is_named_and_so_is_every_number_that_it_moves(reported):
    with sqlite3.connect(reported / "journal.sqlite") as connection:
        metrics = json.dumps(final_metrics(1.0))
        connection.execute("UPDATE trials SET metrics = ? WHERE arm = 'b' AND seed = 1", (metrics,))
    found = verify_report(reported).differences
    assert "input trial 0000000000000004 (trials): changed since the report was written" in found
    assert not any("0000000000000003" in line and line.startswith("input") for line in found)
    assert any(line.startswith("report.md, line") for line in found)


def test_a_figure_that_was_exchanged_and_a_file_that_is_gone_are_named(reported):
    (reported / "report" / "figures" / "comparison_plots.png").write_bytes(b"")
    (reported / "report" / "results" / "a_results.json").unlink()
    found = verify_report(reported).differences
    assert found == (
        "output figures/comparison_plots.png: changed since the report was written",
        "output results/a_results.json: gone",
    )


def test_a_folder_without_a_report_or_with_a_broken_record_is_refused(reported):
    (reported / "report" / "digests.json").write_text("[]")
    with pytest.raises(AnalysisError, match="write the report again"):
        verify_report(reported)
    (reported / "report" / "digests.json").unlink()
    with pytest.raises(AnalysisError, match=r"no report here that could be verified; .*python -m analysis report"):
        verify_report(reported)


def test_the_command_ends_with_code_one_where_something_differs_and_zero_elsewhere(reported, capsys):
    code, out, err = run(capsys, "verify", reported)
    assert code == 0, err
    assert out.startswith("no differences in ")
    replace(reported / "report" / "report.md", "| 2.1000 |", "| 2.0000 |")
    code, out, err = run(capsys, "verify", reported)
    assert (code, err) == (1, "")
    assert "report.md, line" in out


def test_a_folder_that_is_no_sweep_is_refused_with_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match=r"no journal.sqlite in this folder; give the folder of a sweep$"):
        verify_report(tmp_path)
