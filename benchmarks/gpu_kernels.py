"""How fast the triton backend of the resolvent ops is on a GPU: against its copy bandwidth and the torch backend.

    python benchmarks/gpu_kernels.py        # a minute or two; writes benchmarks/results/gpu_kernels.json

An element is one (batch, head, position). The bytes of an op are those that it must move: its arguments read once and
its results written once, with one coupling and shift a head. The share is that traffic over the time, divided by what a
copy of 1 GiB moves. Times are medians of single calls of the backend's function, by events of the device; before each
call a large buffer is written, so that nothing is left in the cache and the call is queued before it starts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stackwise_ray.kernels import BACKENDS
from stackwise_ray.kernels.backend import Backend

RESULTS = Path(__file__).parent / "results"
Run = Callable[[], Any]


def seconds(run: Run, flushed: Tensor, repeats: int) -> float:
    """The median time of `run` on the device, after one run to compile and warm up."""
    run()
    times = []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        flushed.zero_()
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(times)


class Case:
    """Random float32 arguments of one size, lanes adjacent, and the four functions bound to them."""

    def __init__(self, batch: int, heads: int, n: int, width: int) -> None:
        generator = torch.Generator(device="cuda").manual_seed(0)

        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator, device="cuda")

        self.elements = batch * heads * n
        self.width = width
        self.potential = 4 * uniform(batch, n, heads).transpose(1, 2) - 2
        self.hop = uniform(heads, 1) + 0.5
        self.shift = torch.complex(uniform(heads, 1), uniform(heads, 1) + 0.1)
        self.values = uniform(batch, n, heads, width).transpose(1, 2)

    def runs(self, backend: Backend, causal: bool) -> dict[str, tuple[Run, int]]:
        """Function -> (how to run it, bytes an element that it must move)."""
        matrix, hops = (self.potential, self.hop**2, self.shift), (self.potential, self.hop, self.shift, self.values)
        g, u = backend.diagonal(*matrix, causal), backend.apply(*hops, causal)
        grad, grad_u = torch.randn_like(g), torch.randn_like(u)
        p = self.width
        return {
            "diagonal": (lambda: backend.diagonal(*matrix, causal), 4 + 8),
            "diagonal_backward": (lambda: backend.diagonal_backward(grad, *matrix, causal), 4 + 8 + 4),
            "apply": (lambda: backend.apply(*hops, causal), 4 + 4 * p + 8 * p),
            "apply_backward": (
                lambda: backend.apply_backward(grad_u, *hops, u, causal),
                4 + 8 * p + 8 * p + 4 + 4 * p,
            ),
        }


def measure(case: Case) -> dict[str, Any]:
    flushed = torch.empty(2**28, device="cuda")  # 1 GiB
    target = torch.empty_like(flushed)
    copy = 2 * 2**30 / seconds(lambda: target.copy_(flushed), flushed, 20)
    rows = []
    for causal in (True, False):
        ours = case.runs(BACKENDS.get("triton"), causal)
        theirs = case.runs(BACKENDS.get("torch"), causal)
        for name, (run, size) in ours.items():
            time_s, torch_s = seconds(run, flushed, 30), seconds(theirs[name][0], flushed, 3)
            row = {
                "function": name,
                "causal": causal,
                "triton_s": time_s,
                "torch_s": torch_s,
                "ns_per_element": time_s / case.elements * 1e9,
                "bytes_per_element": size,
                "share_of_copy": size * case.elements / time_s / copy,
                "times_torch": torch_s / time_s,
            }
            rows.append(row)
            print(
                f"{name:18} {'causal' if causal else 'two-sided':9} {row['ns_per_element']:8.4f} ns an element, "
                f"{row['share_of_copy']:4.0%} of copy, {row['times_torch']:6.1f} times torch",
                flush=True,
            )
    return {"copy_gb_per_s": copy / 1e9, "rows": rows}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--n", type=int, default=4096, help="positions")
    parser.add_argument("--width", type=int, default=8, help="values of a head, for apply")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for gpu_kernels.json")
    words = sys.argv[1:] if argv is None else argv
    options = parser.parse_args(words)
    reason = BACKENDS.get("triton").unusable()
    if reason is None and not torch.cuda.is_available():
        reason = "TRITON_INTERPRET is set, and the interpreter's times say nothing"
    if reason is not None:
        sys.exit(f"nothing to measure here: {reason}")
    results = {
        "command": " ".join(["python benchmarks/gpu_kernels.py", *words]),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "batch": options.batch,
        "heads": options.heads,
        "n": options.n,
        "width": options.width,
    }
    results |= measure(Case(options.batch, options.heads, options.n, options.width))
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "gpu_kernels.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
