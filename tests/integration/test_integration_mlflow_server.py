"""Real MLflow servers on loopback: one that is killed and comes back while a sweep goes on, and one that shows a sweep.

Of the second the pages are looked at in a browser, as docs/mlflow.md says to compare runs in them.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stackwise_ray.core.comparison_records import Goal
from stackwise_ray.core.records import MetricRecord, Role, TrialRecord
from stackwise_ray.tracking.journal import Journal
from stackwise_ray.tracking.mlflow import MlflowTracker, ui_command
from tests.browser import Browser, running_browser
from tests.tracked_trials import tracked_report

pytestmark = pytest.mark.slow


class Server:
    """`mlflow server` in its own process group, on one port over its lives."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        words = ["--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}"]
        words += ["--artifacts-destination", str(self.folder / "artifacts"), "--workers", "1"]
        self.run(f"{sys.executable} -m mlflow server {' '.join(words)} --host 127.0.0.1 --port {self.port}", "/version")

    def run(self, command: str, path: str) -> None:
        self.process = subprocess.Popen(
            command,
            shell=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )
        wait_until(lambda: self.get(path) is not None, 100)

    def get(self, path: str) -> bytes | None:
        try:
            with urllib.request.urlopen(self.uri + path, timeout=5) as answer:
                return bytes(answer.read())
        except OSError:
            return None

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.kill()


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


def write(journal: Journal, steps: range) -> float:
    """Reports these steps and returns the longest time that one write took, in seconds."""
    longest = 0.0
    for step in steps:
        began = time.monotonic()
        values = {"train/loss": 1.0 / (1 + step)}
        record = MetricRecord(
            trial_id="a", attempt=1, step=step, tokens=step, flops=step, time=1.7e9 + step, metrics=values
        )
        journal.add_reports([record])
        longest = max(longest, time.monotonic() - began)
    return longest


def test_a_server_that_goes_away_holds_nothing_up_and_gets_everything_once(server: Server, tmp_path: Path) -> None:
    server.start()
    with Journal(tmp_path / "journal.sqlite") as journal:
        journal.add_trial(TrialRecord(trial_id="a", number=0, arm="x", seed=0, role="replicate", config={"seed": 0}))
        journal.start_attempt("a")
        first = MlflowTracker(journal.path, server.uri, "away", "sweep", interval_s=0.1, system_interval_s=None)
        first.start()
        write(journal, range(1, 51))
        wait_until(lambda: not first._undelivered())

        server.kill()
        assert write(journal, range(51, 151)) < 2.0
        wait_until(lambda: first.problem is not None)
        began = time.monotonic()
        owed = first.close(timeout=3)
        assert time.monotonic() - began < 6
        assert (owed.reports, owed.trials) == (100, 0)
        assert owed.problem is not None

        second = MlflowTracker(journal.path, server.uri, "away", "sweep", interval_s=0.1, system_interval_s=None)
        second.start()
        write(journal, range(151, 201))
        wait_until(lambda: second.problem is not None)
        server.start()
        write(journal, range(201, 251))
        journal.finish("a", 1, {"validation/loss": 1.0}, {"torch": "2"})
        wait_until(lambda: second.problem is None and second.experiment_id is not None, 60)
        assert not second.close(60)

    from mlflow.tracking import MlflowClient

    client = MlflowClient(server.uri)
    runs = client.search_runs([str(second.experiment_id)])
    assert len(runs) == 2
    (child,) = [run for run in runs if "trial_id" in run.data.tags]
    points: list[Any] = client.get_metric_history(child.info.run_id, "train/loss")
    assert sorted((point.step, point.value) for point in points) == [(s, 1.0 / (1 + s)) for s in range(1, 251)]
    assert child.info.status == "FINISHED"
    assert {item.path for item in client.list_artifacts(child.info.run_id)} == {"config.json", "environment.json"}


