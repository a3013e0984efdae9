"""What a token costs while decoding, by the length of its context: bk, whose state does not grow, beside llama.

    python benchmarks/decoding.py                       # presets tiny and small, about five minutes on one core
    python benchmarks/decoding.py --sizes tiny          # under a minute
    python benchmarks/decoding.py --json benchmarks/results/decoding.json --figure benchmarks/results/decoding.png

A context of random tokens is prefilled once; each round then decodes some tokens from a copy of that cache, greedily,
one sequence, float32, every context of every family in turn, so that a disturbance meets all of them. `step` is a call
of the model and the choice of the token (median over all steps), by the clock and in CPU time, which other processes on
the machine disturb less; `generate` is transformers' whole loop, a token. The models are untrained: their weights do
not matter to the time.

Bar: bk at the longest context at most 1.2 times bk at the shortest.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from stackwise_ray.config.loading import load_trial
from stackwise_ray.models import build_model

FAMILIES = ("bk", "llama")
BAR = 1.2
VOCABULARY, PREFILL = 256, 512


def build(family: str, size: str, n_positions: int) -> PreTrainedModel:
    """The preset with random weights, at the vocabulary of bytes."""
    torch.manual_seed(0)
    trial = load_trial([f"model=decoder/{family}_family/{size}"])
    return build_model(trial.model, vocab_size=VOCABULARY, seq_len=n_positions).eval()


def prefilled(model: PreTrainedModel, ids: torch.Tensor) -> Any:
    """The cache after `ids`, filled in pieces."""
    cache = None
    for piece in ids.split(PREFILL, dim=1):
        cache = model(input_ids=piece, past_key_values=cache, use_cache=True, logits_to_keep=1).past_key_values
    return cache


def cache_bytes(cache: Any) -> int:
    """Bytes that a cache keeps."""
    return sum(t.nbytes for layer in cache.layers for t in (layer.keys, layer.values) if t is not None)


def steps(model: PreTrainedModel, cache: Any, n: int) -> list[tuple[float, float]]:
    """(seconds, CPU seconds) of each of `n` tokens decoded from a copy of the cache."""
    cache, token, seconds = copy.deepcopy(cache), torch.zeros(1, 1, dtype=torch.long), []
    for _ in range(n):
        began, began_cpu = time.perf_counter(), time.process_time()
        token = model(input_ids=token, past_key_values=cache, use_cache=True).logits[:, -1:].argmax(-1)
        seconds.append((time.perf_counter() - began, time.process_time() - began_cpu))
    return seconds


def generate(model: PreTrainedModel, cache: Any, ids: torch.Tensor, n: int) -> float:
    """Seconds a token of `generate`, going on from a copy of the cache."""
    cache, ids = copy.deepcopy(cache), torch.cat([ids, ids[:, :1]], dim=1)
    options: dict[str, Any] = {"max_new_tokens": n, "min_new_tokens": n, "do_sample": False, "use_cache": True}
    began = time.perf_counter()
    written = model.generate(ids, past_key_values=cache, **options)
    seconds = time.perf_counter() - began
    assert written.shape[1] == ids.shape[1] + n, "generate stopped early"
    return seconds / n


@torch.inference_mode()
def measure(size: str, contexts: list[int], n_steps: int, rounds: int) -> list[dict[str, Any]]:
    """One row per family and context."""
    longest = max(contexts) + 2 * n_steps + 2
    models = {family: build(family, size, longest) for family in FAMILIES}
    ids = torch.randint(VOCABULARY, (1, max(contexts)), generator=torch.Generator().manual_seed(0))
    places = [(family, context) for context in contexts for family in FAMILIES]
    caches = {(family, context): prefilled(models[family], ids[:, :context]) for family, context in places}
    stepped: dict[tuple[str, int], list[tuple[float, float]]] = {place: [] for place in places}
    generated: dict[tuple[str, int], list[float]] = {place: [] for place in places}
    for number in range(rounds + 1):
        for place in places:
            model, cache = models[place[0]], caches[place]
            times, whole = steps(model, cache, n_steps), generate(model, cache, ids[:, : place[1]], n_steps)
            if number:  # the first round warms up
                stepped[place] += times
                generated[place].append(whole)
    rows = []
    for family, context in places:
        seconds, cpu_seconds = zip(*stepped[family, context], strict=True)
        quartiles = statistics.quantiles(seconds, n=4)
        rows.append(
            {
                "size": size,
                "family": family,
                "context": context,
                "step_s": quartiles[1],
                "step_quartiles_s": [quartiles[0], quartiles[2]],
                "step_cpu_s": statistics.median(cpu_seconds),
                "generate_s": statistics.median(generated[family, context]),
                "cache_bytes": cache_bytes(caches[family, context]),
            }
        )
    return rows


def ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Longest over shortest context, by size and family."""
    found = []
    for size, family in dict.fromkeys((row["size"], row["family"]) for row in rows):
        mine = sorted((r for r in rows if (r["size"], r["family"]) == (size, family)), key=lambda r: r["context"])
        ratio = {name: mine[-1][name] / mine[0][name] for name in ("step_s", "step_cpu_s", "generate_s")}
        found.append({"size": size, "family": family, "longest_over_shortest": ratio})
    return found


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        f"{'size':6} {'family':6} {'context':>7} {'step, ms (quartiles)':>28} {'CPU, ms':>8} {'generate, ms':>13}"
        f" {'cache, kB':>10}"
    ]
    for row in rows:
        low, high = (1e3 * second for second in row["step_quartiles_s"])
        step = f"{1e3 * row['step_s']:.3f} ({low:.3f} to {high:.3f})"
        lines.append(
            f"{row['size']:6} {row['family']:6} {row['context']:7} {step:>28} {1e3 * row['step_cpu_s']:8.3f}"
            f" {1e3 * row['generate_s']:13.3f} {row['cache_bytes'] / 1e3:10.1f}"
        )
    for entry in ratios(rows):
        ratio = entry["longest_over_shortest"]
        verdict = ""
        if entry["family"] == "bk":
            verdict = f" (bar {BAR}: {'met' if ratio['step_s'] <= BAR else 'MISSED'})"
        lines.append(
            f"{entry['size']} {entry['family']}: longest over shortest context {ratio['step_s']:.3f} a step{verdict},"
            f" {ratio['step_cpu_s']:.3f} in CPU time, {ratio['generate_s']:.3f} in generate"
        )
    return "\n".join(lines)


