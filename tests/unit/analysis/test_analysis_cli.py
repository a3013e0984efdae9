"""`python -m analysis`: its output forms, its exit codes, and what importing the package costs."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys

import pytest
import typer
from command_line import run
from synthetic_sweeps import JournalBuilder, final_metrics
from typer.testing import CliRunner

from analysis import load_runs
from analysis.__main__ import app, main

COMMANDS = typer.main.get_command(app).commands


def test_importing_the_package_is_fast_and_loads_no_heavy_library():
    code = (
        "import sys, time; start = time.perf_counter(); import analysis; spent = time.perf_counter() - start; "
        "heavy = {'torch', 'ray', 'mlflow', 'matplotlib', 'statsmodels', 'pandas', 'scipy'} & set(sys.modules); "
        "print(spent, *heavy)"
    )
    spent, *heavy = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert heavy == []
    assert float(spent) < 1.5


def test_comparing_never_loads_torch_or_ray(ablation):
    code = (
        f"import sys, analysis; analysis.compare(analysis.load_runs({str(ablation)!r}), 'loss', baseline='attention'); "
        "print({'torch', 'ray', 'mlflow'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "set()"


def test_compare_prints_a_table_the_verdict_and_what_was_left_out(ablation, capsys):
    code, out, _ = run(capsys, "compare", ablation, "--margin", 0.02)
    assert code == 0
    assert re.search(r"token_local +\+[^\n]* worse ", out)
    assert "left out: 15 × role tuning" in out
    assert "\x1b[" not in out


def test_compare_takes_what_the_sweep_declares_unless_told_otherwise(ablation, capsys):
    declared = json.loads(run(capsys, "compare", ablation, "--json")[1])
    assert (declared["metric"], declared["margin"], declared["baseline"]) == ("validation/loss", 0.02, "attention")
    told = json.loads(run(capsys, "compare", ablation, "--margin", 0.5, "--json")[1])
    assert told["margin"] == 0.5
    other = json.loads(run(capsys, "compare", ablation, "--metric", "train/loss", "--json")[1])
    assert (other["metric"], other["margin"], other["baseline"]) == ("train/loss", None, "attention")


@pytest.mark.parametrize("declared", [(), ({"compare": {"metric": "validation/loss"}},)])
def test_another_metric_is_compared_at_the_budget_of_the_sweep(declared, tmp_path, capsys):
    """Arms of equal tokens and unequal FLOPs: the sweep's budget must agree, and no other."""
    journal = JournalBuilder(tmp_path / "s")
    for seed in range(3):
        for number, arm in enumerate(("small", "large")):
            metrics = final_metrics(2.0 - 0.1 * number + 0.01 * seed, flops=1e12 * (1 + number))
            journal.trial(arm, seed, metrics, budget={"tokens": 2.0e6})
    journal.meta(sweep={"name": "s", "design": {"baseline": "small"}, "analysis": list(declared)})
    folder = journal.close()
    code, out, err = run(capsys, "compare", folder, "--metric", "train/loss", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["budgets"] == "tokens"


def test_compare_speaks_json_markdown_and_latex(ablation, capsys):
    _, out, _ = run(capsys, "compare", ablation, "--json")
    arms = {item["arm"]: item for item in json.loads(out)["arms"]}
    assert arms["bk_original"]["verdict"] == "worse"
    _, out, _ = run(capsys, "compare", ablation, "--markdown")
    assert "| arm | difference [95%] | verdict | p (Holm) | n | mean |" in out
    _, out, _ = run(capsys, "compare", ablation, "--latex")
    assert r"\begin{tabular}" in out


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_two_csv_files_are_two_arms_and_the_first_is_the_baseline(seeds, tmp_path, capsys):
    for name, shift in (("old", 0.0), ("new", -0.2)):
        rows = [f"{seed},{2 + 0.1 * seed + shift * (1 + 0.01 * seed)}" for seed in range(seeds)]
        (tmp_path / f"{name}.csv").write_text("seed,loss\n" + "\n".join(rows) + "\n")
    code, out, _ = run(capsys, "compare", tmp_path / "old.csv", tmp_path / "new.csv", "--json")
    found = json.loads(out)
    assert code == 0
    (arm,) = found["arms"]
    assert (found["baseline"], arm["arm"], arm["verdict"], arm["n"]) == ("old", "new", "better", seeds)


def test_two_sweeps_are_compared_arm_by_arm_with_what_loading_left_out(ablation, make_ablation, capsys):
    words = ("compare", ablation, make_ablation("later", failed=False), "--metric", "loss", "--json")
    code, out, _ = run(capsys, *words)
    found = json.loads(out)
    assert code == 0
    assert found["baseline"] == "ablation/attention"
    assert {"later/attention", "ablation/token_local"} < {arm["arm"] for arm in found["arms"]}
    assert "ablation/token_local" in {item["arm"] for item in found["exclusions"]}


def test_report_writes_the_report_and_prints_its_path(journal, capsys):
    for k in range(3):
        journal.trial(f"point-{k}", 0, final_metrics(2.5 - 0.1 * k), role="search", parameters={"training.lr": 10**-k})
    journal.meta(sweep={"name": "rates", "design": {"kind": "search"}, "objective": [{"metric": "validation/loss"}]})
    folder = journal.close()
    code, out, _ = run(capsys, "report", folder)
    assert code == 0
    assert (folder / "report" / "report.html").is_file()
    assert (folder / "report" / "figures" / "search_points.png").is_file()
    assert "report.html" in "".join(out.split())
    text = (folder / "report" / "report.md").read_text(encoding="utf-8")
    assert run(capsys, "report", folder, "--markdown")[1] == text
    _, out, _ = run(capsys, "report", folder, "--json")
    assert json.loads(out)["sweep"] == "rates"


def test_power_tells_seeds_for_an_effect_and_the_effect_for_seeds(capsys):
    _, out, _ = run(capsys, "power", "--sd", 1, "--effect", 0.5, "--n", 34)
    assert "needs 34 seeds for power 0.8" in out
    _, out, _ = run(capsys, "power", "--sd", 1, "--effect", 0.5, "--n", 34, "--markdown")
    assert "| seeds | power at 0.5 |\n| ---: | ---: |\n" in out
    _, out, _ = run(capsys, "power", "--sd", 1, "--n", 34, "--json")
    assert json.loads(out)["minimum_detectable_effect"] == pytest.approx(0.495, abs=1e-3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("report", "nowhere"), "no such file or folder"),
        (("compare", "nowhere.csv"), "no such file"),
        (("power", "--sd", 1), "error: say what to find"),
        (("power", "--sd", -1, "--n", 3), "sd_difference = -1"),
        (("power", "--sd", "much", "--n", 3), "Invalid value for '--sd'"),
        (("conjure",), "No such command"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(words, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *words)
    assert code == 2
    assert message in err
    assert "Traceback" not in err + out


@pytest.mark.parametrize(
    ("figure", "named"),
    [
        ("/proc/none/x.png", "/proc/none: no such file"),
        ("/proc/x.png", "/proc/x.png: no such"),
        ("folder.png", "folder.png: is a dir"),
    ],
)
def test_a_figure_that_cannot_be_written_is_one_message(figure, named, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    code, _, err = run(capsys, "power", "--sd", 1, "--effect", 1, "--figure", figure)
    assert code == 2
    assert f"error: {named}" in err
    assert "give a file or a folder that can be read or written" in err
    assert ".tmp" not in err
    assert "Traceback" not in err


def test_a_csv_without_the_column_names_the_nearest_one(tmp_path, capsys):
    (tmp_path / "runs.csv").write_text("arm,seed,val_loss\na,0,2.0\nb,0,1.0\n")
    code, _, err = run(capsys, "compare", tmp_path / "runs.csv", "--metric", "val_los", "--baseline", "a")
    assert code == 2
    assert "did you mean 'val_loss'?" in err
    code, _, err = run(capsys, "compare", tmp_path / "runs.csv", "--metric", "val_loss")
    assert code == 2
    assert "say which arm is the baseline" in err


@pytest.mark.parametrize(
    ("content", "words", "message"),
    [
        ("arm,seed,loss,flops\na,0,1,\nb,0,2,\n", ("--metric", "flops"), "metric = 'flops' is empty in every run"),
        ("arm,seed,loss\na,0,1\nb,0,1.0x\nb,1,?\n", (), "'1.0x' (arm 'b', block 0, row 1, and 1 more); write a number"),
        (b"\x7fELF\x02\x89\xff\x00", (), "not a text file in UTF-8; give a CSV table"),
        ("arm,seed,loss,flops\na,0,1,1\nb,0,2,2\n", (), "(equal=None; --equal none)"),
        ("arm,seed,loss\na,0,1\na,0,2\n", (), "tells them apart as block"),
        ("arm,seed,loss\na,0,1\nb,0,2\n", ("--direction", "max"), "did you mean 'maximize'?"),
        ("arm,seed,loss\na,0,1\nb,0,2\n", ("--test", "tt"), "choose t, sign_flip or wilcoxon"),
    ],
)
def test_a_table_that_cannot_be_compared_is_told_what_is_wrong_with_it(content, words, message, tmp_path, capsys):
    path = tmp_path / "runs.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    code, _, err = run(capsys, "compare", path, "--baseline", "a", *words)
    assert code == 2
    assert message in err
    assert "codec" not in err


def test_a_table_is_no_choice_where_a_sweep_is_asked_for(tmp_path, capsys):
    (tmp_path / "runs.csv").write_text("arm,seed,loss\na,0,1\n")
    code, _, err = run(capsys, "report", tmp_path / "runs.csv")
    assert code == 2
    assert "give the folder of a sweep, or its journal.sqlite" in err
    assert "a .csv" not in err
    (tmp_path / "runs.txt").write_text("arm,seed,loss\na,0,1\n")
    assert "a .csv or .tsv file" in run(capsys, "compare", tmp_path / "runs.txt")[2]


def write_scores(path):
    """Three arms on four tasks with three seeds; every arm better than the one before it."""
    rows = [
        f"{arm},t{task},{seed},{0.5 + 0.1 * number + 0.05 * task + 0.003 * ((7 * seed + 3 * task + number) % 5)}"
        for number, arm in enumerate("abc")
        for task in range(4)
        for seed in range(3)
    ]
    path.write_text("arm,task,seed,score\n" + "\n".join(rows) + "\n")
    return path


def test_rank_prints_the_order_and_draws_the_diagram(tmp_path, capsys):
    scores = write_scores(tmp_path / "scores.csv")
    words = ("rank", scores, "--metric", "score", "--direction", "maximize")
    code, out, _ = run(capsys, *words, "--figure", tmp_path / "ranks.png")
    assert code == 0
    assert "mean ranks are c 1.00, b 2.00, a 3.00" in " ".join(out.split())
    assert (tmp_path / "ranks.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads(run(capsys, *words, "--json")[1])["mean_ranks"]["c"] == 1.0
    assert r"\begin{tabular}" in run(capsys, *words, "--latex")[1]


def test_aggregate_prints_an_interval_for_every_arm(tmp_path, capsys):
    scores = write_scores(tmp_path / "scores.csv")
    code, out, _ = run(capsys, "aggregate", scores, "--statistic", "mean", "--json")
    found = json.loads(out)
    assert code == 0
    assert list(found) == ["a", "b", "c"]
    assert found["a"]["low"] < found["a"]["estimate"] < found["a"]["high"]
    assert "| arm | runs | iqm [95%] |" in run(capsys, "aggregate", scores, "--markdown")[1]


def test_sequential_decides_from_a_sweep_and_names_the_arms_where_no_baseline_is_given(ablation, tmp_path, capsys):
    words = ("sequential", ablation, "--metric", "validation/loss")
    code, out, _ = run(capsys, *words, "--baseline", "attention")
    assert code == 0
    assert "mixture-t e-process, level 0.05 over 4 arms" in out
    verdicts = json.loads(run(capsys, *words, "--baseline", "attention", "--json")[1])["verdicts"]
    assert verdicts["token_local"]["alpha"] == pytest.approx(0.05 / 4)
    runs = tmp_path / "runs.csv"
    load_runs(ablation).to_csv(runs)
    code, _, err = run(capsys, "sequential", runs)
    assert code == 2
    assert "say which arm is the baseline (--baseline)" in err
    assert "token_local" in err


def test_sequential_takes_what_the_sweep_declares_unless_told_otherwise(ablation, capsys):
    found = json.loads(run(capsys, "sequential", ablation, "--json")[1])
    assert (found["metric"], found["baseline"], found["margin"]) == ("validation/loss", "attention", 0.02)
    words = ("--baseline", "llama", "--margin", 0.5, "--alpha", 0.1)
    found = json.loads(run(capsys, "sequential", ablation, *words, "--json")[1])
    assert (found["baseline"], found["margin"], found["alpha"]) == ("llama", 0.5, 0.1)
    found = json.loads(run(capsys, "sequential", ablation, "--metric", "train/loss", "--json")[1])
    assert (found["metric"], found["baseline"], found["margin"]) == ("train/loss", "attention", None)


def test_compare_refuses_seeds_that_were_added_because_of_the_results(journal, capsys):
    for seed in range(3):
        for arm in ("a", "b"):
            journal.trial(arm, seed, final_metrics(1.0 + 0.1 * seed))
    file = {"design": {"kind": "arms", "baseline": "a"}, "replicates": {"seeds": {"min": 2, "max": 3}}}
    journal.meta(sweep=file)
    directory = journal.close()
    code, _, err = run(capsys, "compare", directory)
    assert code == 2
    assert "use python -m analysis sequential" in err
    assert run(capsys, "sequential", directory)[0] == 0


def test_hierarchical_prints_an_interval_over_all_levels_of_noise(tmp_path, capsys):
    cells = itertools.product("ab", range(3), range(2), range(4))
    rows = [f"{arm},{p},{f},{i},{(arm == 'b') + 0.1 * p + 0.02 * f * i}" for arm, p, f, i in cells]
    path = tmp_path / "glue.csv"
    path.write_text("\n".join(["arm,pretraining_seed,finetuning_seed,item,score", *rows]))
    code, out, _ = run(capsys, "hierarchical", path)
    assert code == 0
    assert "3 pretraining_seed × 2 finetuning_seed × 4 item" in " ".join(out.split())
    words = ("--baseline", "a", "--level", "pretraining_seed", "--level", "finetuning_seed", "--json")
    found = json.loads(run(capsys, "hierarchical", path, *words)[1])
    assert found == {"b": found["b"]}
    assert found["b"]["estimate"] == pytest.approx(1.0)
    code, _, err = run(capsys, "hierarchical", path, "--item", "none")
    assert code == 2
    assert "different runs in" in err
    assert "tells them apart as level, or as item" in err


def test_power_plans_a_design_that_looks_and_draws_curves(tmp_path, capsys):
    words = ("power", "--sd", 1, "--effect", 2, "--sequential")
    _, out, _ = run(capsys, *words, "--figure", tmp_path / "power.png")
    assert "looking after every seed, half of the replays decide by" in out
    assert (tmp_path / "power.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads(run(capsys, *words, "--json")[1])["sequential"]["seeds_possible"] == 3
    code, _, err = run(capsys, "power", "--sd", 1, "--n", 5, "--sequential")
    assert code == 2
    assert "about an effect" in err


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_help_of_a_command_is_as_on_file(name, golden):
    golden.check(f"help/analysis_{name}.txt", CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "80"}).output)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_help_of_a_command_cuts_no_sentence_and_no_example(name):
    shown = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "80"}).output
    command = COMMANDS[name]
    for text in (command.help, *(parameter.help for parameter in command.params)):
        assert "".join((text or "").split()) in "".join(shown.split())
    begin, title, *examples = command.epilog.splitlines()
    assert (begin, title) == ("\b", "Examples:")
    assert examples
    for example in examples:
        assert example.startswith(f"  python -m analysis {name} ")
        assert f"  {example}" in shown.splitlines(), "on one line, whatever the width"


def test_the_list_of_commands_cuts_no_sentence():
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80"}).output
    listed = {name: command for name, command in COMMANDS.items() if not command.hidden}
    assert len(listed) == 13
    for name, command in listed.items():
        (line,) = [line for line in shown.splitlines() if line.startswith(f"  {name} ")]
        assert line.split()[1] == command.help.split()[0]
        assert "".join(command.help.split("\n\n")[0].split()) in "".join(shown.split())


@pytest.mark.parametrize(
    ("typed", "shown"), [("stackwise-analysis", "stackwise-analysis"), ("x.py", "python -m analysis")]
)
def test_the_usage_names_the_program_as_it_was_started(typed, shown, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [typed, "rank", "--help"])  # how a program was started is known from here alone
    with pytest.raises(SystemExit):
        main()
    assert f"Usage: {shown} rank [OPTIONS]" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["loss", "val_loss", "validation/loss"])
