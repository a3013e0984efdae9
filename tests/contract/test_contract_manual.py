"""The manual is complete and true: every option with its default, every entry, every link, every command's words."""

from __future__ import annotations

import dataclasses
import json
import re
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import stackwise_ray
from analysis.__main__ import app
from stackwise_ray.__main__ import COMMANDS
from stackwise_ray.config.loading import load_sweep, load_trial
from stackwise_ray.config.reading.shipped import shipped_search_spaces
from stackwise_ray.config.space.sweep_config import NOT_KEYS, SweepConfig
from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.config.trial.paths import annotations_of, classes_of, components_in
from stackwise_ray.config.trial.registered import OptionsByName
from stackwise_ray.core.metric_catalogue import metric_paths
from stackwise_ray.core.registries import BY_KIND
from tests.manual import PAGES, ROOT, anchors, blocks, command_lines, is_ours, links, option_names, parsed, rows

OURS = [line for line in command_lines() if is_ours(line)]
REQUIRED = "required"


# --------------------------------------------------------------------------------------------------- the options


def options(kind: type, prefix: str) -> Iterator[tuple[str, Any]]:
    """Dotted path and default of every option of a class and of what is below it; a group is told by its parts."""
    for field in dataclasses.fields(kind):
        path = f"{prefix}{field.name}"
        annotation = annotations_of(kind)[field.name]
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        tells_the_class = field.name == "kind" and len(typing.get_args(annotation)) == 1
        if field.name in NOT_KEYS or tells_the_class:
            continue
        parts = default if isinstance(default, tuple) else (default,)
        if not any(map(dataclasses.is_dataclass, parts)):
            yield path, REQUIRED if default is dataclasses.MISSING else default
        for below in classes_of(components_in(annotation)):
            if isinstance(below, OptionsByName):
                for name in below.registry.names():
                    yield from options(below.options(name), f"{path}.{name}.")
            else:
                yield from options(below, f"{path}.")


def written(cell: str) -> Any:
    """The default that a table gives, as a value."""
    text = cell.strip("`")
    try:
        return json.loads(text)
    except ValueError:
        return yaml.safe_load(text)


def as_written(default: Any) -> Any:
    """A default in the form that a table gives."""
    if isinstance(default, tuple):
        return [as_written(value) for value in default]
    return dict(default) if isinstance(default, Mapping) else default


@pytest.mark.parametrize("root", [TrialConfig, SweepConfig])
def test_every_option_is_in_a_table_with_its_default(root: type) -> None:
    told: dict[str, list[Any]] = {}
    for row in rows():
        for subject in row.subjects:
            told.setdefault(subject, []).append(written(row.cells[1]) if len(row.cells) > 1 else None)
    wrong = sorted(
        {f"{path}: {default!r}" for path, default in options(root, "") if as_written(default) not in told.get(path, [])}
    )
    assert wrong == [], "add a row `path` | default | meaning to a table of docs/, or correct its default"


def test_a_table_names_no_option_that_is_gone() -> None:
    known = {path for root in (TrialConfig, SweepConfig) for path, _ in options(root, "")}
    above = {path[: end.start()] for path in known for end in re.finditer(r"\.", path)}
    roots = tuple(f"{path.partition('.')[0]}." for path in known if "." in path)
    named = {
        subject
        for row in rows()
        for subject in row.subjects
        if subject.startswith(roots) and re.fullmatch(r"[\w.]+", subject)
    }
    assert sorted(named - known - above - {"model.mixer.kind", "model.channel_mixer.kind", "design.kind"}) == []


def test_every_entry_of_a_registry_is_in_a_table() -> None:
    told = {subject for row in rows() for subject in row.subjects}
    absent = {kind: [name for name in registry.names() if name not in told] for kind, registry in BY_KIND.items()}
    assert {kind: names for kind, names in absent.items() if names} == {}, "add a row to a table of docs/"


def test_every_preset_and_every_shipped_search_space_is_in_a_table() -> None:
    told = {subject for row in rows() for subject in row.subjects}
    presets = ROOT / "stackwise_ray" / "presets"
    names = {
        path.relative_to(presets / group).with_suffix("").as_posix()
        for group in ("model", "data", "training", "optimizer")
        for path in (presets / group).rglob("*.yaml")
    }
    assert sorted((names | set(shipped_search_spaces())) - told) == []


def test_the_page_of_metrics_has_them_all_and_no_other() -> None:
    page = ROOT / "docs" / "metrics.md"
    told = [subject for row in rows() if row.page == page for subject in row.subjects]
    assert sorted(told) == sorted(metric_paths())


def test_every_name_of_the_package_is_in_a_table() -> None:
    told = {subject for row in rows() for subject in row.subjects}
    assert sorted(set(stackwise_ray.__all__) - told) == []


# ------------------------------------------------------------------------------------------------- pages and links


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    broken = []
    for link in links(page):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_page_is_in_the_table_of_contents() -> None:
    contents = links(ROOT / "docs" / "README.md")
    assert sorted({page.name for page in PAGES} - {"README.md"} - set(contents)) == []


def test_the_readme_is_read_in_five_minutes() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 950


