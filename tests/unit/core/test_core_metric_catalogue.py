"""Which metrics are known, and how the values of a metric and their differences are written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stackwise_ray.config.trial.registered import NoOptions
from stackwise_ray.core import metric_catalogue, plugins
from stackwise_ray.core.errors import EntryError, PluginError
from stackwise_ray.core.metric import Metric
from stackwise_ray.core.metric_catalogue import (
    find_metric,
    format_difference,
    format_metric,
    format_size,
    metric_paths,
    register_metrics,
)
from stackwise_ray.core.plugins import load_plugin
from stackwise_ray.core.registries import COMPONENTS, SCHEDULERS, TASKS
from stackwise_ray.core.registry import registrations
from stackwise_ray.models.component import Component


@pytest.mark.parametrize("path", metric_paths())
def test_a_difference_is_written_in_the_form_of_its_metric(path: str) -> None:
    metric = find_metric(path)
    assert metric is not None
    shown = format_difference(path, -5460.0, (-6000.0, 4000.0))
    assert shown.startswith("−")
    if metric.form in ("count", "bytes", "seconds"):
        value, low, high = (format_metric(path, size) for size in (5460.0, 6000.0, 4000.0))
        assert shown == f"−{value} [−{low}, +{high}]"
        assert format_difference(path, 5460.0) == f"+{value} [no interval]"
        assert format_size(path, 5460.0) == value
    assert ("pp" in shown) is (metric.form == "share")


@pytest.mark.parametrize("path", ["validation/loss", "loss", "my/metric", None])
def test_a_difference_of_plain_numbers_has_as_many_digits_as_its_interval_supports(path: str | None) -> None:
    assert format_difference(path, 0.66312, (0.64112, 0.68412)) == "+0.663 [+0.641, +0.684]"
    assert format_difference(path, -1.0) == "−1.00 [no interval]"


FAILING = """
from dataclasses import dataclass
from stackwise_ray.core.metric import Metric
from stackwise_ray.core.metric_catalogue import find_metric, register_metrics
from stackwise_ray.models.component import COMPONENTS, Component

@dataclass(frozen=True, kw_only=True)
class Options:
    pass

class Mine(Component):
    name = "mine"
    options = Options
    metrics = (Metric(path="mine/depth", unit="layers", reported_by="trials with it"),)
    observable = "mine/depth"

assert find_metric("mine/depth") is None, "a class that is only defined registers nothing"
register_metrics(Metric(path="ours/score", unit="points", reported_by="a test"))
COMPONENTS.register("mine")(Mine())
assert find_metric("mine/depth") and find_metric("ours/score")
{end}
"""


def test_the_metrics_of_a_plugin_that_fails_are_withdrawn_with_its_entries(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FAILING.format(end="raise RuntimeError('too late')"))
    with pytest.raises(PluginError, match=r"RuntimeError at line .*: too late"):
        load_plugin(str(tmp_path / "mine.py"))
    assert "mine" not in COMPONENTS
    assert [find_metric(path) for path in ("mine/depth", "ours/score")] == [None, None]
    assert find_metric("validation/loss") is not None


TAKES_OUT = {
    "its own entry": "COMPONENTS.register('one')(Brings()); COMPONENTS.unregister('one')",
    "its own entry for a while": "\nwith COMPONENTS.registered('one', Brings()): pass",
    "its own entry and puts it in again": (
        "COMPONENTS.register('one')(Brings()); COMPONENTS.unregister('one'); COMPONENTS.register('one')(Brings())"
    ),
    "an entry of ours": "COMPONENTS.get('early_exit'); COMPONENTS.unregister('early_exit')",
}
TAKING = """
from types import SimpleNamespace
from stackwise_ray.core.metric import Metric
from stackwise_ray.core.metric_catalogue import register_metrics
from stackwise_ray.core.registries import SCHEDULERS
from stackwise_ray.models.component import COMPONENTS, Component