def test_every_name_of_a_metric_asks_the_comparison_that_the_sweep_declares_on_it(name, ablation, capsys):
    found = json.loads(run(capsys, "compare", ablation, "--metric", name, "--json")[1])
    assert (found["margin"], found["baseline"], found["family"]) == (0.02, "attention", 4)
    assert any("is the column 'validation/loss'" in note for note in found["notes"]) is (name == "val_loss")


def test_a_table_is_asked_by_every_name_of_its_metric_and_budget(tmp_path, capsys):
    rows = [
        f"{arm},{seed},{2 + shift + 0.1 * seed + 0.01 * seed * shift},5e9"
        for arm, shift in (("a", 0), ("b", 1))
        for seed in (0, 1, 2)
    ]
    (tmp_path / "runs.csv").write_text("arm,seed,val_loss,flops/total\n" + "\n".join(rows) + "\n")
    words = ("compare", tmp_path / "runs.csv", "--baseline", "a", "--metric", "validation/loss", "--json")
    found = json.loads(run(capsys, *words)[1])
    assert (found["metric"], found["budgets"], found["arms"][0]["verdict"]) == ("validation/loss", "flops", "worse")
    assert "validation/loss is the column 'val_loss' of the table" in found["notes"]


def test_the_blocks_of_two_sources_are_paired_by_their_text(tmp_path, capsys):
    """2.10 of the one file is not 2.1 of the other; 3 and 3.0 are the same seed."""
    (tmp_path / "first.csv").write_text("seed,loss\n2.10,3.0\n3.1,3.1\n4.1,3.05\n")
    (tmp_path / "second.csv").write_text("seed,loss\n2.1,2.0\n3.1,2.9\n4.1,2.95\n")
    names = (tmp_path / "first.csv", tmp_path / "second.csv")
    found = json.loads(run(capsys, "compare", *names, "--json")[1])
    assert found["arms"][0]["n"] == 2
    assert {(one["arm"], one["block"]) for one in found["missing"]} == {("first", "2.1"), ("second", "2.10")}
    (tmp_path / "first.csv").write_text("seed,loss\n1.0,3.0\n2.0,3.1\n3.0,3.05\n")
    (tmp_path / "second.csv").write_text("seed,loss\n1,2.0\n2,2.9\n3,2.95\n")
    assert json.loads(run(capsys, "compare", *names, "--json")[1])["arms"][0]["n"] == 3
