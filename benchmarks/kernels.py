"""How fast the cpu backend of the resolvent ops is: against the processor's limits, and against what it competes with.

    python benchmarks/kernels.py            # about two minutes; writes benchmarks/results/kernels.{json,md,png}

Kernel times are those of the C function alone, warm, into buffers already touched; "autograd" is the op as a model
calls it. One thread is timed in the thread's own processor time (the lower quartile of many repeats: where a hypervisor
corrects it, it runs backwards now and then), two threads in wall time (the least). What is compared is measured in
turn. An element is one (batch, head, position). The divide limit is the throughput of float64 divisions out of
registers: a causal diagonal needs one an element.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stackwise_ray.core.environment import cpu_model
from stackwise_ray.kernels import resolvent_apply, resolvent_diagonal
from stackwise_ray.kernels.backend import output_like
from stackwise_ray.kernels.backends import cpu
from stackwise_ray.kernels.cpu import compiler as build

RESULTS = Path(__file__).parent / "results"
LENGTHS = (512, 1024, 2048, 4096, 8192, 16384, 32768)
LAYOUTS = ("lanes adjacent", "positions adjacent")
Run = Callable[[], Any]


# --------------------------------------------------------------------------------------------------------- timing


def seconds(*runs: Run, wall: bool = False, budget_s: float = 0.6) -> list[float]:
    """The time of each run, warm: turns of at least 5 ms, taken in turn until the budget is spent (at least five)."""
    clock = time.perf_counter if wall else time.thread_time
    repeats = []
    for run in runs:
        run()
        began = time.perf_counter()
        run()
        repeats.append(max(1, round(5e-3 / (time.perf_counter() - began))))
    times: list[list[float]] = [[] for _ in runs]
    end = time.perf_counter() + budget_s * len(runs)
    while len(times[0]) < 5 or time.perf_counter() < end:
        for spent, run, count in zip(times, runs, repeats, strict=True):
            began = clock()
            for _ in range(count):
                run()
            spent.append((clock() - began) / count)
    return [float(np.quantile(spent, 0.0 if wall else 0.25)) for spent in times]


def exponent(lengths: list[int], times: list[float]) -> float:
    """Slope of log time over log N, by least squares."""
    return float(np.polyfit(np.log(lengths), np.log(times), 1)[0])


# ---------------------------------------------------------------------------------- the C functions, arguments bound


def bound(function: Any, sizes: tuple[int, ...], causal: bool, threads: int, arrays: list[tuple[int, ...]]) -> Run:
    numbers = [*sizes, int(causal), threads, *(number for array in arrays for number in array)]
    call = (ctypes.c_int64 * len(numbers))(*numbers)

    def run() -> None:
        if function(call) != 0:
            raise MemoryError

    return run


class Case:
    """Random arguments of one size, and the C functions bound to them: float32, one coupling and shift a head."""

    def __init__(self, batch: int, heads: int, n: int, width: int = 0, layout: str = LAYOUTS[0]) -> None:
        generator = torch.Generator().manual_seed(0)

        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator)

        self.sizes = (batch, heads, n, width)
        self.elements = batch * heads * n
        lanes_first = layout == LAYOUTS[1]
        self.potential = 4 * (uniform(batch, heads, n) if lanes_first else uniform(batch, n, heads).transpose(1, 2)) - 2
        self.hop = uniform(heads, 1) + 0.5
        self.shift = torch.complex(uniform(heads, 1), uniform(heads, 1) + 0.1)
        shape = (batch, heads, n, width) if width else (batch, heads, n)
        self.output = output_like(self.potential, shape, torch.complex64).fill_(1)
        self.grad = torch.randn_like(self.output)
        self.arguments = [self.potential, self.hop if width else self.hop**2, self.shift]
        self._described = [cpu._described(x, 3) for x in self.arguments]
        self._gradients = cpu._gradients(self.arguments)
        self._gradients[0].tensor.fill_(1)
        if width:
            self.values = uniform(batch, n, heads, width).transpose(1, 2)
            self.grad_values = output_like(self.values, shape, torch.float32).fill_(1)

    def forward(self, causal: bool, threads: int = 1) -> Run:
        library = cpu._library()
        if not self.sizes[3]:
            return bound(
                library.bk_diagonal, self.sizes, causal, threads, [*self._described, cpu._written(self.output)]
            )
        arrays = [*self._described, cpu._described(self.values, 4), cpu._written(self.output)]
        return bound(library.bk_apply, self.sizes, causal, threads, arrays)

    def backward(self, causal: bool, threads: int = 1) -> Run:
        library, arrays = cpu._library(), list(self._described)
        if not self.sizes[3]:
            arrays += [cpu._described(self.grad, 3), *(x.written for x in self._gradients)]
            arrays += [x.summed for x in self._gradients[1:]]
            return bound(library.bk_diagonal_backward, self.sizes, causal, threads, arrays)
        arrays += [cpu._described(x, 4) for x in (self.values, self.output, self.grad)]
        arrays += [*(x.written for x in self._gradients), cpu._written(self.grad_values)]
        arrays += [x.summed for x in self._gradients[1:]]
        return bound(library.bk_apply_backward, self.sizes, causal, threads, arrays)

    def autograd(self, causal: bool) -> Run:
        """Forward and backward as a model runs them."""
        leaves = [x.clone().requires_grad_() for x in self.arguments]
        leaves[0] = self.potential.detach().requires_grad_()
        if self.sizes[3]:
            values = self.values.detach().requires_grad_()
            return lambda: torch.autograd.grad(
                resolvent_apply(*leaves, values, causal=causal, backend="cpu", check=False),
                [*leaves, values],
                self.grad,
            )
        return lambda: torch.autograd.grad(
            resolvent_diagonal(*leaves, causal=causal, backend="cpu", check=False), leaves, self.grad
        )


# --------------------------------------------------------------------------------------------------- the competitors


class Yardstick:
    """benchmarks/kernels.c, compiled with the backend's flags."""

    def __init__(self, folder: str) -> None:
        path = Path(folder) / "yardstick.so"
        source = Path(__file__).with_suffix(".c")
        subprocess.run([*build.find_compiler(), *build.FLAGS, str(source), "-o", str(path)], check=True)
        self.library = ctypes.CDLL(str(path))
        self.library.divide.argtypes, self.library.divide.restype = [ctypes.c_int64], ctypes.c_double

    def divide_ns(self) -> float:
        rounds = 100_000
        return seconds(lambda: self.library.divide(rounds))[0] / (64 * rounds) * 1e9

    def recurrence(self, batch: int, heads: int, n: int, channels: int, threads: int = 1) -> tuple[Run, Run]:
        """Forward and backward of the real recurrence, h_i = λ_i h_{i−1} + x_i."""
        rate, x = torch.rand(batch, n, heads), torch.randn(batch, n, heads, channels)
        h, grad = torch.ones_like(x), torch.randn_like(x)
        grad_x, grad_rate = torch.ones_like(x), torch.ones_like(rate)
        sizes = (batch, heads, n, channels, threads)

        def bind(function: Any, *tensors: Tensor) -> Run:
            numbers = (*sizes, *(tensor.data_ptr() for tensor in tensors))
            call = (ctypes.c_int64 * len(numbers))(*numbers)
            return lambda: (function(call), tensors)[0]

        return (
            bind(self.library.recurrence_forward, rate, x, h, h, grad_rate),
            bind(self.library.recurrence_backward, rate, grad, h, grad_x, grad_rate),
        )


