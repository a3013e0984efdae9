"""Intervals where noise has levels: pre-training seeds, fine-tuning seeds within each, and test items that all share.

`hierarchical_bootstrap` is the public face. Averaging over everything and dividing by √n would count a thousand items
of three trained models as three thousand observations; here each level is resampled as it was drawn.

Source: Davison and Hinkley (1997), Bootstrap Methods and their Application, §3.8; Owen (2007), "The pigeonhole
bootstrap", Annals of Applied Statistics 1, for the crossed level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from stackwise_ray.core.errors import AnalysisError, did_you_mean

from ..paired.intervals import Interval
from ..table.placement import mixtures, placed, refuse_incomparable
from ..table.typed_columns import names_of
from .aggregation import check_resampling, resampled_interval

FEWEST_UNITS = 3
"""Of the first level: an interval over 2 only says that the mean lies between them, and covers about half the time."""
_FULL_UNITS = 20
_COVERAGE = (
    "too few for the level that it states: a 95 % interval was measured to cover .73 to .83 with 3, .85 to .89 with "
    "5, .90 to .93 with 10 and .92 to .94 with 20"
)
"""Of 4,000 replays (2,000 for the upper figure), units × 2 × 20, 500 draws each; standard errors below .009. The lower
figure is where the first level carries all noise but a tenth, the upper where the second level has as much."""

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray


LEVELS = ("pretraining_seed", "finetuning_seed")


def default_levels(table: pd.DataFrame) -> tuple[str, ...]:
    """The levels of noise where nobody names them: those two columns, or `seed` where the table has only that."""
    if "seed" in table.columns and not set(LEVELS) & set(table.columns):
        return ("seed",)
    return LEVELS


def hierarchical_bootstrap(
    table: pd.DataFrame,
    metric: str,
    nested: Sequence[str] = LEVELS,
    crossed: str | None = "item",
    arm: str = "arm",
    baseline: str | None = None,
    bootstrap: int = 2000,
    rng: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """The mean of every arm, or its mean difference from the baseline, with an interval over all levels of noise.

    Each resample draws the first nested level, within each drawn unit the second, and so on; the crossed level is drawn
    once for all of them. The percentile interval of the resampled means is as good as the first level is long: its
    `n` is the number of first-level units, and below 20 of them its `method` says how far it covers too little.

    Args:
        table: One row per measurement.
        metric: Column to average.
        nested: Columns from the outermost level of noise to the innermost; the units of a level are those of their
            parent alone (fine-tuning seed 0 of two pre-training seeds is two units).
        crossed: Column that all of these share (the same test items); None: there is none.
        arm: Column with the arms.
        baseline: Arm to subtract, measurement by measurement; None: the means of all arms.
        bootstrap: Resamples.
        rng: Seed of the resampling.
        level: Nominal coverage.

    Raises:
        AnalysisError: A column or baseline that is not there, fewer than 3 units of the first level, another level of
            one unit, unequal numbers below two units, a missing or non-finite measurement, or arms whose units do not
            match where they are subtracted.
    """
    import numpy as np

    check_resampling(bootstrap, level, rng)
    levels = [*nested, *([crossed] if crossed else [])]
    if not nested:
        raise AnalysisError("nested names no column: say which seeds were drawn, outermost first")
    usable, notes = placed(table, metric, arm, levels, role="level")
    refuse_incomparable(usable, metric)
    notes += mixtures(usable)
    if not np.isfinite(usable["_value"]).all():
        bad = usable[~np.isfinite(usable["_value"])].iloc[0]
        raise AnalysisError(f"{metric} of arm '{bad['_arm']}' at {bad['_block']} is {bad['_value']}: no mean over it")
    names = list(dict.fromkeys(usable["_arm"]))
    if baseline is not None and baseline not in names:
        raise AnalysisError(f"baseline = '{baseline}' is not an arm of the table; {did_you_mean(baseline, names)}")
    if names == [baseline]:
        raise AnalysisError(f"there is only one arm, '{baseline}', in column '{arm}': nothing to subtract it from")
    grids = {name: _grid_of(usable[usable["_arm"] == name], name, nested, crossed) for name in names}
    found = {}
    for name in names:
        if name == baseline:
            continue
        values, shape, places = grids[name]
        if baseline is not None:
            theirs, _, base_places = grids[baseline]
            if places != base_places:
                odd = sorted(set(places).symmetric_difference(base_places))[0]
                raise AnalysisError(f"arms '{name}' and '{baseline}' do not share {odd}: they cannot be subtracted")
            values = values - theirs
        draws = _draws(values, shape, bootstrap, np.random.default_rng(rng), crossed is not None)
        sizes = [*shape, *([values.shape[1]] if crossed else [])]
        units = " × ".join(f"{size} {column}" for size, column in zip(sizes, levels, strict=True))
        method = f"hierarchical bootstrap over {units} ({bootstrap} draws)"
        few = [f"{shape[0]} {nested[0]}: {_COVERAGE}"] if shape[0] < _FULL_UNITS else []
        found[name] = resampled_interval(float(values.mean()), draws, level, method, shape[0], [*few, *notes])
    return found


def _grid_of(
    part: pd.DataFrame, arm: str, nested: Sequence[str], crossed: str | None
) -> tuple[NDArray[np.float64], list[int], list[str]]:
    """Values (innermost units, items) in the order of their places, the size of each nested level, and the places."""
    import numpy as np

    paths = list(zip(*(names_of(part, column, block=True) for column in nested), strict=True))
    items = names_of(part, crossed, block=True).tolist() if crossed else [""] * len(part)
    cells = {(*path, item): value for path, item, value in zip(paths, items, part["_value"], strict=True)}
    shape = []
    for depth, column in enumerate(nested):
        children: dict[tuple[str, ...], set[str]] = {}
        for path in paths:
            children.setdefault(path[:depth], set()).add(path[depth])
        sizes = {len(units) for units in children.values()}
        if len(sizes) > 1:
            raise AnalysisError(
                f"arm '{arm}': between {min(sizes)} and {max(sizes)} different {column} below one unit; keep equally "
                f"many, or the units would not weigh alike"
            )
        shape.append(sizes.pop())
        if shape[-1] < 2:
            raise AnalysisError(f"arm '{arm}': one {column} shows no noise of its level; leave it out of the levels")
    if shape[0] < FEWEST_UNITS:
        raise AnalysisError(
            f"arm '{arm}': {shape[0]} {nested[0]} are too few to resample ({FEWEST_UNITS} are the least): the interval "
            f"would be the range of {shape[0]} means, and covers .55 where it says .95; train more, or give the means"
        )
    leaves, columns = sorted(set(paths)), sorted(set(items))
    missing = [(*leaf, item) for leaf in leaves for item in columns if (*leaf, item) not in cells]
    if missing:
        raise AnalysisError(f"arm '{arm}' was not measured at {' × '.join(missing[0])} ({len(missing)} such cells)")
    if crossed and len(columns) < 2:
        raise AnalysisError(f"arm '{arm}': one {crossed} shows no noise of its level; leave it out of the levels")
    values = np.array([[cells[(*leaf, item)] for item in columns] for leaf in leaves], dtype=float)
    return values, shape, [" × ".join(part for part in (*leaf, item) if part) for leaf in leaves for item in columns]


def _draws(
    values: NDArray[np.float64], shape: Sequence[int], bootstrap: int, rng: np.random.Generator, crossed: bool
) -> NDArray[np.float64]:
    """Means of `bootstrap` resamples; rows of `values` are the innermost units, grouped by their parents."""
    import numpy as np

    units = np.zeros((bootstrap, 1), dtype=np.int64)
    for depth, size in enumerate(shape):
        chosen = rng.integers(0, size, size=(bootstrap, math.prod(shape[:depth]), size))
        units = (units[..., None] * size + chosen).reshape(bootstrap, -1)
    count = values.shape[1]
    if not crossed:
        return np.asarray(values[:, 0][units].mean(axis=1))
    weights = rng.multinomial(count, np.full(count, 1 / count), size=bootstrap) / count
    return np.asarray(np.take_along_axis(weights @ values.T, units, axis=1).mean(axis=1))
