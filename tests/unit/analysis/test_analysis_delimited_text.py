"""Tables in text: heading and cells that fit, separators, comments, blanks, and rows that are refused."""

from __future__ import annotations

import pytest

from analysis import AnalysisError, compare, load_runs

PLAIN = "arm,seed,loss\na,0,3.0\na,1,3.2\nb,0,3.1\nb,1,3.3\n"


def written(tmp_path, content):
    path = tmp_path / "runs.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.replace("\n", ",\n").replace("loss,", "loss", 1),
        PLAIN.replace("\n", ",\n"),
        PLAIN.replace("\n", "\r\n"),
        b"\xef\xbb\xbf" + PLAIN.encode(),
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", ";").replace(".", ","),
        PLAIN.replace(",", "\t"),
        PLAIN.replace(",", " , "),
        PLAIN.replace("\n", "\n\n"),
        PLAIN + ",,\n",
        "# written by hand\n" + PLAIN + "# the end\n",
        "# " + PLAIN,
        '"arm","seed","loss"\n"a","0","3.0"\n"a","1","3.2"\n"b","0","3.1"\n"b","1","3.3"\n',
        ",arm,seed,loss\n0,a,0,3.0\n1,a,1,3.2\n2,b,0,3.1\n3,b,1,3.3\n",
    ],
)
def test_a_table_is_read_under_its_headings_however_it_is_written(tmp_path, content):
    runs = load_runs(written(tmp_path, content))
    assert list(runs.columns) == ["arm", "seed", "loss"]
    found = compare(runs, "loss", baseline="a")
    assert found.baseline_values == {"0": 3.0, "1": 3.2}
    assert found["b"].values == {"0": 3.1, "1": 3.3}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (PLAIN + "b,2\n", "line 6 has 2 cells, and the heading names 3 columns"),
        (PLAIN + "b,2,3.1,4\n", "line 6 has 4 cells"),
        (PLAIN + '"b,2,3.1\n', "not a CSV table"),
        ("arm,seed,arm\na,0,b\n", "two columns are called 'arm'; rename one"),
        ("arm;seed;arm\na;0;b\n", "two columns are called 'arm'; rename one"),
        (PLAIN.encode("utf-16"), "text in UTF-16; save it in UTF-8"),
        ("\n\n", "it holds no line"),
    ],
)
def test_a_row_that_does_not_fit_its_heading_is_refused_by_its_line(tmp_path, content, words):
    with pytest.raises(AnalysisError, match=words):
        load_runs(written(tmp_path, content))


def test_an_arm_whose_name_begins_with_a_mark_of_comments_is_no_comment(tmp_path):
    runs = load_runs(written(tmp_path, "# of July\n" + PLAIN.replace("b,", "#2,")))
    assert runs["arm"].tolist() == ["a", "a", "#2", "#2"]
    assert runs.attrs["notes"] == ["1 comment line (#) skipped"]


def test_what_was_tidied_up_is_said_beside_the_result(tmp_path):
    runs = load_runs(written(tmp_path, "# mine\n" + PLAIN.replace(",", ";").replace("b;0", "b ;0")))
    notes = compare(runs, "loss", baseline="a").notes
    assert "blanks around 1 cell of column 'arm' removed" in notes
    assert "its cells are separated by semicolons" in notes
    assert "1 comment line (#) skipped" in notes
    european = load_runs(written(tmp_path, PLAIN.replace(",", ";").replace(".", ",")))
    assert "commas are decimal points in column loss" in european.attrs["notes"]
