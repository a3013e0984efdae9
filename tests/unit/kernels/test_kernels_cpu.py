"""The compiled backend: fuzzed arguments, sanitizers, its cache, and what happens without a compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stackwise_ray.kernels import available_backends, resolvent_apply, resolvent_diagonal
from stackwise_ray.kernels.backends import cpu
from stackwise_ray.kernels.backends import torch as torch_backend
from stackwise_ray.kernels.cpu import compiler as build


def compiler() -> list[str] | None:
    try:
        return build.find_compiler()
    except build.BuildError:
        return None


# A library that is wrong is not among the available backends: that must fail here, and not skip what would show it.
pytestmark = pytest.mark.skipif(compiler() is None, reason="there is no C compiler")


def test_where_there_is_a_compiler_the_library_is_right_and_used() -> None:
    assert cpu.unusable() is None
    assert "cpu" in available_backends()


def test_a_tensor_expanded_along_its_positions_gets_a_gradient_at_each() -> None:
    """Eight heads and adjacent lanes take the way straight from tensor to tensor, which sums over positions."""
    n, generator = 70, torch.Generator().manual_seed(0)
    potential = torch.randn(2, n, 8, generator=generator).transpose(1, 2)
    coupling = (torch.rand(1, 8, 1, generator=generator) + 0.5).expand(2, 8, n - 1)
    shift = torch.complex(torch.randn(1, 8, 1, generator=generator), torch.ones(1, 8, 1)).expand(2, 8, n)
    weight = torch.randn(2, n, 8, generator=generator, dtype=torch.complex64).transpose(1, 2)  # adjacent lanes as well
    found = []
    for backend in ("cpu", "reference"):
        leaves = [x.detach().requires_grad_() for x in (potential, coupling, shift)]
        g = resolvent_diagonal(*leaves, causal=True, backend=backend)
        found.append(torch.autograd.grad(g, leaves, weight))
    for mine, theirs in zip(*found, strict=True):
        assert error(mine, theirs) <= 1e-6


REAL = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def laid_out(x: Tensor, layout: str) -> Tensor:
    """The same values with other strides."""
    if layout == "contiguous" or x.ndim == 0:
        return x
    if layout == "reversed axes":
        return x.permute(*reversed(range(x.ndim))).contiguous().permute(*reversed(range(x.ndim)))
    if layout == "heads last":
        return x if x.ndim < 3 else x.transpose(1, 2).contiguous().transpose(1, 2)
    if layout == "every second":
        return torch.stack([x, x], dim=-1).flatten(-2)[..., ::2]
    if layout == "inside a larger one":
        return torch.nn.functional.pad(x, [2, 3] * x.ndim)[(..., *[slice(2, 2 + size) for size in x.shape])]
    assert layout == "conjugated and negated"
    if x.is_complex():
        return x.conj_physical().conj()
    # torch has no complex tensors of the half types
    return torch.complex(x, -x).conj().imag if x.dtype in (torch.float32, torch.float64) else x


LAYOUTS = (
    "contiguous",
    "reversed axes",
    "heads last",
    "every second",
    "inside a larger one",
    "conjugated and negated",
)
BROADCAST = ("none", "batch", "heads", "positions", "all but heads", "all but positions", "all", "scalar")


def broadcast_shape(full: tuple[int, int, int], kind: str) -> tuple[int, ...]:
    batch, heads, n = full
    return {
        "none": (batch, heads, n),
        "batch": (heads, n),
        "heads": (batch, 1, n),
        "positions": (batch, heads, 1),
        "all but heads": (heads, 1),
        "all but positions": (n,),
        "all": (1, 1, 1),
        "scalar": (),
    }[kind]


@settings(max_examples=120, deadline=None)
@given(
    batch=st.integers(0, 4),
    heads=st.integers(1, 37),
    n=st.one_of(st.integers(0, 5), st.integers(61, 67), st.integers(125, 132)),
    width=st.one_of(st.integers(0, 9), st.integers(30, 42)),
    dtype=st.sampled_from(REAL),
    complex_values=st.booleans(),
    causal=st.booleans(),
    bond=st.sampled_from(BROADCAST),
    shift=st.sampled_from(BROADCAST),
    layouts=st.tuples(*[st.sampled_from(LAYOUTS)] * 5),
    seed=st.integers(0, 1000),
)
def test_any_shape_stride_and_type_gives_what_the_reference_gives(
    batch: int,
    heads: int,
    n: int,
    width: int,
    dtype: torch.dtype,
    complex_values: bool,
    causal: bool,
    bond: str,
    shift: str,
    layouts: tuple[str, ...],
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    single = dtype != torch.float64

    def uniform(shape: tuple[int, ...]) -> Tensor:
        return torch.rand(shape, dtype=torch.float64, generator=generator).to(dtype)

    def complex_uniform(shape: tuple[int, ...]) -> Tensor:
        wide = torch.float32 if single else torch.float64
        return torch.complex(uniform(shape).to(wide), 0.3 + uniform(shape).to(wide))

    full, bonds = (batch, heads, n), broadcast_shape((batch, heads, max(n - 1, 0)), bond)
    made = {
        "potential": 4 * uniform(full) - 2,
        "hop": uniform(bonds) + 0.5,
        "shift": complex_uniform(broadcast_shape(full, shift)),
        "values": (complex_uniform if complex_values else uniform)((*full, width)),
    }
    made["coupling"] = made["hop"] ** 2
    tolerance = 1e-6 if single else 1e-12
    for call, names in (
        (resolvent_diagonal, ("potential", "coupling", "shift")),
        (resolvent_apply, ("potential", "hop", "shift", "values")),
    ):
        mine = [laid_out(made[name], layout).detach() for name, layout in zip(names, layouts[:4], strict=False)]
        mine = [leaf.requires_grad_() for leaf in mine]
        theirs = [
            made[name].detach().to(torch.complex128 if made[name].is_complex() else torch.float64).requires_grad_()
            for name in names
        ]
        have, want = call(*mine, causal=causal, backend="cpu"), call(*theirs, causal=causal, backend="reference")
        assert (have.shape, have.dtype) == (want.shape, torch.complex64 if single else torch.complex128)
        weight = complex_uniform(tuple(want.shape))
        have_gradients = torch.autograd.grad(have, mine, laid_out(weight, layouts[4]))
        want_gradients = torch.autograd.grad(want, theirs, weight.to(torch.complex128))
        assert error(have, want) <= tolerance
        for name, argument, one, other in zip(names, mine, have_gradients, want_gradients, strict=True):
            assert (one.shape, one.dtype) == (argument.shape, argument.dtype), name
            rounding = torch.finfo(dtype).eps if argument.dtype in (torch.float16, torch.bfloat16) else 0.0
            # A sum over broadcast axes may cancel; 300 covers the summands of these sizes.
            assert error(one, other) <= max(300 * tolerance, rounding), name


def error(have: Tensor, want: Tensor) -> float:
    if want.numel() == 0:
        return 0.0
    scale = float(want.detach().abs().max())
    return float((have - want).detach().abs().max()) / max(scale, 1e-3)


@pytest.mark.parametrize("causal", [True, False])
def test_thread_counts_give_the_same_bits(causal: bool) -> None:
    batch, heads, n, width = 3, 48, 300, 9
    generator = torch.Generator().manual_seed(0)
    potential = torch.rand(batch, heads, n, generator=generator)
    hop = torch.rand(heads, 1, generator=generator)
    shift = torch.complex(torch.rand(n, generator=generator), torch.rand(n, generator=generator) + 0.1)
    values = torch.rand(batch, heads, n, width, generator=generator)
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            g = cpu.diagonal(potential, hop**2, shift, causal)
            u = cpu.apply(potential, hop, shift, values, causal)
            results.append(
                [
                    g,
                    u,
                    *cpu.diagonal_backward(g, potential, hop**2, shift, causal),
                    *cpu.apply_backward(u, potential, hop, shift, values, u, causal),
                ]
            )
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(x, y) for x, y in zip(results[0], other, strict=True))


@pytest.mark.parametrize("layout", ["contiguous", "heads last"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("batch", "heads"), [(3, 24), (1, 32), (2, 8), (1, 136)])  # 9, 4, 2 and 17 vectors of lanes
def test_lanes_straight_from_tensor_to_tensor_give_what_the_torch_backend_gives(
    batch: int, heads: int, dtype: torch.dtype, layout: str
) -> None:
    generator = torch.Generator().manual_seed(0)
    before = torch.get_num_threads()
    for n in (1, 2, 9, 63, 64, 65, 130, 700):
        potential = laid_out(4 * torch.rand(batch, heads, n, generator=generator, dtype=dtype) - 2, layout)
        coupling = torch.rand(heads, 1, generator=generator, dtype=dtype)
        shift = torch.complex(*(torch.rand(2, heads, 1, generator=generator, dtype=dtype) + 0.2))
        grad = laid_out(torch.complex(potential, potential.flip(2)), "heads last")
        want = [
            torch_backend.diagonal(potential, coupling, shift, True),
            *torch_backend.diagonal_backward(grad, potential, coupling, shift, True),
        ]
        results = []
        try:
            for threads in (1, 2, 5):
                torch.set_num_threads(threads)
                have = cpu.diagonal(potential, coupling, shift, True)
                results.append([have, *cpu.diagonal_backward(grad, potential, coupling, shift, True)])
        finally:
            torch.set_num_threads(before)
        for one, other in zip(results[0], want, strict=True):
            # relative to the sum that broadcasting makes of it, which may cancel
            summed = batch * n if one.ndim == 2 else 1
            reduced = other.sum_to_size(one.shape) if other.numel() else torch.zeros_like(one)
            assert error(one, reduced) <= (1e-6 if dtype == torch.float32 else 1e-12) * summed
        for others in results[1:]:
            assert all(torch.equal(x, y) for x, y in zip(results[0], others, strict=True))


@pytest.mark.parametrize("causal", [True, False])
def test_long_sequences_equal_the_torch_backend(causal: bool) -> None:
    n = 20_001
    generator = torch.Generator().manual_seed(0)
    potential = 4 * torch.rand(1, 2, n, generator=generator) - 2
    shift = torch.full((1,), 0.02j, dtype=torch.complex64)
    values = torch.rand(1, 2, n, 3, generator=generator)
    u = resolvent_apply(potential, torch.ones(1), shift, values, causal=causal, backend="torch")
    v = resolvent_apply(potential, torch.ones(1), shift, values, causal=causal, backend="cpu")
    assert error(v, u) <= 1e-6


# ------------------------------------------------------------------------------------------- the compiled library


def python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"OMP_NUM_THREADS": "1", **os.environ, **variables}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=280, check=False
    )


def libraries(cache: Path) -> list[Path]:
    return sorted((cache / "kernels").glob("*.so"))


@pytest.mark.slow
def test_without_a_compiler_one_warning_says_so_and_torch_is_chosen(tmp_path: Path) -> None:
    code = (
        "from stackwise_ray.kernels import available_backends, choose_backend\n"
        "print(available_backends(), choose_backend(), choose_backend())\n"
        "choose_backend('cpu')"
    )
    answer = python(
        code, STACKWISE_CACHE=str(tmp_path), PATH=str(tmp_path), CC="", STACKWISE_BK_BACKEND="", CUDA_VISIBLE_DEVICES=""
    )
    assert answer.stdout == "('torch', 'reference') torch torch\n"
    assert answer.stderr.count("RuntimeWarning: kernel backend 'cpu' cannot be used (") == 1
    assert "there is no C compiler (none of cc, gcc, clang is on PATH, and CC is not set" in answer.stderr
    assert answer.stderr.splitlines()[-1].endswith(
        "kernel backend 'cpu' cannot run here: there is no C compiler (none of cc, gcc, clang is on PATH, and CC is "
        "not set); choose one of torch, reference"
    )


def test_compiler_that_fails_is_named_with_its_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken-cc"
    broken.write_text("#!/bin/sh\n[ \"$1\" = --version ] && exit 0\necho 'x.c: error: no such thing' >&2; exit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    monkeypatch.setenv("STACKWISE_CACHE", str(tmp_path))
    with pytest.raises(build.BuildError, match=r"broken-cc fails: x\.c: error: no such thing"):
        build.library_path()
    assert libraries(tmp_path) == []
    monkeypatch.setenv("CC", "absent-cc")
    with pytest.raises(build.BuildError, match="CC = absent-cc is not on PATH"):
        build.library_path()


@pytest.mark.slow
def test_damaged_library_is_compiled_anew_and_processes_share_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes at once, an empty cache: one compiles. Then the file is cut short, and made again.

    The second time the compiler gives what it gave the first time, without the work.
    """
    monkeypatch.setenv("STACKWISE_CACHE", str(tmp_path))
    counting = tmp_path / "counting-cc"
    counting.write_text(
        "#!/bin/sh\n"
        f'[ "$1" = --version ] && exec {build.find_compiler()[0]} "$@"\n'
        f"echo run >> {tmp_path}/runs\n"
        'for last in "$@"; do :; done\n'  # where it is asked to write
        f'[ -e {tmp_path}/made ] || {build.find_compiler()[0]} "$@" -o {tmp_path}/made\n'
        f'cp {tmp_path}/made "$last"\n'
    )
    counting.chmod(0o755)
    monkeypatch.setenv("CC", str(counting))
    code = "from stackwise_ray.kernels.cpu.compiler import library_path; print(library_path(('-O0',)))"
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=dict(os.environ))
        for _ in range(2)
    ]
    printed = [process.communicate(timeout=280)[0].strip() for process in both]
    (library,) = libraries(tmp_path)
    assert printed == [str(library)] * 2
    assert (tmp_path / "runs").read_text().split() == ["run"]
    whole = library.read_bytes()
    library.write_bytes(whole[: len(whole) // 2])
    assert build.library_path(("-O0",)) == library
    assert len(library.read_bytes()) == len(whole)
    assert (tmp_path / "runs").read_text().split() == ["run"] * 2
    cpu.compare_with_torch(cpu.load(str(library)))


def test_library_that_computes_something_else_is_refused() -> None:
    class Wrong:
        bk_diagonal = bk_diagonal_backward = bk_apply = bk_apply_backward = staticmethod(lambda numbers: 0)

    with pytest.raises(build.BuildError, match="differs from the torch backend's"):
        cpu.compare_with_torch(Wrong())  # type: ignore[arg-type]


SANITIZED = """
import sys, random
import torch
from stackwise_ray.kernels.backends import cpu
from stackwise_ray.kernels.cpu import compiler as build

library = cpu.load(str(build.library_path({flags!r})))
rng, generator = random.Random(0), torch.Generator().manual_seed(0)
def uniform(shape, dtype):
    x = torch.rand(shape, generator=generator, dtype=dtype)
    order = rng.sample(range(len(shape)), len(shape))
    inverse = [order.index(axis) for axis in range(len(shape))]
    return x.permute(order).contiguous().permute(inverse)
for case in range(80):
    torch.set_num_threads(rng.choice([1, 2, 3]))
    batch, heads, n = rng.choice([1, 2, 5]), rng.choice([1, 3, 16, 33]), rng.choice([1, 2, 63, 64, 65, 97, 129])
    width, dtype, causal = rng.choice([1, 3, 8, 11, 32, 45]), rng.choice([torch.float32, torch.float64]), case % 2 == 0
    shapes = [(batch, heads, n), (heads, n), (heads, 1), (n,), (1,), ()]
    potential = uniform((batch, heads, n), dtype)
    shape = rng.choice(shapes)
    shift = torch.complex(uniform(shape, dtype), uniform(shape, dtype) + 0.1)
    shape = rng.choice([(batch, heads, n - 1), (heads, n - 1), (heads, 1), (n - 1,), (1,), ()])
    hop = uniform(shape, dtype)
    values = uniform((batch, heads, n, width), dtype)
    if rng.random() < 0.3:
        values = torch.complex(values, values)
    g = cpu._Diagonal.forward(library, potential, hop**2, shift, causal)
    results = [g, *cpu._Diagonal.backward(library, g, potential, hop**2, shift, causal)]
    u = cpu._Apply.forward(library, potential, hop, shift, values, causal)
    grad = torch.complex(uniform(u.shape, dtype), uniform(u.shape, dtype))
    results += [u, *cpu._Apply.backward(library, grad, potential, hop, shift, values, u, causal)]
    assert all(bool(torch.isfinite(x).all()) for x in results), case
print("sanitized:", case + 1, "cases")
"""


@pytest.mark.slow
def test_c_code_runs_clean_under_the_address_and_undefined_behaviour_sanitizers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = build.find_compiler()
    runtimes = [build._run([*compiler, f"-print-file-name=lib{name}.so"]).strip() for name in ("asan", "ubsan")]
    if not all(Path(runtime).is_absolute() for runtime in runtimes):
        pytest.skip("the compiler has no sanitizer runtimes")
    # -Og compiles in a third of the time of -O1; and compiled in advance, the compiler itself is not watched.
    flags = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-Og")
    monkeypatch.setenv("STACKWISE_CACHE", str(tmp_path))
    build.library_path(flags)
    answer = python(
        SANITIZED.format(flags=flags),
        LD_PRELOAD=" ".join(runtimes),
        ASAN_OPTIONS="detect_leaks=0",
        OMP_NUM_THREADS="2",
    )
    assert answer.stdout.endswith("sanitized: 80 cases\n"), answer.stderr[-4000:]
