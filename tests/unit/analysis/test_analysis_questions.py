"""Sweeps that ask for non-inferiority, one side or a target: their report, and the command line on their folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import run
from synthetic_sweeps import BUDGET, JournalBuilder, final_metrics

from analysis import summary_table, write_report
from analysis.report.verification import verify_report

LOSSES = {"base": 2.0, "near": 2.002, "far": 2.3}


def write_sweep(folder: Path, adaptive: bool = False, **asked: object) -> Path:
    builder = JournalBuilder(folder)
    for number, (arm, mean) in enumerate(LOSSES.items()):
        for seed in range(6):
            value = mean + 0.05 * seed + 0.001 * ((7 * seed + 3 * number) % 5)
            builder.trial(arm, seed, final_metrics(value, flops=BUDGET))
    builder.meta(
        sweep={
            "name": folder.name,
            "design": {"kind": "arms", "arms": {arm: {} for arm in LOSSES}, "baseline": "base"},
            "replicates": {"seeds": {"min": 3, "max": 6, "until": "decided"} if adaptive else 6},
            "objective": [{"metric": "validation/loss"}],
            "analysis": [{"compare": {"metric": "validation/loss", **asked}}],
        },
        sweep_hash="5" * 16,
        environment={"python": "3.11.7"},
        started_at=1000.0,
    )
    return builder.close()


def text_of(folder: Path) -> str:
    """The whole answer without figures: verdict, set-up, weak points and the texts of each answer."""
    summary = summary_table(folder)
    assert summary.failed == ()
    facts = [fact.text for fact in summary.setup] + [limit.text for limit in summary.limits]
    return "\n".join([summary.verdict, *facts, summary.grid().to_markdown()])


@pytest.mark.parametrize("adaptive", [False, True])
def test_the_answer_of_a_non_inferiority_sweep_says_by_which_margin(tmp_path: Path, adaptive: bool) -> None:
    text = text_of(write_sweep(tmp_path / "ni", adaptive, hypothesis="non_inferior", margin=0.02))
    lead = "near is non-inferior to base in validation loss at equal FLOPs, by the margin of 0.020 nats"
    assert f"{lead}; both differences are decided (one non-inferior, one inferior)." in text
    assert "non-inferior within 0.02" in text
    assert "| inferior |" in text
    shown = "would be found to be non-inferior in four of five such sweeps only by a margin of"
    assert (shown in text) is not adaptive


@pytest.mark.parametrize("adaptive", [False, True])
def test_the_answer_of_a_sweep_with_a_target_compares_every_arm_with_it(tmp_path: Path, adaptive: bool) -> None:
    text = text_of(write_sweep(tmp_path / "goal", adaptive, target=2.6, side="better"))
    assert "base reaches 0.47 nats lower validation loss than the target 2.6; " in text
    assert "one-sided: only whether an arm is better was tested." in text
    assert "| base | −0.47" in text
    assert " [−∞, " in text
    assert "| baseline |" not in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "file", "said"),
    [
        ({"hypothesis": "non_inferior", "margin": 0.02}, "near_vs_base", "Non-inferior means:"),
        ({"target": 2.6, "side": "better"}, "near_vs_the_target_2.6", "Only whether an arm is better is tested"),
    ],
)
def test_the_report_has_the_method_the_figure_and_every_number_again(
    tmp_path: Path, asked: dict, file: str, said: str
) -> None:
    summary = write_report(write_sweep(tmp_path / "whole", **asked))
    assert said in summary.report.with_suffix(".md").read_text()
    assert verify_report(tmp_path / "whole").differences == ()
    [record] = summary.report.parent.glob("comparisons/comparison_near*.json")
    assert record.stem == f"comparison_{file}"
    [written] = json.loads(record.read_text())["comparisons"]
    assert written["result"]["verdict"] == ("non_inferior" if "margin" in asked else "better")


def test_the_command_line_asks_a_sweep_as_its_file_does_or_what_it_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_sweep(tmp_path / "sweep", hypothesis="non_inferior", margin=0.02)

    def answer(command: str, *words: str) -> dict:
        code, out, _ = run(capsys, command, folder, *words, "--json")
        assert code == 0
        return json.loads(out)

    declared = answer("compare")
    assert (declared["hypothesis"], declared["margin"], declared["baseline"]) == ("non_inferior", 0.02, "base")
    told = answer("compare", "--target", "2.5")
    assert (told["target"], told["baseline"], told["hypothesis"], told["family"]) == (2.5, None, "non_inferior", 3)
    looking = answer("sequential")
    assert looking["verdicts"]["near"]["decision"] == "non_inferior"
    assert looking["verdicts"]["near"]["interval"]["high"] < 0.02