ARMS = {"narrow, slow": (32, 1e-3), "narrow, fast": (32, 3e-3), "wide, slow": (64, 1e-3), "wide, fast": (64, 3e-3)}
LOSSES = dict(zip(ARMS, (1.75, 1.5, 1.375, 1.25), strict=True))
DRAWN_SEED = 2085357301318934985


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A small grid of sizes and learning rates, served by the command that the sweep prints."""

    server: Server
    experiment_id: str
    address: str


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    folder = tmp_path_factory.mktemp("shown")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    with Journal(folder / "journal.sqlite") as journal:
        tracker = MlflowTracker(journal.path, uri, "shown", "the sweep", system_interval_s=None)
        tracker.start()
        run(journal, 0, "wide, fast", "tuning", loss=1.0)
        for number, arm in enumerate(ARMS, start=1):
            run(journal, number, arm, "replicate", loss=LOSSES[arm])
        assert not tracker.close(60)
    assert tracker.experiment_id is not None
    server = Server(folder)
    command = ui_command(uri, tracker.experiment_id, goal=Goal.of("validation/loss"), port=server.port)
    try:
        server.run(command, "/version")
        yield Shown(server=server, experiment_id=tracker.experiment_id, address=command.rpartition("then open ")[2])
    finally:
        server.kill()


def run(journal: Journal, number: int, arm: str, role: Role, *, loss: float) -> None:
    d_model, lr = ARMS[arm]
    name, seed = f"trial{number}", 0 if role == "replicate" else DRAWN_SEED
    config = {
        "model": {"d_model": d_model, "n_layers": 2},
        "data": {"seq_len": 64, "path": None},
        "training": {"lr": lr},
        "seed": seed,
    }
    journal.add_trial(TrialRecord(trial_id=name, number=number, arm=arm, seed=seed, role=role, config=config))
    attempt = journal.start_attempt(name)
    for step in (1, 2):
        journal.add_reports([tracked_report(name, attempt, step, loss + 1 / step, train__lr=lr)])
    journal.finish(name, attempt, {"validation/loss": loss, "memory/peak_bytes": 4096.0 * d_model}, {"torch": "2"})


def test_the_ui_command_serves_the_experiment(shown: Shown) -> None:
    answer = shown.server.get(f"/api/2.0/mlflow/experiments/get?experiment_id={shown.experiment_id}")
    assert answer is not None
    assert json.loads(answer)["experiment"]["name"] == "shown"


def named(kind: str, text: str) -> str:
    """JavaScript for the element of a kind whose text is exactly this."""
    return f"[...document.querySelectorAll({kind!r})].find(part => part.innerText.trim() === {text!r})"


def texts(browser: Browser, selector: str) -> list[str]:
    """What the elements say, as soon as there are some."""
    script = f"(found => found.length && found)([...document.querySelectorAll({selector!r})].map(e => e.textContent))"
    return list(browser.wait_for(script))


def row(browser: Browser, name: str) -> list[str]:
    """The cells of one row of the comparison's tables (the table of metrics is made otherwise)."""
    script = f"""(() => {{
      const rows = [...document.querySelectorAll('tr')].map(row => [...row.children].map(e => e.innerText.trim()));
      return rows.find(cells => cells[0] === {name!r});
    }})()"""
    return list(browser.wait_for(script)[1:])


BETWEEN_THE_AXES = """(() => {
  const titles = [...document.querySelectorAll('.parcoords .axis-title')].map(e => e.getBoundingClientRect());
  const canvas = document.querySelector('[role=tabpanel][data-state=active] canvas').getBoundingClientRect();
  const [first, last] = [titles[0], titles.at(-1)].map(box => box.left + box.width / 2);
  return {left: first, right: last, top: canvas.top, bottom: canvas.bottom};
})()"""  # where the lines of the runs are; the scale of colours is to the right of it


def coloured_pixels(png: Path, box: dict[str, float]) -> int:
    """Number of pixels in a part of a screenshot that are neither white nor grey."""
    from PIL import Image

    part = Image.open(png).convert("RGB").crop((box["left"], box["top"], box["right"], box["bottom"]))
    pixels = zip(*(band.tobytes() for band in part.split()), strict=True)
    return sum(max(pixel) - min(pixel) > 60 for pixel in pixels)


def test_the_runs_are_ticked_and_compared_in_mlflows_own_pages(shown: Shown, tmp_path: Path) -> None:
    best_first = sorted(LOSSES, key=lambda arm: LOSSES[arm])
    tab = "[role=tabpanel][data-state=active]"
    with running_browser(tmp_path / "profile") as browser:
        browser.open(shown.address, width=1500, height=1000)
        runs = texts(browser, "[role=gridcell] a[href*='/runs/']")
        assert runs == [f"{arm}/0" for arm in best_first]  # neither the sweep's own run nor the tuning
        browser.click("document.querySelector('[aria-label=\"Select all runs\"]')")
        browser.click(named("button", "Compare"))

        assert texts(browser, ".parcoords .axis-title") == ["arm", "model.d_model", "training.lr", "train/loss"]
        browser.value("new Promise(done => setTimeout(done, 500))")  # the lines are drawn after their axes
        page = browser.screenshot(tmp_path / "parallel.png", whole=False)
        assert coloured_pixels(page, browser.value(BETWEEN_THE_AXES)) > 300
        assert row(browser, "Run Name:") == runs
        assert row(browser, "arm") == best_first
        assert row(browser, "training.lr") == [str(ARMS[arm][1]) for arm in best_first]
        metric = texts(browser, "a[title='Plot chart']").index("validation/loss") * len(runs)
        values = texts(browser, ".ReactVirtualized__Grid span")[metric : metric + len(runs)]
        assert values == [str(LOSSES[arm]) for arm in best_first]

        browser.click(named("[role=tab]", "Box Plot"))
        choose(browser, {"x-axis": "arm", "y-axis": "validation/loss"})
        assert texts(browser, f"{tab} .legendtext") == best_first
        assert len(texts(browser, f"{tab} .boxlayer path.box")) == len(ARMS)

        browser.click(named("[role=tab]", "Contour Plot"))
        choose(browser, {"xaxis": "model.d_model", "yaxis": "training.lr", "zaxis": "validation/loss"})
        assert texts(browser, f"{tab} .xtitle, {tab} .ytitle") == ["model.d_model", "training.lr"]
        assert len(texts(browser, f"{tab} .contourlayer .contourlevel path")) > 2
        browser.screenshot(tmp_path / "contour.png", whole=False)
        assert [url for url in browser.requests if not url.startswith((shown.server.uri, "data:", "blob:"))] == []


def choose(browser: Browser, axes: dict[str, str]) -> None:
    """Choose what the axes of the open plot show."""
    for axis, name in axes.items():
        browser.click(f"document.querySelector('[role=tabpanel][data-state=active] #{axis}-selector')")
        browser.click(named("[role=option]", name))
        browser.wait_for("!document.querySelector('[role=option]')")
