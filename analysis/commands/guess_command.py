"""`stackwise-analysis SOURCE`: no command and no options. What the runs are about is guessed, said, and answered.

`__main__` adds it to its own commands, hidden: it is called by the source alone (`printing.WholeHelp`).
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from stackwise_ray.core.errors import AnalysisError, first_few
from stackwise_ray.core.invocation import ANALYSIS, as_started

from ..table.outliers import outlier_lines
from .printing import GUESS, Json, Plugins, Source, examples, excluded, to_terminal
from .selecting import selection

if TYPE_CHECKING:
    import pandas as pd

app = typer.Typer(rich_markup_mode=None)
_SHOWN = 6
_BUDGETS_OF_A_GRID = 2


@app.command(GUESS, hidden=True, epilog=examples(GUESS, "runs.csv", "runs.csv --json"))
def guess(source: Source, plugin: Plugins = None, as_json: Json = False) -> None:
    """Guess arms, blocks and metric of a source, and answer.

    The answer is a sentence, after it the command that gives the whole table. Where two guesses are equally good, the
    commands of both are printed instead.
    """
    table, sweep = selection(None, None, None, False).read(source)
    if sweep is not None:
        word = "sequential" if sweep.is_adaptive else "compare"
        raise AnalysisError(f"{source}: the file of a sweep says what it is about; write {_command(word, source)}")
    if table.empty:
        from ..table.exclusions import refuse_without_runs

        refuse_without_runs(table)
    options, words = _comparison(source, table)
    if options:
        _answer_comparison(source, table, options, words, as_json)
    else:
        _answer_law(source, table, words, as_json)


def _comparison(source: str, table: pd.DataFrame) -> tuple[dict[str, Any], str]:
    """The options of `compare`, and what was guessed; no options and the reason where the runs are no comparison.

    Raises:
        AnalysisError: Several guesses are equally good: with the commands of each.
    """
    from ..table import guessing

    found = [(arm, guessing.blocks(table, arm)) for arm in guessing.arms(table)]
    paired = [(arm, block) for arm, blocks in found for block in blocks]
    if not paired:
        tried = ", ".join(arm for arm, _ in found)
        return {}, f"no column pairs the runs of {tried}" if tried else "no column holds arms that recur"
    metrics = guessing.metrics(table, [name for arm, block in paired for name in (arm, *block)])
    if not metrics:
        raise AnalysisError(
            f"{source}: no column looks like a metric; name it: {_command('compare', source)} --metric …"
        )
    guesses = [
        {"metric": metric, "direction": way, "arm": arm, "block": block, "baseline": guessing.baseline(table, arm)[0]}
        for metric in metrics
        for way in guessing.directions(table, metric)
        for arm, block in paired
    ]
    if len(guesses) > 1:
        what = [
            f"{name} {' or '.join(values)}"
            for name, values in (
                ("the metric", metrics),
                ("the arms", list(dict.fromkeys(arm for arm, _ in paired))),
                ("the direction", list(dict.fromkeys(str(guess["direction"]) for guess in guesses))),
                ("the block", list(dict.fromkeys(" and ".join(block) for _, block in paired))),
            )
            if len(values) > 1
        ]
        lines = "\n".join(f"  {_compare_command(source, guess)}" for guess in guesses[:_SHOWN])
        raise AnalysisError(f"{source}: which one? Equally good guesses are {'; '.join(what)}. Write one of:\n{lines}")
    return guesses[0], _words(table, guesses[0])


def _words(table: pd.DataFrame, guess: dict[str, Any]) -> str:
    from ..table.guessing import baseline
    from ..table.typed_columns import names_of

    arms = list(dict.fromkeys(names_of(table, guess["arm"])))
    shown = first_few(arms, _SHOWN)
    by_name = baseline(table, guess["arm"])[1]
    way = f" (to {guess['direction']})" if guess["direction"] else ""
    why = "by its name" if by_name else "the first arm of the table"
    return (
        f"guessed: arms are in '{guess['arm']}' ({shown}), runs are paired by {_quoted(guess['block'])}, the metric is "
        f"'{guess['metric']}'{way}, the baseline is {guess['baseline']} ({why})"
    )


def _answer_comparison(source: str, table: pd.DataFrame, options: dict[str, Any], words: str, as_json: bool) -> None:
    from ..paired.answer_words import first_names
    from ..paired.significance import compare

    command = _compare_command(source, options)
    block = options["block"]
    try:
        result = compare(
            table,
            options["metric"],
            options["baseline"],
            arm=options["arm"],
            block=block[0] if len(block) == 1 else list(block),
            direction=options["direction"],
        )
    except AnalysisError as error:
        raise AnalysisError(f"{error} ({words}; the command was: {command})") from error
    count = len(result.baseline_values) + sum(len(arm.values) for arm in result.arms)
    notes = [f"{first_names(arms)}: {note}" for note, arms in result.notes_of_arms().items()]
    _print(words, outlier_lines(result.outliers, count), result, command, table, as_json, notes=notes)


def _answer_law(source: str, table: pd.DataFrame, why: str, as_json: bool) -> None:
    """A scaling law, where the columns of one are there.

    Raises:
        AnalysisError: They are not, or the metric is open.
    """
    import numpy as np

    from ..scaling.law_table import FEWEST_SIZES, budget_groups
    from ..scaling.parametric_law import fit_scaling_law
    from ..table import guessing
    from ..table.selection import rename_columns

    there = guessing.BUDGETS & set(table.columns)
    losses = guessing.metrics(table)
    if "params" not in there or not there & {"tokens", "flops"} or not losses:
        raise AnalysisError(
            f"{source}: {why}, and it has no columns of a scaling law (params, tokens or flops, loss); say what it is "
            f"about: {_command('compare', source)} --metric … --arm … --block … --baseline …, or for a law "
            f"{_command('fit', source)} --map params=… --map tokens=… --map loss=…, where the columns are "
            f"{', '.join(map(str, table.columns[:12]))}"
        )
    options = {loss: ["--map", f"loss={loss}"] if loss != "loss" else [] for loss in losses}
    derived = [] if "tokens" in there else ["--tokens-from", "6N"]
    if len(losses) > 1:
        lines = "\n".join(f"  {_command('fit', source, *words, *derived)}" for words in options.values())
        raise AnalysisError(
            f"{source}: which one? Equally good guesses are the loss {' or '.join(losses)}. Write one of:\n{lines}"
        )
    loss = losses[0]
    command = _command("fit", source, *options[loss], *derived)
    words = f"guessed: a scaling law of '{loss}' over params and {'tokens' if 'tokens' in there else 'flops'} ({why})"
    try:
        result = fit_scaling_law(rename_columns(table, {"loss": loss}), tokens_from="6N" if derived else None)
    except AnalysisError as error:
        raise AnalysisError(f"{error} ({words}; the command was: {command})") from error
    also = []
    if "flops" in there:
        groups = budget_groups(table["flops"].to_numpy(dtype=float))
        sizes = [np.unique(table["params"][groups == one]).size for one in np.unique(groups)]
        if sum(size >= FEWEST_SIZES for size in sizes) >= _BUDGETS_OF_A_GRID:
            also = [f"the best size of each budget: {_command('isoflop', source, *options[loss], *derived)}"]
    _print(words, outlier_lines(result.outliers, result.n), result, command, table, as_json, also)


def _print(
    words: str,
    above: Sequence[str],
    result: Any,
    command: str,
    table: pd.DataFrame,
    as_json: bool,
    also: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> None:
    if as_json:
        from ..plain_json import dump_json

        print(dump_json({"guessed": words, "command": command, "answer": result.to_dict()}))
        return
    to_terminal(*above, words, result.sentence, *notes, *excluded(table))
    print("\n".join([f"the whole answer: {command}", *also]))  # never wrapped, so that it can be copied


def _compare_command(source: str, guess: dict[str, Any]) -> str:
    blocks = [word for name in guess["block"] for word in ("--block", name)]
    way = ("--direction", guess["direction"]) if guess["direction"] else ()
    roles = ("--metric", guess["metric"], *way, "--arm", guess["arm"], *blocks, "--baseline", guess["baseline"])
    return _command("compare", source, *roles)


def _command(name: str, source: str, *options: str) -> str:
    return f"{as_started(ANALYSIS)} {shlex.join([name, source, *options])}"


def _quoted(names: Sequence[str]) -> str:
    return " and ".join(f"'{name}'" for name in names)