SCORE = Metric(path="one/score", unit="points", reported_by="a test")
DEPTH = Metric(path="one/depth", unit="layers", reported_by="trials with it")

class Brings(Component):
    name = "one"
    options = None
    metrics = (DEPTH,)
    observable = "one/depth"

register_metrics(SCORE)
SCHEDULERS.register("first")(SimpleNamespace(options=(), make=lambda **options: None))
{body}
"""


@pytest.mark.parametrize("what", TAKES_OUT)
def test_all_is_as_before_when_a_plugin_takes_something_out_and_then_fails(what: str, tmp_path: Path) -> None:
    (tmp_path / "takes.py").write_text(TAKING.format(body=TAKES_OUT[what] + "\nraise RuntimeError('too late')"))
    paths, ours = metric_paths(), COMPONENTS.get("early_exit")
    with pytest.raises(PluginError, match=r"RuntimeError at line .*: too late"):
        load_plugin(str(tmp_path / "takes.py"))
    assert metric_paths() == paths
    assert COMPONENTS.get("early_exit") is ours
    assert "one" not in COMPONENTS
    assert "first" not in SCHEDULERS


def test_all_other_changes_are_undone_where_one_cannot_be() -> None:
    with registrations() as seen:
        register_metrics(METRIC)
        seen.undo.callback(lambda: 1 / 0)
        COMPONENTS.register("one")(COMPONENTS.get("early_exit"))
        with pytest.raises(ZeroDivisionError):
            seen.withdraw()
    assert find_metric(METRIC.path) is None
    assert "one" not in COMPONENTS


def test_a_plugin_of_metrics_alone_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for holder, name in ((plugins, "_loaded"), (metric_catalogue, "_KNOWN"), (metric_catalogue, "_HOLDERS")):
        monkeypatch.setattr(holder, name, getattr(holder, name).copy())  # other tests have no plugin
    (tmp_path / "scores.py").write_text(REGISTERS)
    assert load_plugin(str(tmp_path / "scores.py")).metrics == (METRIC.path,)
    assert find_metric(METRIC.path) == METRIC


def test_a_plugin_that_takes_out_all_that_it_registered_registers_nothing(tmp_path: Path) -> None:
    (tmp_path / "nothing.py").write_text(
        "from stackwise_ray.core.registries import COMPONENTS\n"
        "with COMPONENTS.registered('one', COMPONENTS.get('early_exit')): pass\n"
    )
    with pytest.raises(PluginError, match="registers nothing"):
        load_plugin(str(tmp_path / "nothing.py"))


METRIC = Metric(path="alone/score", unit="points", reported_by="a test")
REGISTERS = """
from stackwise_ray.core.metric import Metric
from stackwise_ray.core.metric_catalogue import register_metrics
METRIC = Metric(path="alone/score", unit="points", reported_by="a test")
register_metrics(METRIC)
"""


def test_a_component_brings_its_metrics_while_it_is_registered() -> None:
    class Brings(Component):
        name = "brings"
        options = NoOptions
        metrics = (Metric(path="brings/depth", unit="layers", reported_by="trials with it"),)
        observable = "brings/depth"

    class Takes(Brings):
        metrics = (Metric(path="validation/loss", unit="metres", reported_by="trials with it"),)

    assert "brings/depth" not in metric_paths()
    with COMPONENTS.registered("brings", Brings()):
        assert "brings/depth" in metric_paths()
    assert "brings/depth" not in metric_paths()
    with pytest.raises(EntryError, match="'validation/loss' is registered already with another record"):
        COMPONENTS.register("takes")(Takes())
    assert "takes" not in COMPONENTS


@pytest.mark.parametrize("owner", [*TASKS.names(), *COMPONENTS.names()])
def test_the_metrics_of_every_task_and_component_are_known_before_anybody_asks_for_one(owner: str) -> None:
    code = "from stackwise_ray.core.metric_catalogue import metric_paths; print(*metric_paths())"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert f"{owner}/" in shown