def python_loop(case: Case, causal: bool) -> Run:
    """The diagonal as loops over positions under autograd, complex64."""
    leaves = [x.clone().requires_grad_() for x in case.arguments]

    def cavity(d_N: list[Tensor], k: Tensor) -> list[Tensor]:
        out = [1 / d_N[0]]
        for d in d_N[1:]:
            out.append(1 / (d - k * out[-1]))
        return out

    def run() -> Any:
        potential, coupling, shift = leaves
        k, d = coupling[:, 0], list((potential - shift).unbind(2))
        g = cavity(d, k)
        if not causal:
            left, right = g, cavity(d[::-1], k)[::-1]
            g = [d[0] - k * right[1]]
            g += [d[i] - k * (left[i - 1] + right[i + 1]) for i in range(1, len(d) - 1)]
            g = [1 / w for w in [*g, d[-1] - k * left[-2]]]
        return torch.autograd.grad(torch.stack(g, 2), leaves, case.grad)

    return run


def causal_attention(heads: int, n: int, d_head: int) -> Run:
    q, k, v = (torch.randn(1, heads, n, d_head, requires_grad=True) for _ in range(3))
    grad = torch.randn(1, heads, n, d_head)

    def run() -> Any:
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return torch.autograd.grad(out, (q, k, v), grad)

    return run


