"""The description of an environment: complete, JSON, cheap, and honest about the source revision."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import stackwise_ray
from stackwise_ray.core.environment import describe_environment, nvidia_driver, package_version, source_revision


def test_it_names_versions_and_machine_and_is_plain_json() -> None:
    found = describe_environment()
    assert found["stackwise_ray"] == stackwise_ray.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["torch"] == package_version("torch")
    assert found["cores"] >= 1
    assert json.loads(json.dumps(found)) == found


def test_it_imports_none_of_the_packages_that_it_names() -> None:
    code = (
        "import sys; from stackwise_ray.core.environment import describe_environment; describe_environment();"
        "print([n for n in ('torch', 'ray', 'transformers', 'optuna', 'mlflow', 'numpy') if n in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_variables_that_change_what_runs_are_named_and_places_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STACKWISE_BK_BACKEND", "reference")
    monkeypatch.setenv("STACKWISE_DATA", "/somewhere")
    assert describe_environment()["variables"]["STACKWISE_BK_BACKEND"] == "reference"
    assert "STACKWISE_DATA" not in describe_environment()["variables"]


def test_an_absent_package_has_no_version() -> None:
    assert package_version("no-such-distribution-at-all") is None


def git(*words: str, cwd: Path) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    return subprocess.run(["git", *identity, *words], cwd=cwd, check=True, capture_output=True, text=True).stdout


def test_the_revision_of_a_checkout_says_whether_the_package_was_changed(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "module.py").write_text("a = 1\n")
    assert source_revision(package) == {}
    git("init", "-q", cwd=tmp_path)
    assert source_revision(package) == {}, "a repository without a commit has no revision"
    git("add", ".", cwd=tmp_path)
    git("commit", "-q", "-m", "first", cwd=tmp_path)
    revision = git("rev-parse", "HEAD", cwd=tmp_path).strip()
    (tmp_path / "notes.txt").write_text("beside the package")
    assert source_revision(package) == {"git": revision, "git_dirty": False}
    (package / "module.py").write_text("a = 2\n")
    assert source_revision(package) == {"git": revision, "git_dirty": True}


def test_the_driver_is_read_from_what_its_kernel_module_says(tmp_path: Path) -> None:
    said = tmp_path / "version"
    assert nvidia_driver(said) is None
    for text, version in (
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\nGCC: 12\n",
            "535.104.05",
        ),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n", "580.65.06"),
        ("", None),
    ):
        said.write_text(text)
        assert nvidia_driver(said) == version
