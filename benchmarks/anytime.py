"""What looking after every seed costs and what it wrongly decides: the anytime-valid verdict beside a plain t test.

    python benchmarks/anytime.py                              # under two minutes on one core
    python benchmarks/anytime.py --replays 500 --most 60 --results /tmp/anytime      # does it run?

Every replay is a list of paired differences, normal with standard deviation 1. Under the null both methods look at
every n up to --most and stop at the first rejection; the share that ever stops is the false positive rate. With an
effect, the share that has decided rightly by 30 seeds and the median number of seeds are counted, with a margin the
designs that end in "equivalent". Non-inferiority and one side are decided by the one-sided e-process, with a margin of
1 standard deviation: at the margin both "non-inferior" and "inferior" are wrong. Last, the seeds that a fixed design
spends which guessed the effect wrong: planned for power .8 at half or twice the true effect, its size and the power
that it really has, beside the mean seeds of looking (an undecided replay stops at the size that the most pessimistic
fixed design would have spent).

Written under --results: anytime.json, anytime.md, anytime.png. The bars: false positives ≤ 5 %, and so false claims of
non-inferiority, of inferiority and of one side; power by 30 seeds ≥ .98
at 1.2 sd and ≥ .70 at .8 sd; median ≤ 6 seeds at 3 sd.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy.stats import t as student

import analysis
from analysis.anytime.e_process import confidence_sequence, first_crossings
from analysis.anytime.one_sided import first_claims, one_sided_sequence
from analysis.paired.hypotheses import Asked
from analysis.plots.figures import canvas, save, styled
from analysis.render import Grid

ALPHA = 0.05
LOOKS = (3, 5, 10, 20, 30, 50, 100, 200, 400)
EFFECTS = (0.4, 0.8, 1.2, 2.0, 3.0)
BY = 30
CHUNK = 2_000_000


def decided(
    effect: float, replays: int, most: int, seed: int, margin: float | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The n at which each replay decides (0: never) and what, and the n at which a t test first rejects."""
    rng = np.random.default_rng(seed)
    step = max(1, CHUNK // most)
    parts = []
    for start in range(0, replays, step):
        draws = rng.normal(effect, 1.0, size=(min(step, replays - start), most))
        at, kind = first_crossings(confidence_sequence(draws, ALPHA), ALPHA, margin)
        parts.append((at, kind, plain_t(draws)))
    at, kind, plain = (np.concatenate(part) for part in zip(*parts, strict=True))
    return at, kind, plain


def plain_t(draws: NDArray[np.float64]) -> NDArray[np.int64]:
    """The first n from 2 on at which the two-sided t test of the prefix rejects, 0 for never."""
    n = np.arange(1, draws.shape[1] + 1)
    total = np.cumsum(draws, axis=1)
    spread = np.cumsum(draws**2, axis=1) - total**2 / n
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.abs(total / n) / np.sqrt(spread / (n - 1) / n)
    statistic[:, 0] = 0.0
    critical = np.concatenate([[np.inf], student.ppf(1 - ALPHA / 2, n[1:] - 1)])
    hit = statistic >= critical
    return np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, 0)


def share(hits: NDArray[np.bool_]) -> dict[str, float]:
    """A share with its binomial standard error."""
    p = float(hits.mean())
    return {"share": p, "standard_error": float(np.sqrt(p * (1 - p) / hits.size))}


def null_replays(replays: int, most: int) -> dict[str, Any]:
    """False positives by the last n looked at, of both methods."""
    at, _, plain = decided(0.0, replays, most, seed=0)
    looks = [n for n in LOOKS if n < most] + [most]
    return {
        "replays": replays,
        "looked_at_every_n_up_to": most,
        "anytime": {n: share((at > 0) & (at <= n)) for n in looks},
        "plain_t": {n: share((plain > 0) & (plain <= n)) for n in looks},
    }


