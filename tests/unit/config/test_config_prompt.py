"""What a sweep and its plan answer at a prompt and in a notebook."""

from __future__ import annotations

import copy
import dataclasses
import re

import pytest

from stackwise_ray.config.loading import load_sweep
from stackwise_ray.config.reading.shipped import shipped_search_spaces
from stackwise_ray.core.prompt import MOST_LINES, WIDTH
from stackwise_ray.planning.sweep_plan import PlanRow, SweepPlan


@pytest.mark.parametrize("name", shipped_search_spaces())
def test_a_shipped_sweep_is_a_few_lines_at_a_prompt(name: str) -> None:
    sweep = load_sweep(name)
    before = copy.deepcopy(sweep)
    lines = repr(sweep).splitlines()
    assert len(lines) <= MOST_LINES
    assert max(map(len, lines)) <= WIDTH + 2
    assert lines[0].startswith(f"sweep {name} of ")
    assert sweep.question[:60] in repr(sweep)
    assert any(line.split() == ["seeds", str(sweep.replicates.seeds)] for line in lines)
    assert sweep == before, "how it is shown is no part of what it is"


def test_a_sweep_in_a_notebook_is_a_table_in_which_text_is_text() -> None:
    sweep = dataclasses.replace(load_sweep("smoke"), question="Is <b>a</b> better?")
    html = sweep._repr_html_()
    assert "Is &lt;b&gt;a&lt;/b&gt; better?" in html
    assert html.count("<table>") == html.count("</table>") == 1
    rows = dict(re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td></tr>", html))
    assert rows["design"] == "arms: attention, llama, resolvent, bk_original, token_local; baseline attention"
    assert rows["seeds"] == "2"


def test_a_plan_of_many_arms_is_a_few_lines_at_a_prompt_and_whole_in_a_notebook() -> None:
    rows = tuple(
        PlanRow(
            arm=f"arm{number}",
            role="replicate",
            trials=3,
            done=1,
            budget={"steps": 5},
            params=1000,
            steps=5,
            flops=10**9,
        )
        for number in range(100)
    )
    refused = PlanRow(arm="odd", role="replicate", trials=0, budget={}, refused="7 heads")
    plan = SweepPlan(name="many", rows=(*rows, refused), slots=2, notes=tuple(f"note {number}" for number in range(9)))
    lines = repr(plan).splitlines()
    assert len(lines) <= MOST_LINES
    assert lines[0] == "plan of many: 200 trials to run, 2 at once"
    assert lines[2].split() == ["arm0", "3", "(1", "done)", "1.00k", "5", "—", "1.00G", "—", "—"]
    assert lines[-8] == "  refused: odd: 7 heads"
    assert lines[-1] == "  … and 3 more lines"
    (more,) = (int(found[1]) for line in lines if (found := re.fullmatch(r"  … and (\d+) more", line)))
    assert more + sum(line.startswith("  arm") for line in lines) - 1 == 101, "the heading begins with arm too"
    html = plan._repr_html_()
    assert html.count("<tr>") == 102
    assert "refused: odd: 7 heads" in html
    assert "note 8" in html