def test_every_file_that_a_page_names_exists() -> None:
    pattern = r"`((?:examples|search_spaces|benchmarks|docs)/[\w./]+\.\w+)"
    named = {name for page in PAGES for name in re.findall(pattern, page.read_text(encoding="utf-8"))}
    assert len(named) > 10
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


# ------------------------------------------------------------------------------------------------------- commands


def test_the_pages_show_commands() -> None:
    assert len(OURS) >= 30


@pytest.mark.parametrize("line", OURS)
def test_a_command_has_the_options_that_it_is_shown_with(line: str) -> None:
    parsed(line)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_table_of_a_command_has_all_its_options(name: str) -> None:
    command = typer.main.get_command(COMMANDS[name])
    told = [row for row in rows() if row.header == f"option of `stackwise {name}`"]
    assert {subject for row in told for subject in row.subjects[:1]} == option_names(command) - {"--help"}


@pytest.mark.parametrize("name", ["compare", "fit", "isoflop"])
def test_the_table_of_an_analysis_has_all_its_options(name: str) -> None:
    def told(header: str) -> set[str]:
        return {subject for row in rows() if row.header == header for subject in row.subjects[:1]}

    command = typer.main.get_command(app).commands[name]
    every = told("option of a table") | {"--json", "--markdown", "--latex", "--plugin", "--help"}
    assert told(f"option of `{name}`") == option_names(command) - every


SWEEPS = sorted(
    {
        (values["file"], *(values["words"] or ()))
        for name, values in map(parsed, OURS)
        if name == "sweep" and values["file"]
    }
)


@pytest.mark.parametrize("words", SWEEPS, ids=" ".join)
def test_a_sweep_that_a_page_shows_is_valid(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    file, *overrides = words
    if file in shipped_search_spaces() and not overrides:
        return  # loaded and planned by `test_contract_search_spaces`
    if file == "my.yaml":
        (text,) = [block.text for block in blocks() if block.page == PAGES[0] and block.language == "yaml"]
        (tmp_path / file).write_text(text, encoding="utf-8")
        monkeypatch.chdir(tmp_path)
    load_sweep(file, overrides=overrides)


@pytest.mark.parametrize(
    "line", [line for line in OURS if line.startswith("stackwise train") and "--plugin" not in line]
)
def test_a_trial_that_a_page_shows_is_valid(line: str) -> None:
    load_trial(parsed(line)[1]["words"])


def test_the_search_space_of_the_first_sweep_is_the_shipped_example() -> None:
    page = ROOT / "docs" / "first-sweep.md"
    shown = [block.text for block in blocks() if block.page == page and block.language == "yaml"]
    assert shown == [(ROOT / "examples" / "02_compare_two_arms.yaml").read_text(encoding="utf-8")]


def test_the_other_search_spaces_that_a_page_shows_are_parts_of_valid_ones(tmp_path: Path) -> None:
    head = {"name": "x", "base": {"model": "decoder/gpt2_family/tiny", "data": "markov"}}
    page = ROOT / "docs" / "search-spaces.md"
    shown = [yaml.safe_load(block.text) for block in blocks() if block.page == page and block.language == "yaml"]
    assert len(shown) == 2
    for number, part in enumerate(shown):
        file = tmp_path / f"{number}.yaml"
        rest = {} if "design" in part else {"design": {"kind": "arms", "arms": {"a": {}, "b": {"model.n_layers": 2}}}}
        rest |= {} if "design" in part else {"analysis": [{"compare": {"baseline": "a"}}]}
        file.write_text(yaml.safe_dump(head | rest | part), encoding="utf-8")
        load_sweep(file)


def test_every_make_target_of_a_page_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    targets = set(re.findall(r"`make (\w+)`", text)) | set(re.findall(r"^make (\w+)", text, flags=re.M))
    assert len(targets) >= 4
    assert [target for target in sorted(targets) if not re.search(rf"^{target}:", makefile, flags=re.M)] == []


def test_every_extra_of_a_page_exists() -> None:
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    named = set(re.findall(r'-e "\.\[(\w+)\]"', text))
    assert named == set(extras)


def test_the_file_tree_has_every_room_and_nothing_that_is_not_there() -> None:
    package = ROOT / "stackwise_ray"
    page = ROOT / "docs" / "architecture.md"
    (tree,) = [block.text for block in blocks() if block.page == page]
    listed: set[Path] = set()
    for line in tree.splitlines():
        names = re.findall(r"(?<![\w/])(\w+/|\w+\.(?:py|md))", line)
        above = package if line.startswith(" ") else ROOT
        for name in names:  # a room, or what is in the line's first one
            places = [place for place in (above / name, above / names[0] / name) if place.exists()]
            assert places, f"{name} is not there: {line}"
            listed.add(places[0])
    rooms = {path.parent for top in (package, ROOT / "analysis") for path in top.glob("*/*.*") if path.suffix != ".pyc"}
    commands = {path for path in package.glob("*.py") if not path.name.startswith("__")}
    assert len(rooms) > 20
    assert rooms | commands <= listed, sorted(map(str, (rooms | commands) - listed))
