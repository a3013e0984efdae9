"""What the pages of docs/ show is run: commands of analysis, plans, a short training, its evaluation, code blocks."""

from __future__ import annotations

import math
import random
import shlex
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stackwise_ray.data.corpora.python_stdlib import PythonStandardLibrary
from stackwise_ray.evaluate import app as evaluate
from stackwise_ray.sweep import app as sweep
from stackwise_ray.train import app as train
from tests.manual import ROOT, blocks, command_lines

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("module_cache")]

LINES = command_lines()
ANALYSED = [
    line
    for line in LINES
    if line.startswith("stackwise-analysis ") and "experiments/" not in line  # reports have tests of their own
]
PLANNED = [line for line in LINES if line.startswith("stackwise train ") and line.endswith("--plan")]
TRAINED = "stackwise train model=decoder/llama_family/tiny training.max_steps=200 --output runs/x"
SHORT = ["training.max_steps=3", "training.batch_tokens=512", "data.seq_len=64", "data.final_evaluation=fixed"]
SHORT += ["data.validation_tokens=1024", "training.evaluations=1"]


@pytest.fixture(scope="module", autouse=True)
def _a_part_of_the_standard_library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The pages train on Python's standard library, of which six packages are enough here."""
    library = Path(sysconfig.get_path("stdlib"))
    folder = tmp_path_factory.mktemp("library")
    for name in ("asyncio", "concurrent", "email", "http", "json", "logging"):
        shutil.copytree(library / name, folder / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PythonStandardLibrary, "_root", folder)
        yield


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables that the pages name, with the columns that they say; `chosen.csv` is for options of every table."""
    folder = tmp_path_factory.mktemp("tables")
    draw = random.Random(0)
    runs = ["arm,seed,run_name,params,tokens,flops,loss,hellaswag"]
    for seed in range(4):
        for arm in ("adam", "other"):
            for params in (1e6, 2e6, 4e6, 8e6, 16e6):
                for budget in (1e14, 3e14, 1e15, 3e15):
                    tokens = budget / (6 * params)
                    loss = 1.8 + 480 / params**0.35 + 2100 / tokens**0.37 + draw.gauss(0, 0.002)
                    accuracy = 0.25 + 0.6 / (1 + math.exp((loss - 6) / 0.8))
                    name = f"{arm}-{seed}-{params:g}"
                    runs.append(f"{arm},{seed},{name},{params:g},{tokens:g},{budget:g},{loss:.5f},{accuracy:.4f}")
    (folder / "fit.csv").write_text("\n".join(runs))
    pairs = [f"{arm},{seed},{2 + draw.gauss(shift, 0.01):.4f}" for seed in range(6) for arm, shift in _ARMS]
    (folder / "runs.csv").write_text("\n".join(["arm,seed,loss", *pairs]))
    wide = [f"{pair},{pair.rpartition(',')[2]},{lr},small" for pair in pairs for lr in (0.001, 0.01)]
    (folder / "chosen.csv").write_text("\n".join(["arm,seed,loss,val_loss,lr,model", *wide]))
    answers = [f"{arm},{item},{int(draw.random() < 0.6)}" for arm in ("gpt2", "bk") for item in range(40)]
    (folder / "answers.csv").write_text("\n".join(["arm,item,correct", *answers]))
    scores = [
        f"{arm},{task},{seed},{0.5 + shift + draw.gauss(0, 0.02):.4f}"
        for task in "abcdefgh"
        for seed in range(4)
        for arm, shift in _ARMS
    ]
    (folder / "scores.csv").write_text("\n".join(["arm,task,seed,accuracy", *scores]))
    items = [
        f"{arm},{outer},{inner},{item},{int(draw.random() < 0.6 + shift)}"
        for arm, shift in _ARMS
        for outer in range(3)
        for inner in range(2)
        for item in range(20)
    ]
    (folder / "glue.csv").write_text("\n".join(["arm,pretraining_seed,finetuning_seed,item,accuracy", *items]))
    return folder


_ARMS = (("adam", 0.0), ("other", 0.05))


def test_the_pages_show_what_is_run_here() -> None:
    assert len(ANALYSED) >= 9
    assert len(PLANNED) >= 4
    assert TRAINED in LINES


@pytest.mark.parametrize("line", ANALYSED)
def test_a_command_of_analysis_runs(line: str, tables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from analysis.__main__ import app

    monkeypatch.chdir(tables)
    words = shlex.split(line)[1:]
    if words[0] in {"fit", "isoflop", "frontier", "accuracy"}:
        words[1] = "fit.csv"
    elif "--where" in words:
        words[1] = "chosen.csv"
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert done.output.strip()


@pytest.mark.parametrize("line", PLANNED)
def test_a_plan_of_one_trial_is_printed(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(train, shlex.split(line)[2:])
    assert done.exit_code == 0, done.output
    assert "FLOPs" in done.output
    assert list(tmp_path.iterdir()) == []


def test_the_search_space_of_the_readme_is_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = [block.text for block in blocks() if block.page == ROOT / "README.md" and block.language == "yaml"]
    (tmp_path / "my.yaml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert "stackwise sweep my.yaml --plan" in LINES
    done = CliRunner().invoke(sweep, ["my.yaml", "--plan"])
    assert done.exit_code == 0, done.output
    assert "deep" in done.output


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, module_cache: Path) -> Iterator[Path]:
    """The folder in which the shown training has run, for three steps."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        words = [word for word in shlex.split(TRAINED)[2:] if not word.startswith("training.max_steps")]
        done = CliRunner().invoke(train, [*words, *SHORT])
        assert done.exit_code == 0, done.output
        yield folder


def test_a_trained_model_is_evaluated(trained: Path) -> None:
    assert "stackwise evaluate --run runs/x" in LINES
    done = CliRunner().invoke(evaluate, ["--run", "runs/x"])
    assert done.exit_code == 0, done.output
    assert (trained / "runs" / "x" / "outputs" / "evaluation.json").is_file()


def test_the_code_that_loads_a_trained_model_runs(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = [block.text for block in blocks() if "AutoModelForCausalLM" in block.text]
    exec(compile(code, "docs/python.md", "exec"), {})
    assert capsys.readouterr().out.startswith("def ")


def test_the_code_of_the_kernels_runs() -> None:
    page = ROOT / "docs" / "kernels.md"
    (code,) = [block.text for block in blocks() if block.page == page]
    names: dict[str, object] = {}
    exec(compile(code, "docs/kernels.md", "exec"), names)
    assert tuple(names["u"].shape) == (2, 8, 512, 16)  # type: ignore[attr-defined]
