"""Tasks on a trained run: the same numbers as its own evaluation, tasks with items, and what is kept for later."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from stackwise_ray.config.trial import TrialConfig, data_config, replace_data, replace_training
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.metric import Metric
from stackwise_ray.core.registries import TASKS
from stackwise_ray.tasks.evaluating import ITEMS, RESULTS, evaluate_tasks, keep_own
from stackwise_ray.tasks.perplexity import Perplexity, perplexity_metrics
from stackwise_ray.tasks.task import Task, TaskData, TaskFacts, TaskScores, TaskSource, Whereabouts, item_means
from stackwise_ray.training.scoring import TrainedModel, open_run
from tests.small_trials import TRIAL, run

QUESTIONS = [
    {"question": "Is it ", "choices": ["so", "not"], "answer": 0},
    {"question": "two and two ", "choices": ["four", "five"], "answer": 1},
    {"question": "one ", "choices": ["a", "b"], "answer": 0},
]


def tiny_choice() -> type[Task]:
    """A task with items, as anybody would write it: a multiple choice by log-likelihood, offline."""

    class TinyChoice(Task):
        facts = TaskFacts(
            name="tiny_choice",
            title="Three questions",
            kind="multiple_choice",
            source=TaskSource(paper="none", dataset="three questions", licence="none"),
            metrics=(
                Metric(
                    path="tiny_choice/accuracy", unit="share of questions", direction="maximize", reported_by="a test"
                ),
            ),
            split="test",
            n_items=3,
            item="questions",
            floor="chance",
            context="nothing is cut",
        )

        def where(self, path):
            return Whereabouts(place=path)

        def prepare(self, trained, path, progress):
            text = Path(path).read_bytes()
            return TaskData(content=json.loads(text), fingerprint=hashlib.sha256(text).hexdigest())

        def score(self, trained, data, limit, progress):
            items = []
            for number, row in enumerate(data.content[:limit]):
                likely = [log_likelihood(trained, row["question"], choice) for choice in row["choices"]]
                right = float(likely.index(max(likely)) == row["answer"])
                items.append({"item": number, "accuracy": right, "log_likelihoods": likely})
            means = item_means(items, ["tiny_choice/accuracy"])
            return TaskScores(metrics=means, floors={"tiny_choice/accuracy": 0.5}, n_items=len(items), items=items)

    return TinyChoice


@torch.no_grad()
def log_likelihood(trained: TrainedModel, context: str, continuation: str) -> float:
    ids = torch.tensor([list((context + continuation).encode())])
    logs = trained.model.eval()(input_ids=ids).logits[0, :-1].log_softmax(-1)
    return float(logs.gather(1, ids[0, 1:, None])[len(context.encode()) - 1 :].sum())


def own_text() -> type[Task]:
    """A perplexity of the user's own text."""

    class OwnText(Perplexity):
        corpus = "text_files"
        facts = TaskFacts(
            name="own_text",
            title="Own text",
            kind="perplexity",
            source=TaskSource(paper="none", dataset="sixty notes", licence="none"),
            metrics=perplexity_metrics("own_text"),
            split="test",
            n_items=None,
            item="words",
            floor="unigrams of the train split",
            context="nothing is cut",
        )

    return OwnText


@pytest.fixture(autouse=True)
def tasks() -> Iterator[None]:
    """Both tasks are registered, and no other test sees them or their metrics."""
    with ExitStack() as registered:
        for make in (tiny_choice, own_text):
            task = make()
            registered.enter_context(TASKS.registered(task.facts.name, task))
        yield


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("notes")
    for i in range(60):
        (folder / f"{i}.txt").write_text(f"Note {i} says that {i} and {i} make {2 * i}, and <|eos|> is text.\n" * 12)
    return folder


def on_notes(notes: Path, **options: Any) -> TrialConfig:
    data = data_config(corpus="text_files", path=str(notes), seq_len=16, validation_tokens=256, **options)
    return replace(TRIAL, data=data)