def effects(replays: int, most: int) -> list[dict[str, Any]]:
    """Power by 30 seeds and seeds until the decision, an effect a row."""
    rows = []
    for number, effect in enumerate(EFFECTS):
        at, kind, _ = decided(effect, replays, most, seed=1 + number)
        right = (at > 0) & (kind == 1)
        waited = np.where(at > 0, at, most + 1)
        quantiles = {f"{q:.0%}": int(np.quantile(waited, q, method="inverted_cdf")) for q in (0.5, 0.8, 0.95)}
        rows.append(
            {
                "effect_sd": effect,
                "decided_rightly_by_30": share(right & (at <= BY)),
                "decided_wrongly_ever": share((at > 0) & (kind == -1)),
                "fixed_power_at_30": analysis.power(1.0, effect=effect, n=BY),
                "fixed_seeds_for_power_0.8": analysis.seeds_needed(1.0, effect=effect),
                "seeds_until_decided": {q: n if n <= most else None for q, n in quantiles.items()},
            }
        )
    return rows


def wrong_guesses(replays: int) -> list[dict[str, Any]]:
    """A fixed design planned for half, once and twice the true effect, beside looking after every seed."""
    rows = []
    for number, effect in enumerate((0.8, 1.2, 2.0)):
        planned = {factor: analysis.seeds_needed(1.0, effect=effect * factor) for factor in (0.5, 1.0, 2.0)}
        most = planned[0.5]
        at, kind, _ = decided(effect, replays, most, seed=100 + number)
        spent = np.where(at > 0, at, most)
        rows.append(
            {
                "effect_sd": effect,
                "fixed": {
                    f"guessed {factor:g} times the effect": {
                        "seeds": n,
                        "power": analysis.power(1.0, effect=effect, n=n),
                    }
                    for factor, n in planned.items()
                },
                "looking": {
                    "stops_at": most,
                    "mean_seeds": float(spent.mean()),
                    "median_seeds": float(np.median(spent)),
                    "power": share((at > 0) & (kind == 1)),
                },
            }
        )
    return rows


def equivalence(replays: int, most: int) -> list[dict[str, Any]]:
    """Arms at and beyond the margin: how often "equivalent" is wrong, and how soon it comes where it is right."""
    rows = []
    for number, (effect, margin) in enumerate(((0.0, 1.0), (0.5, 1.0), (1.0, 1.0), (1.2, 1.0))):
        at, kind, _ = decided(effect, replays, most, seed=200 + number, margin=margin)
        found = (at > 0) & (kind == 0)
        rows.append(
            {
                "effect_sd": effect,
                "margin_sd": margin,
                "equivalent": share(found),
                "median_seeds": float(np.median(at[found])) if found.any() else None,
            }
        )
    return rows


