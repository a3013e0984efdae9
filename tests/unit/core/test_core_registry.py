"""Registries whose entries are modules of a package: their names come from the files alone."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stackwise_ray.core.errors import ConfigError, EntryError
from stackwise_ray.core.registries import BY_KIND


def test_an_ending_tells_entries_from_what_is_beside_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "animals_of_a_test"
    package.mkdir()
    monkeypatch.syspath_prepend(tmp_path)  # the registry's package is made here
    (package / "__init__.py").write_text(
        "from stackwise_ray.core.registry import Registry\n"
        "ANIMALS = Registry('animal', package=__name__, ending='_animal')\n"
    )
    (package / "cage.py").write_text("raise AssertionError('this is no entry')")
    (package / "_animal.py").write_text("raise AssertionError('this is no entry')")
    (package / "cat_animal.py").write_text("from animals_of_a_test import ANIMALS\nANIMALS.register('cat')(4)\n")
    animals = importlib.import_module(package.name).ANIMALS
    assert animals.names() == ("cat",)
    assert "cat" in animals
    assert "cage" not in animals
    assert f"{package.name}.cat_animal" not in sys.modules
    assert animals.get("cat") == 4
    with pytest.raises(ConfigError, match="unknown animal 'cart'; did you mean 'cat'"):
        animals.get("cart")


@pytest.mark.parametrize("kind", BY_KIND)
@pytest.mark.parametrize("name", ["my-comp", "", "a.b", "a b", "1st", "_own", "class", "null", "Yes", "é", 3])
def test_a_name_that_can_be_no_key_is_refused_by_every_kind_when_it_is_registered(kind: str, name: Any) -> None:
    with pytest.raises(EntryError, match=f"{BY_KIND[kind].kind} .*(write 'my_|write '[a-z]|give a word)"):
        BY_KIND[kind].register(name)(next(iter(BY_KIND[kind].items()))[1])
    assert name not in BY_KIND[kind]


READ = {
    "families": {"blocks_end_in_norm"},
    "corpora": {"signature"},
    "regimes": {"masks"},
    "flags": {"measured_by"},
    "components": {"one_stage", "report", "misfit", "held_out_tokens", "evaluation_bound"},
    "analyses": {"check", "reads", "comparison", "refuses_search"},
}
"""What rules, plans and reports read of an entry without asking whether it is there."""


@pytest.mark.parametrize(("kind", "attribute"), [(kind, one) for kind, read in READ.items() for one in sorted(read)])
def test_an_entry_that_lacks_something_that_is_read_of_it_is_refused_when_it_is_registered(
    kind: str, attribute: str
) -> None:
    entry = next(iter(BY_KIND[kind].items()))[1]
    kept = {name: getattr(entry, name) for name in dir(entry) if not name.startswith("__") and name != attribute}
    with pytest.raises(EntryError, match=f"'mine' is a SimpleNamespace, which lacks {attribute};"):
        BY_KIND[kind].register("mine")(SimpleNamespace(**kept))


@pytest.mark.parametrize("kind", BY_KIND)
def test_an_entry_that_is_not_what_its_kind_is_is_refused_with_what_it_lacks(kind: str) -> None:
    with pytest.raises(EntryError, match=f"{BY_KIND[kind].kind} 'mine' is a str, which lacks "):
        BY_KIND[kind].register("mine")("an entry")
    assert "mine" not in BY_KIND[kind]
