"""Registries whose entries are modules of a package: their names come from the files alone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.registry import Registry


def test_an_ending_tells_entries_from_what_is_beside_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "animals_of_a_test"
    package.mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    animals = Registry[int]("animal", package=package.name, ending="_animal")
    monkeypatch.setattr(sys.modules[__name__], "ANIMALS", animals, raising=False)
    (package / "__init__.py").write_text("")
    (package / "cage.py").write_text("raise AssertionError('this is no entry')")
    (package / "_animal.py").write_text("raise AssertionError('this is no entry')")
    (package / "cat_animal.py").write_text(f"from {__name__} import ANIMALS\nANIMALS.register('cat')(4)\n")
    assert animals.names() == ("cat",)
    assert "cat" in animals
    assert "cage" not in animals
    assert f"{package.name}.cat_animal" not in sys.modules
    assert animals.get("cat") == 4
    with pytest.raises(ConfigError, match="unknown animal 'cart'; did you mean 'cat'"):
        animals.get("cart")