def one_sided(asked: Asked, effect: float, replays: int, most: int, seed: int) -> dict[str, Any]:
    """How often each claim is made first, looking after every n, and how soon."""
    rng = np.random.default_rng(seed)
    step = max(1, CHUNK // most)
    parts = []
    for start in range(0, replays, step):
        draws = rng.normal(effect, 1.0, size=(min(step, replays - start), most))
        parts.append(first_claims(one_sided_sequence(draws, asked.main, ALPHA), asked.claims))
    at, place = (np.concatenate(part) for part in zip(*parts, strict=True))
    claims = {claim.decision: share(place == number) for number, claim in enumerate(asked.claims)}
    return {
        "effect_sd": effect,
        "claims": claims,
        "median_seeds": float(np.median(at[at > 0])) if (at > 0).any() else None,
    }


def non_inferiority(replays: int, most: int) -> list[dict[str, Any]]:
    """Arms that are better, as good, worse within the margin, at it and beyond it (margin 1 sd)."""
    asked = Asked(direction="minimize", hypothesis="non_inferior", margin=1.0)
    effects = (-1.0, 0.0, 0.5, 1.0, 1.2, 2.0)
    return [one_sided(asked, effect, replays, most, seed=300 + number) for number, effect in enumerate(effects)]


def bars(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Each bar with what was measured."""
    rows = {row["effect_sd"]: row for row in found["effects"]}
    last = max(found["null"]["anytime"])
    level = found["null"]["anytime"][last]["share"]
    listed = [(f"false positives, a look at every n up to {last}", level, "≤", ALPHA)]
    at_margin = next(row for row in found["non_inferiority"] if row["effect_sd"] == 1.0)["claims"]
    for claim in ("non_inferior", "inferior"):
        listed.append((f"false claims at the margin: {claim}", at_margin[claim]["share"], "≤", ALPHA))
    one = found["one_side"]["claims"]["better"]["share"]
    listed.append(("false claims without a difference: one side", one, "≤", ALPHA))
    for effect, least in ((1.2, 0.98), (0.8, 0.70)):
        power = rows[effect]["decided_rightly_by_30"]["share"]
        listed.append((f"power by {BY} seeds at {effect:g} sd", power, "≥", least))
    listed.append(("median seeds at 3 sd", rows[3.0]["seeds_until_decided"]["50%"], "≤", 6))
    return [
        {
            "bar": name,
            "measured": value,
            "sense": sense,
            "limit": limit,
            "passed": value <= limit if sense == "≤" else value >= limit,
        }
        for name, value, sense, limit in listed
    ]


def markdown(found: dict[str, Any]) -> str:
    """The tables of the results file."""
    null = found["null"]
    level = Grid(
        ("looked at every n up to", "anytime-valid", "plain t test"),
        tuple(
            (str(n), f"{null['anytime'][n]['share']:.2%}", f"{null['plain_t'][n]['share']:.2%}")
            for n in null["anytime"]
        ),
        f"false positives at level {ALPHA:g}, {null['replays']:,} null replays",
        (),
        (0, 1, 2),
    )
    power = Grid(
        (
            "true effect, sd",
            f"decided by {BY}",
            f"fixed n = {BY}",
            "median seeds",
            "80 % by",
            "95 % by",
            "fixed n for .8",
            "wrong sign, ever",
        ),
        tuple(
            (
                f"{row['effect_sd']:g}",
                f"{row['decided_rightly_by_30']['share']:.3f}",
                f"{row['fixed_power_at_30']:.3f}",
                *(str(n) if n else f"> {null['looked_at_every_n_up_to']}" for n in row["seeds_until_decided"].values()),
                str(row["fixed_seeds_for_power_0.8"]),
                f"{row['decided_wrongly_ever']['share']:.2%}",
            )
            for row in found["effects"]
        ),
        "power, and seeds until the decision",
        (),
        tuple(range(8)),
    )
    rows = []
    for row in found["wrong_guesses"]:
        fixed = [f"{item['seeds']} (power {item['power']:.2f})" for item in row["fixed"].values()]
        looking = row["looking"]
        rows.append(
            (
                f"{row['effect_sd']:g}",
                *fixed,
                f"{looking['mean_seeds']:.1f} (power {looking['power']['share']:.2f})",
                f"{looking['median_seeds']:g}",
                str(looking["stops_at"]),
            )
        )
    guesses = Grid(
        ("true effect, sd", "guessed half", "guessed right", "guessed twice", "looking: mean", "median", "gives up at"),
        tuple(rows),
        "seeds spent by a fixed design (planned for power .8) and by looking",
        (),
        tuple(range(7)),
    )
    equal = Grid(
        ("true difference, margins", "found equivalent", "median seeds"),
        tuple(
            (f"{row['effect_sd'] / row['margin_sd']:g}", f"{row['equivalent']['share']:.2%}", f"{row['median_seeds']}")
            for row in found["equivalence"]
        ),
        f"equivalence, margin 1 sd, up to {null['looked_at_every_n_up_to']} seeds",
        (),
        (0, 1, 2),
    )
    inferior = Grid(
        ("true difference, margins", "better", "non-inferior", "inferior", "median seeds"),
        tuple(
            (
                f"{row['effect_sd']:g}",
                *(f"{row['claims'][name]['share']:.2%}" for name in ("better", "non_inferior", "inferior")),
                f"{row['median_seeds']:g}",
            )
            for row in found["non_inferiority"]
        ),
        f"non-inferiority, margin 1 sd, up to {null['looked_at_every_n_up_to']} seeds: the first claim of each replay",
        (),
        tuple(range(5)),
    )
    passed = Grid(
        ("bar", "measured", "limit", ""),
        tuple(
            (
                bar["bar"],
                f"{bar['measured']:.4g}",
                f"{bar['sense']} {bar['limit']:g}",
                "passed" if bar["passed"] else "MISSED",
            )
            for bar in found["bars"]
        ),
        "the bars",
        (),
        (1, 2),
    )
    head = f"`{found['command']}`, numpy {found['versions']['numpy']}, scipy {found['versions']['scipy']}.\n"
    return "\n".join([head, *(grid.to_markdown() for grid in (passed, level, power, guesses, equal, inferior))])


@styled
def figure(path: Path, found: dict[str, Any]) -> Path:
    """False positives against the last look, and seeds of the wrong guesses."""
    drawing, grid = canvas(1, 2, (11.0, 4.2))
    left, right = grid[0]
    null = found["null"]
    for name, label, look in (("plain_t", "plain t test", "s--"), ("anytime", "anytime-valid", "o-")):
        shares = [item["share"] for item in null[name].values()]
        left.plot(list(null[name]), shares, look, label=label, color="#D55E00" if name == "plain_t" else "#0072B2")
    left.axhline(ALPHA, color="#444444", linewidth=1, linestyle=":")
    left.set(xscale="log", ylim=(0, None), xlabel="looked at every n up to", ylabel="ever decided, no difference there")
    left.set_xticks(list(null["anytime"]), [str(n) for n in null["anytime"]])
    left.minorticks_off()
    left.set_title(f"False positives at level {ALPHA:g} ({null['replays']:,} replays)")
    left.legend()
    rows = found["wrong_guesses"]
    colours = ("#E69F00", "#009E73", "#CC79A7", "#0072B2")
    names = ("fixed, guessed half", "fixed, guessed right", "fixed, guessed twice", "looking (mean)")
    for index, (name, colour) in enumerate(zip(names, colours, strict=True)):
        for place, row in enumerate(rows):
            cells = [*row["fixed"].values()]
            seeds = cells[index]["seeds"] if index < 3 else row["looking"]["mean_seeds"]
            power = cells[index]["power"] if index < 3 else row["looking"]["power"]["share"]
            at = place + 0.2 * (index - 1.5)
            right.bar(at, seeds, width=0.18, color=colour, label=name if place == 0 else None)
            right.annotate(
                f"{power:.2f}".lstrip("0"),
                (at, seeds),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                fontsize=7.5,
            )
    right.set_xticks(range(len(rows)), [f"{row['effect_sd']:g} sd" for row in rows])
    right.set(xlabel="true effect", ylabel="seeds")
    right.set_title("Seeds of a fixed design and of looking (above: power)")
    right.legend()
    return save(drawing, path)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replays", type=int, default=20_000)
    parser.add_argument("--most", type=int, default=400, help="seeds up to which every n is looked at, at least 30")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results", help="for JSON, table, PNG")
    options = parser.parse_args(argv)
    if options.replays < 100 or options.most < BY:
        parser.error(f"--replays must be at least 100 and --most at least {BY}")
    found: dict[str, Any] = {
        "command": f"python benchmarks/anytime.py --replays {options.replays} --most {options.most}",
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__},
        "alpha": ALPHA,
        "prior_variance": 10.0,
        "null": null_replays(options.replays, options.most),
        "effects": effects(options.replays, options.most),
        "wrong_guesses": wrong_guesses(options.replays),
        "equivalence": equivalence(options.replays, options.most),
        "non_inferiority": non_inferiority(options.replays, options.most),
        "one_side": one_sided(Asked(direction="minimize", side="better"), 0.0, options.replays, options.most, seed=400),
    }
    found["bars"] = bars(found)
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "anytime.json").write_text(json.dumps(found, indent=2) + "\n")
    text = markdown(found)
    (options.results / "anytime.md").write_text(text)
    figure(options.results / "anytime.png", found)
    print(text)
    return 0 if all(bar["passed"] for bar in found["bars"]) else 1


if __name__ == "__main__":
    sys.exit(main())