@pytest.fixture(scope="module", params=["bytes", "bpe:280"])
def finished(
    request: pytest.FixtureRequest, notes: Path, tmp_path_factory: pytest.TempPathFactory, module_cache: Path
) -> tuple[Path, dict[str, float]]:
    """A finished run on the notes, with the metrics of its own final evaluation."""
    folder = tmp_path_factory.mktemp("run")
    _, result = run(on_notes(notes, tokenizer=request.param, final_evaluation="full"), folder, keep_model=True)
    return folder, dict(result.metrics)


@pytest.fixture
def run_folder(notes: Path, module_cache: Path, tmp_path: Path, trained_once: Path) -> Path:
    """A copy of a finished run in bytes, to be changed."""
    return Path(shutil.copytree(trained_once, tmp_path / "run"))


@pytest.fixture(scope="module")
def trained_once(notes: Path, module_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("once")
    run(on_notes(notes, final_evaluation="fixed"), folder, keep_model=True)
    return folder


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    file = tmp_path / "questions.json"
    file.write_text(json.dumps(QUESTIONS))
    return file


def evaluate(folder: Path, *names: str, path: Path, limit: int | None = None) -> list[tuple[dict, bool]]:
    found = evaluate_tasks(open_run(folder), names, path=str(path), limit=limit, folder=folder / "outputs")
    return [(dict(result.content), result.kept) for result in found]


def test_a_task_on_a_runs_own_text_gives_the_numbers_of_its_final_evaluation(
    finished: tuple[Path, dict[str, float]], notes: Path
) -> None:
    folder, metrics = finished
    [(content, _)] = evaluate(folder, "own_text", path=notes)
    for count in ("tokens", "words", "bytes", "min_context"):
        assert content["counts"][count] == metrics[f"test/{count}"]
    assert content["metrics"]["own_text/loss"]["value"] == pytest.approx(metrics["test/loss"], rel=1e-6)
    for unit in ("token", "word", "byte"):
        own = metrics[f"test/perplexity_{unit}"]
        assert content["metrics"][f"own_text/perplexity_{unit}"]["value"] == pytest.approx(own, rel=1e-6)
    assert 1 < content["floor"]["own_text/perplexity_byte"] < content["floor"]["own_text/perplexity_word"]


def test_a_task_with_items_has_standard_errors_and_logs_its_items_once(run_folder: Path, questions: Path) -> None:
    [(content, _)] = evaluate(run_folder, "tiny_choice", path=questions)
    items = [json.loads(line) for line in (run_folder / "outputs" / ITEMS).read_text().splitlines()]
    assert [(item["task"], item["item"]) for item in items] == [("tiny_choice", number) for number in range(3)]
    right = [item["accuracy"] for item in items]
    found = content["metrics"]["tiny_choice/accuracy"]
    assert found["value"] == pytest.approx(sum(right) / 3)
    spread = sum((value - found["value"]) ** 2 for value in right)
    assert found["standard_error"] == pytest.approx((spread / 2 / 3) ** 0.5)
    assert (content["n_items"], content["floor"]["tiny_choice/accuracy"]) == (3, 0.5)
    [(part, _)] = evaluate(run_folder, "tiny_choice", path=questions, limit=1)
    assert (part["n_items"], part["limit"]) == (1, 1)
    assert "standard_error" not in part["metrics"]["tiny_choice/accuracy"]
    assert len((run_folder / "outputs" / ITEMS).read_text().splitlines()) == 1


def test_results_of_tasks_and_of_own_data_stand_beside_each_other(
    run_folder: Path, questions: Path, notes: Path
) -> None:
    evaluate(run_folder, "tiny_choice", path=questions)
    trained = open_run(run_folder)
    own = {"model": "m", "weights": trained.fingerprint, "data_fingerprint": "f", "metrics": {"validation/loss": 1.0}}
    keep_own(run_folder / "outputs", own)
    evaluate(run_folder, "own_text", path=notes)
    results = json.loads((run_folder / "outputs" / RESULTS).read_text())
    assert set(results["tasks"]) == {"tiny_choice", "own_text"}
    assert {"validation/loss", "tiny_choice/accuracy", "own_text/perplexity_word"} <= set(results["metrics"])
    assert len((run_folder / "outputs" / ITEMS).read_text().splitlines()) == 3


def test_the_same_weights_and_data_are_scored_once(
    run_folder: Path, questions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate(run_folder, "tiny_choice", path=questions)
    with monkeypatch.context() as patch:
        patch.setattr(TrainedModel, "model", property(lambda self: pytest.fail("the weights were loaded again")))
        again = evaluate(run_folder, "tiny_choice", path=questions)
    assert [kept for _, kept in (*first, *again)] == [False, True]
    assert first[0][0] == again[0][0]
    (run_folder / "outputs" / ITEMS).unlink()
    assert not evaluate(run_folder, "tiny_choice", path=questions)[0][1]  # results never stand without their items
    questions.write_text(json.dumps(QUESTIONS[:2]))
    assert not evaluate(run_folder, "tiny_choice", path=questions)[0][1]


@pytest.mark.parametrize("change", ["version", "seq_len", "precision", "entry", "limit"])
def test_what_decides_a_result_beside_weights_and_data_makes_it_anew(
    change: str, run_folder: Path, questions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, limit = open_run(run_folder), 2 if change == "limit" else None

    def kept(trained: TrainedModel, limit: int | None = None) -> bool:
        names, folder = ["tiny_choice"], run_folder / "outputs"
        [result] = evaluate_tasks(trained, names, path=str(questions), limit=limit, folder=folder)
        return result.kept

    assert [kept(trained), kept(trained)] == [False, True]
    training, data = trained.trial.training, trained.trial.data
    other: dict[str, dict[str, Any]] = {
        "seq_len": {"data": replace_data(data, seq_len=8)},
        "precision": {"training": replace_training(training, precision="bf16")},
        "entry": {"training": replace_training(training, regime="depth_time", entry="nearest_r")},
    }
    changed = replace(trained, trial=replace(trained.trial, **other.get(change, {})))
    if change == "version":
        task = TASKS.get("tiny_choice")
        monkeypatch.setattr(task, "facts", replace(task.facts, version=task.facts.version + 1))
    assert not kept(changed, limit)


def test_results_of_other_weights_are_not_taken_over(run_folder: Path, questions: Path, notes: Path) -> None:
    evaluate(run_folder, "tiny_choice", path=questions)
    results = run_folder / "outputs" / RESULTS
    results.write_text(json.dumps({**json.loads(results.read_text()), "weights": "of another model"}))
    assert not evaluate(run_folder, "own_text", path=notes)[0][1]
    assert set(json.loads(results.read_text())["tasks"]) == {"own_text"}
    assert (run_folder / "outputs" / ITEMS).read_text() == ""


def test_a_model_whose_tokens_or_positions_do_not_reach_is_refused(run_folder: Path, notes: Path) -> None:
    trained = open_run(run_folder)
    longer = replace(trained, trial=replace(trained.trial, data=replace(trained.trial.data, seq_len=64)))
    with pytest.raises(ConfigError, match=r"data\.seq_len = 64: .* has 16 positions; choose 16 or less"):
        list(evaluate_tasks(longer, ["own_text"], path=str(notes)))
    other = replace(trained, tokenizer="bpe:300")
    with pytest.raises(ConfigError, match=r"data\.tokenizer = bpe:300 has 300 tokens, but the model .* 260"):
        list(evaluate_tasks(other, ["own_text"], path=str(notes)))


def test_all_tasks_are_asked_before_the_first_one_runs(run_folder: Path, questions: Path) -> None:
    trained = open_run(run_folder)
    masked = replace(trained, trial=replace(TRIAL, model=replace(TRIAL.model, family="bert", role="encoder")))
    with pytest.raises(ConfigError, match="fills in masks"):
        list(evaluate_tasks(masked, ["tiny_choice", "own_text"], path=str(questions), folder=run_folder / "outputs"))
    assert not (run_folder / "outputs" / ITEMS).exists()