def draw(rows: list[dict[str, Any]], file: Path) -> None:
    """Time of a step against context, log-log, with quartiles; one panel per size."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    sizes = list(dict.fromkeys(row["size"] for row in rows))
    figure, panels = plt.subplots(1, len(sizes), figsize=(4.5 * len(sizes), 3.6), squeeze=False, layout="constrained")
    for panel, size in zip(panels[0], sizes, strict=True):
        for family, marker in zip(FAMILIES, "os", strict=True):
            mine = [row for row in rows if (row["size"], row["family"]) == (size, family)]
            medians = [1e3 * row["step_s"] for row in mine]
            spread = [
                [median - 1e3 * row["step_quartiles_s"][0] for median, row in zip(medians, mine, strict=True)],
                [1e3 * row["step_quartiles_s"][1] - median for median, row in zip(medians, mine, strict=True)],
            ]
            contexts = [row["context"] for row in mine]
            panel.errorbar(contexts, medians, yerr=spread, marker=marker, capsize=3, label=family)
        panel.set(xscale="log", yscale="log", xlabel="context, tokens", ylabel="time a token, ms", title=size)
        panel.set_xticks(contexts, [str(context) for context in contexts])
        panel.legend()
    figure.savefig(file, dpi=150)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["tiny", "small"], help="presets that both families have")
    parser.add_argument("--contexts", nargs="+", type=int, default=[64, 512, 4096])
    parser.add_argument("--steps", type=int, default=32, help="tokens of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the results here")
    parser.add_argument("--figure", type=Path, help="also draw them here (PNG)")
    words = sys.argv[1:] if argv is None else argv
    options = parser.parse_args(words)
    torch.set_num_threads(options.threads)
    transformers.logging.set_verbosity_error()
    load = [os.getloadavg()[0]]
    rows: list[dict[str, Any]] = []
    for size in options.sizes:
        n_steps = options.steps if size == "tiny" else max(4, options.steps // 4)  # a token takes some 50 times longer
        rows += measure(size, sorted(options.contexts), n_steps, options.rounds)
    load.append(os.getloadavg()[0])
    print(table(rows))
    print(f"load average (1 minute) before and after: {load[0]:.2f}, {load[1]:.2f} on {os.cpu_count()} cores")
    if options.figure:
        draw(rows, options.figure)
    if options.json:
        found = {
            "command": " ".join(["python benchmarks/decoding.py", *words]),
            "machine": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "threads": options.threads,
            "load_average": load,
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
            "bar": {"bk, longest over shortest context, a step": BAR},
            "ratios": ratios(rows),
            "rows": rows,
        }
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
