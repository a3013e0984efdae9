"""`report.html`: the same content as `report.md`, in one file that loads nothing, with every number's runs linked."""

from __future__ import annotations

import re
import xml.dom.minidom
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from synthetic_sweeps import final_metrics

from analysis import summary_table
from analysis.plots.curves import pareto_front
from analysis.plots.figures import draw_panels
from analysis.report.compose import compose
from analysis.report.html_page import to_html
from analysis.report.page import Table, to_markdown
from analysis.report.pictures import Pictures, pictures
from analysis.table.sweep_directory import read_sweep
from stackwise_ray.flags import FLAGS

SHARES = (15, 30, 50, 75, 90)


class Reader(HTMLParser):
    """Links, anchors, table cells and sources of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.rows: list[list[tuple[str, str | None]]] = []
        self.loads: list[str] = []
        self.tags: set[str] = set()
        self.words = ""
        self.link: str | None = None
        self.in_cell = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        facts = dict(attributes)
        self.tags.add(tag)
        self.ids += [facts["id"]] if "id" in facts else []
        self.loads += [facts[name] for name in ("src", "srcset", "data", "poster", "action") if name in facts]
        self.loads += [facts["href"]] if tag == "link" else []
        self.link = facts["href"] if tag == "a" else self.link
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.in_cell = True
            self.rows[-1].append(("", None))

    def handle_endtag(self, tag):
        self.in_cell = self.in_cell and tag not in ("td", "th")
        self.link = None if tag == "a" else self.link
        self.words += "" if tag == "a" else " "

    def handle_data(self, data):
        self.words += data
        if self.in_cell:
            text, link = self.rows[-1][-1]
            self.rows[-1][-1] = (text + data, link or self.link)


@pytest.fixture(scope="module")
def written(reported: Path) -> Path:
    """The report's folder of a five-arm sweep."""
    return reported / "report"


@pytest.fixture(scope="module")
def page(written: Path) -> Reader:
    return Reader((written / "report.html").read_text(encoding="utf-8"))


def composed(folder: Path):
    return compose(summary_table(folder), Pictures())


def test_the_page_has_every_word_of_the_markdown(written, page):
    def plain(text: str) -> list[str]:
        return re.sub(r"[^\w.,−+%]+", " ", text).split()

    text = (written / "report.md").read_text(encoding="utf-8")
    text = re.sub(r"\((?:figures)/[^)]*\)|^\|[ :|-]+\|$", "", text, flags=re.MULTILINE)
    missing = sorted(set(plain(text)) - set(plain(page.words)))
    assert missing == ["Answer.", "Question.", "answer."]  # labels have their own style there


