"""The perplexity tasks on the real files: a run's own final evaluation says the same, and the floors are known."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stackwise_ray.config.trial import data_config
from stackwise_ray.core.registries import CORPORA
from stackwise_ray.evaluate import app
from stackwise_ray.tasks.perplexity import unigram_nll
from tests.small_trials import run, with_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("module_cache"),
    pytest.mark.skipif("STACKWISE_DATA" not in os.environ, reason="STACKWISE_DATA is not set: no real files"),
]


def test_the_task_ptb_says_what_a_run_on_ptb_says_and_is_not_computed_twice(tmp_path: Path) -> None:
    data = data_config(corpus="ptb", tokenizer="bytes", seq_len=128, validation_tokens=256, final_evaluation="full")
    trial = replace(with_model(n_layers=1), data=data)
    _, result = run(trial, tmp_path, keep_model=True)
    words = ["--run", str(tmp_path), "--tasks", "ptb"]
    answer = CliRunner().invoke(app, words, catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    content = json.loads((tmp_path / "outputs" / "evaluation.json").read_text())["tasks"]["ptb"]
    assert content["counts"]["words"] == content["n_items"] == 82_430
    for unit in ("token", "word", "byte"):
        own = result.metrics[f"test/perplexity_{unit}"]
        assert content["metrics"][f"ptb/perplexity_{unit}"]["value"] == pytest.approx(own, rel=1e-6)
    assert "floor 639.79" in answer.output
    assert "published 141.2" in answer.output
    again = CliRunner().invoke(app, words, catch_exceptions=False)
    assert "computed before" in again.output


@pytest.mark.parametrize(("name", "files"), [("ptb", "ptb/ptb.{}.txt"), ("wikitext2", "wikitext-2/{}.txt")])
def test_the_unigram_floor_counted_from_the_files_line_by_line(name: str, files: str) -> None:
    place = f"{os.environ['STACKWISE_DATA']}/{files}"
    train, test = (
        Counter(word for line in Path(place.format(split)).read_text().split("\n")[:-1] for word in (*line.split(), 0))
        for split in ("train", "test")
    )
    nll = -sum(n * math.log((train[word] + 1) / (train.total() + len(train) + 1)) for word, n in test.items())
    assert unigram_nll(CORPORA.get(name)(data_config(corpus=name))) == pytest.approx(nll)
    assert set(test) <= set(train), "no word of the test split is unseen"
