"""Constraints such as ``model.d_model % model.n_heads == 0``, evaluated without `eval`.

An expression is parsed by `ast`, every node is checked against a short list, and it is walked by hand: arithmetic,
comparisons (chained too), `and`, `or`, `not`, `in`, lists, numbers, text, true, false, null and dotted paths of a
trial. No calls, no indexing, no attributes of Python objects. Length, depth and the size of numbers are bounded.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from stackwise_ray.config.trial import paths
from stackwise_ray.config.trial.editing import value_at
from stackwise_ray.config.trial.validation import describe, show
from stackwise_ray.core.errors import ConfigError

LONGEST = 500
"""Characters of one expression."""

MOST_NODES = 150
LARGEST = 1e300
"""Bound on every intermediate number, so that ``9 ** 9 ** 9`` is refused instead of computed."""

_CONSTANTS = {"true": True, "false": False, "null": None}

_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_ORDER: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


@dataclass(frozen=True)
class Expression:
    """One parsed constraint.

    Attributes:
        text: As written.
        names: The trial's paths that it reads.
    """

    text: str
    names: tuple[str, ...]
    tree: ast.expr
    source: str | None = None
    place: str | None = None

    def holds(self, plain: Mapping[str, Any]) -> bool:
        """Whether the constraint is met.

        Args:
            plain: A whole trial as plain data, defaults filled in.

        Raises:
            ConfigError: A type does not fit its operation, a division by zero, or a result that is not true or false.
        """
        value = self._evaluate(self.tree, plain)
        if not isinstance(value, bool):
            raise self._error(f"gives {show(value)}, which is {describe(value)}; a constraint must give true or false")
        return value

    def _evaluate(self, node: ast.expr, plain: Mapping[str, Any]) -> Any:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name() | ast.Attribute():
                name = _dotted(node)
                return _CONSTANTS[name] if name in _CONSTANTS else value_at(plain, name)
            case ast.List(elts=entries) | ast.Tuple(elts=entries) | ast.Set(elts=entries):
                return [self._evaluate(entry, plain) for entry in entries]
            case ast.BoolOp(op=combine, values=parts):
                stop = isinstance(combine, ast.Or)
                for part in parts:
                    if self._truth(part, plain) is stop:
                        return stop
                return not stop
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return not self._truth(operand, plain)
            case ast.UnaryOp(op=sign, operand=operand):
                value = self._number(operand, plain)
                return -value if isinstance(sign, ast.USub) else value
            case ast.BinOp(left=left, op=arithmetic, right=right):
                return self._arithmetic(type(arithmetic), self._number(left, plain), self._number(right, plain))
            case ast.Compare(left=left, ops=operations, comparators=others):
                return self._compare(left, operations, others, plain)
        raise AssertionError(f"unchecked node {node!r}")

    def _truth(self, node: ast.expr, plain: Mapping[str, Any]) -> bool:
        value = self._evaluate(node, plain)
        if not isinstance(value, bool):
            raise self._error(f"has {_text(node)} = {show(value)}; true or false is needed there")
        return value

    def _number(self, node: ast.expr, plain: Mapping[str, Any]) -> int | float:
        value = self._evaluate(node, plain)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            guard = f"; guard it: {_text(node)} == null or …" if value is None else ""
            raise self._error(f"has {_text(node)} = {show(value)}; a number is needed there{guard}")
        return value

    def _arithmetic(self, operation: type[ast.operator], left: int | float, right: int | float) -> int | float:
        if operation is ast.Pow and abs(right) > 64:
            raise self._error(f"raises to the power {show(right)}; the largest exponent is 64")
        try:
            value = _ARITHMETIC[operation](left, right)
        except ZeroDivisionError:
            raise self._error(f"divides {show(left)} by zero") from None
        except OverflowError:
            value = math.inf
        if isinstance(value, complex):
            raise self._error(f"raises the negative {show(left)} to the power {show(right)}")
        if not abs(value) <= LARGEST:
            raise self._error("gives a number above 1e300; rewrite it with smaller numbers")
        return value  # type: ignore[no-any-return]

    def _compare(
        self, left: ast.expr, operations: list[ast.cmpop], others: list[ast.expr], plain: Mapping[str, Any]
    ) -> bool:
        for operation, right in zip(operations, others, strict=True):
            if type(operation) in _ORDER:
                met = _ORDER[type(operation)](self._number(left, plain), self._number(right, plain))
            else:
                met = self._equality(operation, self._evaluate(left, plain), right, plain)
            if not met:
                return False
            left = right
        return True

    def _equality(self, operation: ast.cmpop, value: Any, right: ast.expr, plain: Mapping[str, Any]) -> bool:
        other = self._evaluate(right, plain)
        if isinstance(operation, (ast.Eq, ast.NotEq)):
            return _same(value, other) is isinstance(operation, ast.Eq)
        if not isinstance(other, (list, tuple)):
            raise self._error(f"has {_text(right)} = {show(other)}; a list is needed there")
        return any(_same(value, entry) for entry in other) is isinstance(operation, ast.In)

    def _error(self, problem: str) -> ConfigError:
        return ConfigError(f"the constraint '{self.text}' {problem}", path=self.place, source=self.source)


def _same(one: Any, other: Any) -> bool:
    """Equality in which true is not 1."""
    return bool(one == other) and isinstance(one, bool) is isinstance(other, bool)


def parse_expression(text: Any, *, source: str | None = None, place: str | None = None) -> Expression:
    """A constraint, checked before anything is evaluated.

    Args:
        place: Dotted path of it, e.g. ``design.require.0``.

    Raises:
        ConfigError: Not text, not an expression, an operation outside the list, or a path that no trial has.

    >>> parse_expression("training.lr < 1e-2").names
    ('training.lr',)
    """
    if not isinstance(text, str):
        raise ConfigError(f"= {show(text)} is {describe(text)}; a constraint must be text", path=place, source=source)

    def refuse(problem: str) -> ConfigError:
        return ConfigError(f"the constraint '{text[:80]}' {problem}", path=place, source=source)

    if len(text) > LONGEST:
        raise refuse(f"has {len(text)} characters; at most {LONGEST} are allowed")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise refuse(f"is not an expression: {error.msg} (column {error.offset})") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise refuse(f"is not an expression: {error or 'nested too deeply'}") from None
    if sum(1 for _ in ast.walk(tree)) > MOST_NODES:
        raise refuse(f"has more than {MOST_NODES} parts; write several shorter constraints")
    names: list[str] = []
    _check(tree, names, refuse)
    for name in names:
        if not paths.is_trial_path(name) or name == paths.MAX_STEPS:
            raise refuse(f"reads '{name}', but a trial has no such key; {paths.suggest_path(name)}")
        if paths.components_at(name):
            raise refuse(f"reads '{name}', which is a group of fields; name one of its fields")
    return Expression(text=text, names=tuple(dict.fromkeys(names)), tree=tree, source=source, place=place)


def _check(node: ast.AST, names: list[str], refuse: Callable[[str], ConfigError]) -> None:
    match node:
        case ast.Constant(value=value):
            if value is not None and not isinstance(value, (bool, int, float, str)):
                raise refuse(f"contains {value!r}; constants are numbers, text, true, false and null")
            if isinstance(value, float) and not math.isfinite(value):
                raise refuse("contains a number that is not finite; give a finite one")
        case ast.Name() | ast.Attribute():
            name = _dotted(node, refuse)
            if name not in _CONSTANTS:
                names.append(name)
        case ast.BinOp(op=operation) if type(operation) in _ARITHMETIC:
            _check(node.left, names, refuse)
            _check(node.right, names, refuse)
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.UAdd()):
            _check(node.operand, names, refuse)
        case ast.BoolOp(values=parts) | ast.List(elts=parts) | ast.Tuple(elts=parts) | ast.Set(elts=parts):
            for part in parts:
                _check(part, names, refuse)
        case ast.Compare(ops=operations) if not any(isinstance(op, (ast.Is, ast.IsNot)) for op in operations):
            for part in (node.left, *node.comparators):
                _check(part, names, refuse)
        case _:
            what = _WORDS.get(type(node), type(node).__name__)
            raise refuse(f"uses {what}; it may use arithmetic, comparisons, and, or, not, in, lists and dotted paths")


_WORDS: dict[type[ast.AST], str] = {
    ast.Call: "a call",
    ast.Subscript: "an index",
    ast.Lambda: "a lambda",
    ast.IfExp: "a conditional",
    ast.Compare: "'is' (write ==)",
    ast.ListComp: "a comprehension",
    ast.GeneratorExp: "a comprehension",
    ast.JoinedStr: "a format string",
    ast.BinOp: "a bit operation",
}


def _dotted(node: ast.expr, refuse: Callable[[str], ConfigError] | None = None) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        assert refuse is not None, "parse_expression refuses such a node"
        raise refuse("takes a part of something that is not a dotted path")
    return ".".join([node.id, *reversed(parts)])


def _text(node: ast.expr) -> str:
    return ast.unparse(node)
