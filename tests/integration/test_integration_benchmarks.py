"""The benchmark scripts run, at sizes that take a second, and say what they measured."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import transformers

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_decoding_measures_every_family_at_every_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--sizes", "tiny", "--contexts", "16", "8", "--steps", "4", "--rounds", "1"]
    files = ["--json", str(tmp_path / "d.json"), "--figure", str(tmp_path / "d.png")]
    monkeypatch.setattr(sys, "argv", ["benchmarks/decoding.py", *words, *files])
    threads, verbosity = torch.get_num_threads(), transformers.logging.get_verbosity()
    try:
        script("decoding").main()
    finally:
        torch.set_num_threads(threads)
        transformers.logging.set_verbosity(verbosity)
    found = json.loads((tmp_path / "d.json").read_text())
    kept = {(row["family"], row["context"]): row["cache_bytes"] for row in found["rows"]}
    # bk tiny: 4 layers of 8 heads of 1 + 8 complex128. llama tiny: keys and values of width 64 in float32, 4 layers.
    assert kept == {
        **{("bk", n): 4 * 8 * 9 * 16 for n in (8, 16)},
        **{("llama", n): n * 2 * 64 * 4 * 4 for n in (8, 16)},
    }
    assert all(row[name] > 0 for row in found["rows"] for name in ("step_s", "step_cpu_s", "generate_s"))
    assert (tmp_path / "d.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "tiny bk: longest over shortest context" in printed
    assert "load average" in printed