def test_the_page_loads_nothing_and_runs_nothing(written, page):
    assert page.loads
    assert all(source.startswith("data:image/svg+xml;base64,") for source in page.loads)
    assert not page.tags & {"script", "link", "iframe", "object", "embed", "base"}
    text = (written / "report.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert not re.search(r"url\(|@import", text)


def test_every_link_inside_the_page_arrives_and_no_anchor_stands_twice(written, page):
    text = (written / "report.html").read_text(encoding="utf-8")
    targets = set(re.findall(r'href="#([^"]+)"', text))
    assert len(targets) > 15
    assert targets <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_every_number_of_an_arm_links_to_a_table_that_holds_the_runs_of_that_arm(written, page):
    sweep = read_sweep(written.parent)
    html = (written / "report.html").read_text(encoding="utf-8")
    head = next(row for row in page.rows if row[0][0] == "arm" and row[1][0].startswith("difference"))
    first = page.rows.index(head) + 1
    for row, arm in zip(page.rows[first : first + 5], sweep.arms, strict=True):
        assert row[0] == (arm, None)
        links = {link for text, link in row[1:] if any(c.isdigit() for c in text)}
        assert len(links) == 1
        table = html.split(f'<table id="{links.pop().removeprefix("#")}">')[1].split("</table>")[0]
        own = {trial.trial_id for trial in sweep.trials if trial.arm == arm and trial.role == "replicate"}
        assert set(re.findall(r'href="\.\./trials/([^/]+)/"', table)) == own


def test_the_number_of_the_answer_links_to_the_runs_of_its_arm(journal):
    for arm, loss in (("a", 2.0), ("b", 1.5)):
        for seed in range(3):
            journal.trial(arm, seed, final_metrics(loss + 0.01 * seed + 0.001 * loss * seed**2))
    journal.meta(sweep={"name": "x", "design": {"baseline": "a"}})
    answer = to_html(composed(journal.close())).split('<p class="answer">')[1].split("</p>")[0]
    assert 'b reaches <a class="n" href="#runs-of-b">0.50 nats</a> lower validation loss than a' in answer


def test_what_is_remarked_of_an_arm_and_what_a_figure_shows_link_to_the_runs(written):
    html = (written / "report.html").read_text(encoding="utf-8")
    lines = dict(re.findall(r'<li>([^<]*)<a class="n" href="#([^"]+)">', html))
    assert lines["missing: "] == "runs-of-token_95_local"
    assert lines["equal flops: "] == "runs"
    assert "<li>equivalence margin ±0.02</li>" in html  # declared, not found
    assert html.count('<figcaption><a class="n" href="#runs">') == html.count("<figcaption>") > 0


def test_the_costs_of_an_arm_name_its_parameters_with_and_without_embeddings(ablation):
    summary = summary_table(ablation)
    grid = summary.cost_grid()
    cells = dict(zip(grid.columns, grid.rows[0], strict=True))
    assert (cells["params"], cells["non-emb."]) == ("230k", "198k")


def test_what_a_file_says_is_text_and_never_markup(journal):
    for arm in ("a", "<b>"):
        for seed in range(2):
            journal.trial(arm, seed, final_metrics(2.0 + 0.1 * seed + len(arm) * (1 + 0.1 * seed)))
    journal.meta(sweep={"name": "<script>x</script>", "question": 'Is "a" < <b>?', "design": {"baseline": "a"}})
    read = Reader(to_html(composed(journal.close())))
    assert "script" not in read.tags
    assert "b" not in read.tags
    assert 'Is "a" < <b>?' in read.words


def test_figures_are_drawn_panel_by_panel_for_the_page_and_stale_ones_are_removed(written):
    planned = pictures(summary_table(written.parent), written / "figures")
    files = [path for figure in planned.figures for path in figure.files]
    assert sorted((written / "figures").iterdir()) == sorted(files)
    leading = planned.answers["comparison_plots"]
    assert (planned.leading, planned.below(leading), planned.below(planned.training)) == (
        leading,
        None,
        planned.training,
    )
    names = [path.stem.partition("-")[2] for path in planned.budgets.figure.panel_paths]
    assert names == ["FLOPs", "tokens", "wall-clock", "memory"]
    for path in files:
        if path.suffix == ".svg":
            xml.dom.minidom.parse(str(path))


def test_more_arms_than_colours_are_drawn_without_names_and_the_page_says_why(journal, tmp_path):
    for index in range(15):
        journal.trial(f"size-{index:02d}", 0, final_metrics(2.0 + 0.1 * index, flops=10.0 ** (10 + index)))
    journal.meta(sweep={"name": "many", "design": {"kind": "arms"}})
    summary = summary_table(journal.close())
    planned = pictures(summary, tmp_path)
    assert planned.training is None
    assert planned.budgets.legend == ()
    axes = Figure().subplots()
    planned.budgets.figure.panels[0].draw(axes)
    assert axes.get_xscale() == "log"
    assert not axes.texts
    text = to_markdown(compose(summary, Pictures()), tmp_path)
    assert "Not drawn: the lines of 15 arms cannot be told apart" in text


# ------------------------------------------------------------------------------------------------------- encoders


def write_encoders(journal) -> Path:
    for arm, shift in (("even", 0.0), ("rising", 0.2)):
        for seed in range(3):
            masked = {f"validation/masked_loss_{share}": 2 + shift * share / 50 + 0.01 * seed for share in SHARES}
            metrics = final_metrics(1.0) | masked | {"validation/masked_loss": float(np.mean(list(masked.values())))}
            name = journal.trial(arm, seed, metrics)
            for step in (1, 2, 3):
                journal.report(
                    name, step, step * 1000, step * 10**9, 1000.0 + step, train__loss=1.0, validation__loss=1.0
                )
    journal.meta(sweep={"name": "encoders", "design": {"baseline": "even"}})
    return journal.close()


def test_losses_of_encoders_on_their_own_masks_stand_in_no_plot_together(journal, tmp_path):
    drawn = pictures(summary_table(write_encoders(journal)), tmp_path / "figures")
    panels = [path.stem for figure in drawn.figures for path in figure.panel_paths if "comparison" not in path.stem]
    assert [name.partition("-")[2] for name in panels[:2]] == ["masked-shares", "masked-gaps"]
    assert not any("training-loss" in name or "perplexity" in name for name in panels)
    assert drawn.budgets.title == "validation/masked_loss against four budgets"
    assert "measured on each arm's own masks" in drawn.training.caption


def test_the_lines_by_share_of_masks_are_the_means_over_seeds(journal):
    from analysis.plots.curves import masked_gaps, masked_shares

    sweep = read_sweep(write_encoders(journal))
    axes = Figure().subplots(1, 2)
    masked_shares(axes[0], sweep.runs, sweep.arms)
    masked_gaps(axes[1], sweep.runs, sweep.arms)
    expected = [2.01 + 0.2 * share / 50 for share in SHARES]
    assert list(axes[0].lines[1].get_ydata()) == pytest.approx(expected)
    assert list(axes[1].lines[1].get_ydata()) == pytest.approx([0.2 * share / 50 for share in SHARES])
    assert len(axes[0].collections) == 2  # a band an arm


# ------------------------------------------------------------------------------------------------- budgets, claims


def test_an_arm_is_on_the_front_unless_another_is_better_for_no_more():
    points = {"cheap": (1.0, 3.0), "middle": (2.0, 2.0), "waste": (2.5, 2.5), "dear": (4.0, 1.0)}
    assert pareto_front(points, direction="minimize") == ["cheap", "middle", "dear"]
    assert pareto_front(points, direction="maximize") == ["cheap"]
    assert pareto_front({"a": (1.0, 2.0), "b": (1.005, 1.0)}, direction="minimize") == [
        "b"
    ]  # one per cent counts as equal
    assert pareto_front({"a": (1.0, 2.0), "b": (1.5, 2.0)}, direction="minimize") == ["a"]


def test_the_front_of_every_budget_stands_in_the_table(ablation):
    grid = next(
        block.grid
        for section in composed(ablation).sections
        if section.title == "Loss against budgets"
        for block in section.blocks
        if isinstance(block, Table)
    )
    on = {row[0]: row[-1] for row in grid.rows}
    assert on["attention"] == "FLOPs, tokens, wall clock, memory"  # best, and spends least of each
    assert on["token_local"] == "none"
    assert {row[1] for row in grid.rows} == {"1.00T"}


CLAIM = "Saved activations fall, for one more forward pass."


def claims_of(folder: Path) -> list[tuple[str, ...]]:
    found = [section for section in composed(folder).sections if section.title == "Claims of the flags"]
    return list(found[0].blocks[1].grid.rows) if found else []


def write_flags(journal, **other) -> Path:
    """A baseline, one arm with a flag, and one with the flag and another width; with the flag half of the memory."""
    arms = {"plain": {}, "flagged": {"flags": ["activation_checkpointing"]}}
    arms["wide"] = {"flags": ["activation_checkpointing"], "model": {"d_model": 64}}
    for arm, config in (arms | other).items():
        for seed in range(3):
            metrics = final_metrics(2.0 + 0.01 * seed, speed=100.0 if arm == "plain" else 80.0 + seed)
            metrics |= {"memory/peak_bytes": 9e7 if arm == "plain" else 4.5e7}
            whole = {"flags": [], "model": {"d_model": 32}, "seed": seed} | config
            journal.trial(arm, seed, metrics, config=whole)
    journal.meta(sweep={"name": "flags", "design": {"baseline": "plain"}}, claims={"activation_checkpointing": CLAIM})
    return journal.close()


def test_a_flags_claim_stands_beside_what_was_measured_with_it_and_without_it(journal):
    flagged, wide = claims_of(write_flags(journal))
    assert flagged[:3] == (
        "activation_checkpointing",
        CLAIM,
        "flagged against plain",
    )
    assert flagged[3] == "not measured"  # the sweep has not recorded what the claim is about
    assert flagged[4].startswith("0.81 × [0.")
    assert flagged[5] == "0.50 × [0.50, 0.50]"
    assert flagged[7] == "not measured"  # flops/step was recorded by nobody
    assert flagged[8].endswith("undecided")
    assert wide[2] == "wide: no arm differs by this flag alone"
    assert set(wide[3:]) == {"not measured"}


def test_a_claim_is_measured_by_the_metrics_that_its_flag_names(journal):
    flag = FLAGS.get("early_exit")
    for arm, flags in {"plain": [], "exits": ["early_exit"]}.items():
        for seed in range(2):
            metrics = final_metrics(2.0 + 0.01 * seed) | {"flops/step": 1.18e6 if flags else 1e6}
            if flags:
                metrics |= {"early_exit/flops_per_token": 6e5, "early_exit/flops_per_token_full": 1e6}
                metrics |= {"early_exit/loss": 2.005 + 0.01 * seed}
            journal.trial(arm, seed, metrics, config={"flags": flags, "seed": seed})
    measured_by = {"early_exit": [asdict(one) for one in flag.measured_by]}
    journal.meta(sweep={"name": "exits", "design": {"baseline": "plain"}}, claims={"early_exit": flag.claim})
    journal.meta(claims_measured_by=measured_by)
    [row] = claims_of(journal.close())
    flops, loss = row[3].split("; ")
    assert flops == "FLOPs with exits over FLOPs at full depth, without exits: 0.60 × [0.60, 0.60]"
    assert loss == "validation loss with exits less validation loss: +0.0050 [+0.0050, +0.0050]"
    assert row[7] == "1.18 × [1.18, 1.18]"  # of a training step, which the claim is not about


@pytest.mark.parametrize("listed", [True, False])
def test_a_flag_with_options_is_measured_against_the_arm_without_it(journal, listed):
    options = {"flags": ["early_exit"] if listed else [], "model": {"components": {"early_exit": {"agreement": 0.9}}}}
    for arm, config in {"plain": {"flags": []}, "exits": options, "wide": {"flags": [], "model": {"d": 1}}}.items():
        for seed in range(2):
            journal.trial(arm, seed, final_metrics(2.0 + 0.01 * seed), config=config | {"seed": seed})
    journal.meta(sweep={"name": "exits", "design": {"baseline": "plain"}}, claims={"early_exit": CLAIM})
    [row] = claims_of(journal.close())
    assert row[:3] == ("early_exit", CLAIM, "exits against plain")


def test_a_sweep_without_flags_claims_nothing(ablation):
    assert claims_of(ablation) == []


# ---------------------------------------------------------------------------------------------------- scaling laws


@pytest.mark.slow
def test_a_declared_law_is_fitted_and_stands_with_its_certificate(journal):
    rng = np.random.default_rng(0)
    for index, flops in enumerate(np.geomspace(1e12, 1e15, 12)):
        loss = 1.5 + 40 * flops**-0.12 * np.exp(rng.normal(0, 0.002))
        journal.trial(f"size-{index}", 0, final_metrics(float(loss), flops=float(flops)))
    law = {"scaling_law": {"law": "power_offset", "holdout": "largest"}}
    journal.meta(sweep={"name": "laws", "design": {"kind": "arms"}, "analysis": [law]})
    folder = journal.close()
    summary = summary_table(folder)
    fit = summary.answers[0].finding.result
    assert summary.verdict == fit.sentence
    section = next(part for part in compose(summary, Pictures()).sections if part.title == "Scaling laws")
    text = to_markdown(compose(summary, Pictures()), folder)
    assert fit.sentence in text
    assert all(finding in text for finding in fit.certificate.findings)
    assert [row[0] for row in section.blocks[1].grid.rows] == ["E", "A", "alpha"]
    (law,) = pictures(summary, folder / "figures").answers.values()
    draw_panels(law.figure)
    assert all(path.stat().st_size > 5000 for path in law.figure.files)