def copy_gigabytes_per_s(megabytes: float) -> float:
    """Bytes read and written by a copy of so much float32."""
    source = torch.ones(int(megabytes * 2**18))
    target = torch.ones_like(source)
    return 2 * source.nbytes / seconds(lambda: target.copy_(source))[0] / 1e9


# ------------------------------------------------------------------------------------------------------ measurements


def measure(yardstick: Yardstick) -> dict[str, Any]:
    torch.set_num_threads(1)
    found: dict[str, Any] = {"divide_ns": yardstick.divide_ns()}
    found["copy_gb_per_s"] = {f"{megabytes} MB": copy_gigabytes_per_s(megabytes) for megabytes in (0.25, 4, 256)}
    limit = found["divide_ns"]
    print(f"divide limit {limit:.3f} ns; copy {found['copy_gb_per_s']} GB/s", flush=True)

    rows = found["diagonal"] = []
    for n in (64, 512, 8192):
        for layout in LAYOUTS:
            case = Case(8, 32, n, layout=layout)
            for causal in (True, False):
                forward, backward = seconds(case.forward(causal), case.backward(causal))
                row = {"n": n, "lanes": 256, "layout": layout, "causal": causal}
                row |= {"forward_ns": forward / case.elements * 1e9, "backward_ns": backward / case.elements * 1e9}
                row["of_divide_limit"] = (1 if causal else 3) * limit / row["forward_ns"]
                row["of_copy_bandwidth"] = 12 / row["forward_ns"] / found["copy_gb_per_s"]["256 MB"]
                rows.append(row)
                print(row, flush=True)

    found["exponent"] = {}
    for op, width, lengths in (("diagonal", 0, LENGTHS), ("apply", 8, LENGTHS[:5])):
        kernel, autograd = [], []
        for n in lengths:
            case = Case(8, 32, n, width)
            f, b, both = seconds(case.forward(True), case.backward(True), case.autograd(True), budget_s=1)
            kernel.append(f + b)
            autograd.append(both)
            print(op, n, f"kernel {kernel[-1] * 1e3:.2f} ms, autograd {both * 1e3:.2f} ms", flush=True)
        found["exponent"][op] = {
            "lengths": list(lengths),
            "lanes": 256,
            "width": width,
            "kernel_s": kernel,
            "kernel_exponent": exponent(list(lengths), kernel),
            "autograd_s": autograd,
            "autograd_exponent": exponent(list(lengths), autograd),
        }
        print({k: v for k, v in found["exponent"][op].items() if "exponent" in k}, flush=True)

    case = Case(1, 32, 512)
    rows = found["python_loop"] = []
    for causal in (True, False):
        loop, ours = seconds(python_loop(case, causal), case.autograd(causal), budget_s=1)
        row = {"n": 512, "heads": 32, "causal": causal, "loop_s": loop, "op_s": ours, "ratio": loop / ours}
        rows.append(row)
        print(row, flush=True)

    attention, ours = seconds(causal_attention(32, 2048, 64), Case(1, 32, 2048, 32).autograd(True), budget_s=2)
    found["attention"] = {"n": 2048, "heads": 32, "attention_s": attention, "op_s": ours, "ratio": attention / ours}
    print(found["attention"], flush=True)

    rows = found["recurrence"] = []
    for n in (512, 2048, 8192):
        case = Case(1, 32, n, 32)
        f, b, rf, rb = seconds(case.forward(True), case.backward(True), *yardstick.recurrence(1, 32, n, 64), budget_s=1)
        row = {"n": n, "forward_s": f, "backward_s": b, "recurrence_forward_s": rf, "recurrence_backward_s": rb}
        rows.append(row | {"ratio": (f + b) / (rf + rb)})
        print(rows[-1], flush=True)

    found["two_threads"] = {}
    for op, case in (("diagonal", Case(8, 64, 4096)), ("apply", Case(2, 32, 2048, 32))):
        runs = [run(True, threads) for run in (case.forward, case.backward) for threads in (1, 2)]
        f1, f2, b1, b2 = seconds(*runs, wall=True, budget_s=1)
        found["two_threads"][op] = {"forward": f1 / f2, "backward": b1 / b2, "both": (f1 + b1) / (f2 + b2)}
        print("two threads", op, found["two_threads"][op], flush=True)
    return found


