"""The page of a report in a real browser, at the width of a desktop and of a phone: what a reader gets to see."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from analysis import summary_table, write_report
from tests.browser import Browser, running_browser

sys.path.append(str(Path(__file__).parents[1] / "unit" / "analysis"))
from synthetic_sweeps import write_ablation

pytestmark = pytest.mark.slow

VISIBLE = """(selector => [...document.querySelectorAll(selector)].map(part => {
  const box = part.getBoundingClientRect();
  return {text: part.innerText || '', width: box.width, height: box.height, left: box.left,
          natural: part.naturalWidth || 0};
}))"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A five-arm sweep with its report."""
    sweep = write_ablation(tmp_path_factory.mktemp("browser") / "ablation")
    write_report(sweep)
    return sweep


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory):
    with running_browser(tmp_path_factory.mktemp("profile")) as running:
        yield running


def parts(browser: Browser, selector: str) -> list[dict]:
    return browser.value(f"{VISIBLE}({selector!r})")


@pytest.mark.parametrize(("width", "phone"), [(1280, False), (390, True)])
def test_verdict_table_and_figures_are_seen_and_nothing_is_loaded(browser, folder, tmp_path, width, phone):
    page = folder / "report" / "report.html"
    browser.open(page.as_uri(), width=width, phone=phone)
    assert [url for url in browser.requests if not url.startswith("data:")] == [page.as_uri()]
    assert browser.errors == []
    assert browser.value("document.documentElement.scrollWidth") <= width  # the page itself never scrolls sideways
    summary = summary_table(folder)
    (answer,) = parts(browser, ".answer")
    assert " ".join(answer["text"].split()).endswith(summary.verdict)
    assert answer["left"] + answer["width"] <= width
    table = parts(browser, "section table")[0]
    assert all(arm.arm in table["text"] for arm in summary.arms)
    assert table["width"] <= width or phone  # nobody scrolls sideways for the verdicts at a desk
    differences = parts(browser, "section table:first-of-type td:nth-child(2)")[: len(summary.arms)]
    assert all(cell["left"] >= 0 and cell["left"] + cell["width"] <= width for cell in differences)
    figures = parts(browser, "figure img")
    assert len(figures) == 9  # a forest plot, four panels of curves, four of budgets
    assert all(figure["natural"] > 0 and figure["width"] >= 0.85 * min(width, 390) for figure in figures)
    columns = len({round(figure["left"]) for figure in figures[1:5]})
    assert columns == (1 if phone else 2)
    image = browser.screenshot(tmp_path / f"report-{width}.png")
    assert image.stat().st_size > 50_000


def test_a_wide_table_scrolls_inside_its_frame_and_keeps_the_arms_in_sight(browser, folder):
    page = folder / "report" / "report.html"
    browser.open(page.as_uri(), width=390, phone=True)
    widest = "[...document.querySelectorAll('.frame')].sort((a, b) => b.scrollWidth - a.scrollWidth)[0]"
    browser.value(f"{widest}.scrollLeft = 300")
    assert browser.value(f"{widest}.scrollLeft") == 300
    left = browser.value(f"{widest}.querySelector('tbody td').getBoundingClientRect().left")
    assert 0 <= left < 40


def test_on_a_phone_the_text_of_a_figure_keeps_its_size_and_the_figure_scrolls_in_its_frame(browser, folder):
    page = folder / "report" / "report.html"
    browser.open(page.as_uri(), width=390, phone=True)
    drawn = parts(browser, "figure img")
    assert all(image["width"] > image["natural"] - 1 for image in drawn)  # 8.5 pt and more, as they were drawn
    frame = "document.querySelector('figure .panels')"
    assert browser.value(f"{frame}.getBoundingClientRect().right") <= 390
    browser.value(f"{frame}.scrollLeft = 100")
    assert browser.value(f"{frame}.scrollLeft") == 100
    assert browser.value("document.documentElement.scrollWidth") <= 390


def test_a_number_leads_to_its_runs(browser, folder):
    page = folder / "report" / "report.html"
    browser.open(page.as_uri(), width=1280)
    browser.value("document.querySelector('section tbody tr:nth-child(2) a').click()")
    caption = browser.value("document.querySelector(':target caption').innerText")
    assert caption == summary_table(folder).grid().rows[1][0]
    top = browser.value("document.querySelector(':target').getBoundingClientRect().top")
    assert 0 <= top < 900


def test_in_dark_mode_text_stays_readable_and_figures_stand_on_white(browser, folder):
    page = folder / "report" / "report.html"
    browser.open(page.as_uri(), width=1280, dark=True)
    style = "getComputedStyle(document.querySelector({!r})).{}"
    assert browser.value(style.format("body", "backgroundColor")) == "rgb(22, 22, 22)"
    assert browser.value(style.format("p", "color")) == "rgb(230, 230, 230)"
    assert browser.value(style.format(".panels", "backgroundColor")) == "rgb(255, 255, 255)"
