"""YAML as this program reads it: search-space files, stored configs and the value in `path=value`.

Three differences from PyYAML's `SafeLoader`, each because the other behaviour has cost people runs: `3e-4` is a
number (YAML 1.1 reads text), `yes`, `off` and `1:30` are text (YAML 1.1 reads a truth value and 90), and a key that
is given twice in one mapping is an error that names both lines (PyYAML keeps the last). Keys are always text.

Called by `config.loading`. It does not know what a key means.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from stackwise_ray.core.errors import ConfigError

_INT = re.compile(r"[-+]?(?:[0-9][0-9_]*|0x[0-9a-fA-F_]+)$")
_FLOAT = re.compile(
    r"[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+"
    r"|\.(?:inf|Inf|INF))$|\.(?:nan|NaN|NAN)$"
)


class _DuplicateKeyError(yaml.MarkedYAMLError):
    """A key that is given twice in one mapping."""


class _Loader(yaml.SafeLoader):
    """The safe loader with the resolvers of YAML 1.2's core schema."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's protocol)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[str, int] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be plain text", problem_mark=key_node.start_mark)
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            line = key_node.start_mark.line + 1
            if key_node.value in lines:
                raise _DuplicateKeyError(
                    problem=f"the key '{key_node.value}' is given twice, in lines {lines[key_node.value]} and {line}",
                    problem_mark=key_node.start_mark,
                )
            lines[key_node.value] = line
        self.flatten_mapping(node)
        # A key given beside a merge (`<<: *defaults`) comes after it and wins, as YAML defines.
        return {key.value: self.construct_object(value, deep=deep) for key, value in node.value}


_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
_Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"<<$"), ["<"])


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = node.value.replace("_", "")
    return int(text, 16) if "0x" in text else int(text)  # 010 is ten, not YAML 1.1's eight


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


def parse_yaml(text: str, *, source: str | None = None) -> Any:
    """The one document in `text`.

    Raises:
        ConfigError: It is not YAML, or a key is given twice; the message has the line.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{source or 'text'}:{mark.line + 1}" if mark else source
        advice = "; keep one of them" if isinstance(error, _DuplicateKeyError) else f" (column {_column(mark)})"
        raise ConfigError(f"{error.problem or error.context}{advice}", source=place) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"not readable as YAML: {error}", source=source) from None
    except ValueError as error:  # a number too long for int(), an impossible binary
        raise ConfigError(f"not readable as YAML: {error}", source=source) from None
    except RecursionError:
        raise ConfigError("nested too deeply to be a configuration", source=source) from None


def _column(mark: yaml.Mark | None) -> int:
    return mark.column + 1 if mark else 1


def load_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file; an empty file is an empty mapping.

    Raises:
        ConfigError: The file is missing, a folder, not UTF-8, not YAML, or holds something else than a mapping.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError("no such file", source=str(path)) from None
    except IsADirectoryError:
        raise ConfigError("is a folder, not a file", source=str(path)) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"is not UTF-8 text (byte {error.start})", source=str(path)) from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", source=str(path)) from None
    document = parse_yaml(text, source=str(path))
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(f"contains a {type(document).__name__}; it must be a mapping (key: value)", source=str(path))
    return document


def parse_value(text: str) -> Any:
    """The value of a command-line word `path=value`.

    Numbers, true, false, null, [lists] and {mappings} are read as in a file, "quoted" is text, and what is none of
    these is text as it is, so that globs and paths need no second layer of quotes.

    >>> parse_value("3e-4"), parse_value('"3e-4"'), parse_value("[1, 2]"), parse_value("*.txt")
    (0.0003, '3e-4', [1, 2], '*.txt')
    """
    stripped = text.strip()
    if stripped[:1] in ("[", "{", '"', "'"):
        return parse_yaml(stripped)
    try:
        value = parse_yaml(stripped)
    except ConfigError:
        return stripped
    return value if isinstance(value, (int, float)) or (value is None and stripped) else stripped


def dump_yaml(value: Any) -> str:
    """`value` as block YAML that `parse_yaml` reads back equal; floats by repr, keys in their order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=False)


class _Dumper(yaml.SafeDumper):
    """The safe dumper under the same resolvers, so that text which looks like a number is quoted."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        # PyYAML folds a Unicode line break inside a plain or single-quoted scalar into a space.
        style = '"' if _BREAKS.search(text) else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_BREAKS = re.compile("[\r\x85\u2028\u2029]")
_Dumper.add_representer(str, _Dumper.represent_text)