def table(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    load = ", ".join(f"{x:.1f}" for x in found["load_before"]), ", ".join(f"{x:.1f}" for x in found["load_after"])
    lines = [
        f"`{found['command']}` on {found['machine']} ({found['cores']} cores), {found['date']}, {found['compiler']}; "
        f"load averages before {load[0]}, after {load[1]}.",
        "",
        f"Divide limit {found['divide_ns']:.3f} ns. Copy, bytes read and written: "
        + ", ".join(f"{size} {speed:.0f} GB/s" for size, speed in found["copy_gb_per_s"].items())
        + ".",
        "",
        "| diagonal, 256 lanes | N | layout | forward, ns an element | of the divide limit | backward |",
        "|---|---|---|---|---|---|",
    ]
    for row in found["diagonal"]:
        kind = "causal" if row["causal"] else "two-sided"
        lines.append(
            f"| {kind} | {row['n']} | {row['layout']} | {row['forward_ns']:.2f} | "
            f"{row['of_divide_limit']:.0%} | {row['backward_ns']:.2f} |"
        )
    lines += [
        "",
        "| causal apply, 32 heads × 32 values | forward, ms | backward | over the real recurrence |",
        "|---|---|---|---|",
    ]
    for row in found["recurrence"]:
        lines.append(
            f"| N {row['n']} | {row['forward_s'] * 1e3:.2f} | {row['backward_s'] * 1e3:.2f} | {row['ratio']:.2f} |"
        )
    lines += ["", "| compared | ratio |", "|---|---|"]
    for row in found["python_loop"]:
        kind = "causal" if row["causal"] else "two-sided"
        lines.append(f"| Python loop over {kind} diagonal, N 512, 32 heads, with gradients | {row['ratio']:.0f} |")
    lines.append(f"| causal attention over apply, N 2048, with gradients | {found['attention']['ratio']:.0f} |")
    for op, row in found["exponent"].items():
        both = f"{row['kernel_exponent']:.3f} / {row['autograd_exponent']:.3f}"
        lines.append(f"| {op}: exponent of N, kernel / autograd | {both} |")
    for op, row in found["two_threads"].items():
        lines.append(
            f"| {op}: one thread over two, forward / backward | {row['forward']:.2f} / {row['backward']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def draw(found: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4.4), layout="constrained")
    for op, row in found["exponent"].items():
        for kind, style in (("kernel", "o-"), ("autograd", "s--")):
            label = f"{op}, {kind}: exponent {row[f'{kind}_exponent']:.3f}"
            axes.loglog(row["lengths"], [s * 1e3 for s in row[f"{kind}_s"]], style, label=label, markersize=4)
    axes.set_xlabel("positions N")
    axes.set_ylabel("forward + backward, ms (one thread)")
    axes.set_title(f"causal resolvent ops, cpu backend, {found['exponent']['diagonal']['lanes']} lanes")
    axes.grid(True, which="both", alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for kernels.json, .md and .png")
    options = parser.parse_args(argv)
    results: dict[str, Any] = {
        "command": "python benchmarks/kernels.py",
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "machine": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "system": platform.system(),
        "compiler": build._run([*build.find_compiler(), "--version"]).splitlines()[0],
        "flags": list(build.FLAGS),
        "load_before": os.getloadavg(),
    }
    with tempfile.TemporaryDirectory() as folder:
        results |= measure(Yardstick(folder))
    results["load_after"] = os.getloadavg()
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "kernels.json").write_text(json.dumps(results, indent=2) + "\n")
    (options.output / "kernels.md").write_text(table(results))
    draw(results, options.output / "kernels.png")
    print(table(results))


if __name__ == "__main__":
    main()
