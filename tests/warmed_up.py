"""Does once what nearly every forked process does: builds and trains a model, writes it, draws a figure.

The first time costs a second and more of a processor: patterns are compiled, tables filled, fonts found. The process
from which warm ones are forked imports this last (see `tests.warm_processes`), so that they need not. No test has its
data, and no thread runs afterwards. With a GPU nothing is trained, as what torch starts for it survives no fork.
"""

from __future__ import annotations

import gc
import tempfile
from pathlib import Path

import pytest
import torch

from analysis.plots.figures import Panel, PanelFigure, draw_panels
from stackwise_ray.data.corpora.markov import MarkovSource
from tests.own_cache import own_cache
from tests.small_trials import run, with_data


def _train(folder: Path) -> None:
    torch.set_num_threads(1)
    trial = with_data(markov=MarkovSource(order=1, n_symbols=4, n_tokens=4099))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STACKWISE_CACHE", str(own_cache(folder / "cache")))
        run(trial, folder / "trial", keep_model=True, calibrate=True)


def _draw(folder: Path) -> None:
    draw_panels(PanelFigure(path=folder / "figure.png", panels=(Panel("a", lambda axes: axes.plot([1, 2], [1, 2])),)))


with tempfile.TemporaryDirectory() as _folder:
    if not torch.cuda.is_available():
        _train(Path(_folder))
    _draw(Path(_folder))
gc.collect()
gc.freeze()  # what is there stays: the collector of a forked process need not go through it
