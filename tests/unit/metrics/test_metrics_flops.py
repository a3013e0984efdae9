"""The FLOP convention by hand: products, attention, phases, frozen parts, and operations without a rule."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from stackwise_ray.config.trial import ModelConfig
from stackwise_ray.metrics.flop_rules import FORMULAS, FREE, RECOMPUTED, attention, attention_backward
from stackwise_ray.metrics.flops import FlopCount, FlopCounter, count_flops, optimizer_flops
from stackwise_ray.models import build_model
from stackwise_ray.models.stack_view import stack_view

GPT2 = ModelConfig(family="gpt2", role="decoder", n_layers=2, d_model=32, n_heads=4, d_ff=64)


# From 2: torch turns a contraction over one element into a multiplication.
@given(m=st.integers(2, 9), n=st.integers(2, 9), k=st.integers(2, 9), batch=st.integers(2, 3))
@settings(deadline=None, max_examples=20)
def test_every_form_of_a_product_costs_2mnk(m: int, n: int, k: int, batch: int) -> None:
    a, b = torch.ones(batch, m, k, device="meta"), torch.ones(batch, k, n, device="meta")
    forms = {
        "matmul": lambda: a @ b,
        "baddbmm": lambda: torch.baddbmm(torch.ones(batch, m, n, device="meta"), a, b),
        "addbmm": lambda: torch.addbmm(torch.ones(m, n, device="meta"), a, b),
        "einsum": lambda: torch.einsum("bmk,bkn->bmn", a, b),
        "mm": lambda: [x.mm(y) for x, y in zip(a, b, strict=True)],
        "addmm": lambda: [torch.addmm(torch.ones(n, device="meta"), x, y) for x, y in zip(a, b, strict=True)],
        "mv": lambda: [x.mv(y[:, i]) for x, y in zip(a, b, strict=True) for i in range(n)],
        "dot": lambda: [x[j].dot(y[:, i]) for x, y in zip(a, b, strict=True) for i in range(n) for j in range(m)],
    }
    for name, form in forms.items():
        with FlopCounter() as counter:
            form()
        assert counter.count == FlopCount(forward=2 * batch * m * n * k), name


def test_a_product_costs_twice_its_forward_in_the_backward_pass() -> None:
    layer = nn.Linear(5, 7)
    with FlopCounter() as counter:
        layer(torch.ones(3, 5, requires_grad=True)).sum().backward()
    assert counter.count == FlopCount(forward=2 * 3 * 5 * 7, backward=2 * 2 * 3 * 5 * 7)


def test_an_input_without_gradient_costs_one_product_less() -> None:
    layer = nn.Linear(5, 7)
    with FlopCounter() as counter:
        layer(torch.ones(3, 5)).sum().backward()
    assert counter.count.backward == counter.count.forward


def test_pinning_a_batch_costs_nothing() -> None:
    """`pin_memory` asks `aten::is_pinned` first, on every step of a trial on a GPU."""
    batch = torch.zeros(4)
    with FlopCounter() as counter:
        assert not batch.is_pinned()
        if torch.cuda.is_available():
            assert batch.pin_memory().is_pinned()
    assert counter.count == FlopCount()


def test_a_convolution_costs_its_products() -> None:
    layer = nn.Conv1d(4, 6, kernel_size=3, bias=False)
    with FlopCounter() as counter:
        layer(torch.ones(2, 4, 10, requires_grad=True)).sum().backward()
    assert counter.count == FlopCount(forward=2 * 2 * 6 * 8 * 4 * 3, backward=2 * 2 * 2 * 6 * 8 * 4 * 3)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("key_heads", [4, 2, 1])
def test_attention_is_two_dense_products_and_its_backward_four(causal: bool, device: str, key_heads: int) -> None:
    batch, heads, n, d = 2, 4, 12, 8
    query = torch.ones(batch, heads, n, d, device=device, requires_grad=True)
    key, value = (torch.ones(batch, key_heads, n, d, device=device, requires_grad=True) for _ in range(2))
    with FlopCounter() as counter:
        out = functional.scaled_dot_product_attention(
            query, key, value, is_causal=causal, enable_gqa=key_heads != heads
        )
        out.sum().backward()
    assert counter.forward == 4 * batch * heads * n * n * d
    assert counter.backward == 2 * counter.forward


def test_fused_attention_reports_the_scores_that_it_computes_again() -> None:
    query, key, value = (torch.ones(1, 2, 6, 8, requires_grad=True) for _ in range(3))
    with FlopCounter() as counter:
        functional.scaled_dot_product_attention(query, key, value).sum().backward()
    assert counter.recomputed == 2 * 2 * 6 * 6 * 8


def test_a_head_that_cuda_pads_costs_its_true_width() -> None:
    padded, true = (1, 2, 6, 32), (1, 2, 6, 26)
    assert attention(padded, padded, padded, 0.0, True, scale=26**-0.5) == attention(true, true, true)
    assert attention(padded, padded, padded, scale=32**-0.5) == attention(padded, padded, padded)
    assert attention(padded, padded, padded, scale=24**-0.5) == attention(padded, padded, padded)  # no padding is 8
    assert attention(padded, padded, padded, scale=1.0) == attention(padded, padded, padded)
    assert attention_backward(true, true, true, true) == 2 * attention(true, true, true)


def test_values_may_be_wider_than_keys() -> None:
    assert attention((1, 1, 3, 4), (1, 1, 5, 4), (1, 1, 5, 6)) == 2 * 3 * 5 * (4 + 6)


def test_an_operation_without_a_rule_raises_its_name_and_what_to_do() -> None:
    with pytest.raises(NotImplementedError, match=r"aten::linalg_inv_ex.*flop_rules\.py"), FlopCounter():
        torch.linalg.inv(torch.eye(3))


def test_an_operation_without_a_rule_raises_in_the_backward_pass_too() -> None:
    class Odd(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: object, grad: torch.Tensor) -> torch.Tensor:
            return torch.fft.fft(grad).real

    x = torch.ones(4, requires_grad=True)
    with pytest.raises(NotImplementedError, match="fft"), FlopCounter():
        Odd.apply(x).sum().backward()


def test_no_operation_has_two_rules_and_all_free_names_exist() -> None:
    absent = ("bitsandbytes",)  # an extra, which registers its operations when it is imported
    if find_spec("bitsandbytes"):
        import_module("bitsandbytes")
        absent = ()
    known = {name.split(".")[0].rstrip("_") for name in torch._C._dispatch_get_all_op_names()}
    assert sorted(name for name in FREE - known if name.split("::")[0] not in absent) == []
    counted = {packet._qualified_op_name for packet in FORMULAS}
    assert counted.isdisjoint(FREE)
    assert set(RECOMPUTED) <= set(FORMULAS)


def test_no_product_is_on_the_list_of_free_operations() -> None:
    suspicious = ("mm", "conv", "attention", "matmul", "linear", "bilinear", "einsum", "mv", "fft", "solve", "lstm")
    allowed = {"aten::linalg_vector_norm"}
    found = {n for n in FREE - allowed if any(word in n.split("::")[1].split("_") for word in suspicious)}
    assert found == set()


def test_recomputation_is_told_from_the_backward_pass() -> None:
    from torch.utils.checkpoint import checkpoint

    layer = nn.Linear(5, 7, bias=False)
    x = torch.ones(3, 5, requires_grad=True)
    with FlopCounter() as counter:
        checkpoint(lambda y: layer(y).exp(), x, use_reentrant=False).sum().backward()
    once = 2 * 3 * 5 * 7
    assert counter.count == FlopCount(forward=once, backward=2 * once, recomputed=once)


def test_a_custom_function_is_recomputed_too() -> None:
    # Its forward runs with gradients off, like a backward pass.
    from torch.utils.checkpoint import checkpoint

    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx: torch.autograd.function.FunctionCtx, x: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x)
            return x @ x

        @staticmethod
        def backward(ctx: torch.autograd.function.FunctionCtx, grad: torch.Tensor) -> torch.Tensor:
            (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
            return grad @ x.t() + x.t() @ grad

    x = torch.eye(3, requires_grad=True)
    with FlopCounter() as counter:
        checkpoint(lambda y: Square.apply(y).exp(), x, use_reentrant=False).sum().backward()
    assert counter.count == FlopCount(forward=54, backward=108, recomputed=54)


def test_the_total_is_what_a_budget_pays_for() -> None:
    assert FlopCount(forward=1, backward=2, optimizer=4, recomputed=8).total == 7
    summed = FlopCount(forward=1, recomputed=2) + FlopCount(forward=10, backward=3, optimizer=5, recomputed=1)
    assert summed == FlopCount(forward=11, backward=3, optimizer=5, recomputed=3)


def test_adamw_costs_15_a_trained_parameter_and_nothing_by_operation() -> None:
    model = nn.Linear(10, 10)
    assert optimizer_flops(model) == 15 * 110
    model.weight.requires_grad_(False)
    assert optimizer_flops(model) == 15 * 10
    model(torch.ones(1, 10)).sum().backward()
    for options in ({"foreach": True}, {"foreach": False}, {"fused": True}):
        optimizer = torch.optim.AdamW(model.parameters(), **options)
        with FlopCounter() as counter:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        assert counter.count == FlopCount()


def test_a_tied_head_is_updated_once() -> None:
    model = build_model(GPT2, vocab_size=50, seq_len=8, device="meta")
    assert optimizer_flops(model) == 15 * sum(parameter.numel() for parameter in model.parameters())


def test_frozen_parts_cost_no_backward() -> None:
    model = build_model(GPT2, vocab_size=50, seq_len=8, device="meta")
    untied = build_model(
        ModelConfig(family="llama", role="decoder", n_layers=2, d_model=32, n_heads=4, d_ff=64),
        vocab_size=50,
        seq_len=8,
        device="meta",
    )
    inputs = torch.zeros(3, 8, dtype=torch.int64, device="meta")
    head = 2 * 3 * 8 * 32 * 50
    whole = count_flops(untied, inputs)
    untied.requires_grad_(False)
    stack_view(untied).head[0].requires_grad_(True)
    frozen = count_flops(untied, inputs)
    assert frozen == FlopCount(forward=whole.forward, backward=head, optimizer=15 * 32 * 50)
    nothing = count_flops(model.requires_grad_(False), inputs)
    assert (nothing.backward, nothing.optimizer) == (0, 0)


def test_a_step_of_gpt2_is_counted_as_on_paper() -> None:
    model = build_model(GPT2, vocab_size=50, seq_len=8, device="meta")
    tokens, d, d_ff, n = 3 * 8, 32, 64, 8
    forward = 2 * (2 * tokens * (4 * d * d + 2 * d * d_ff) + 4 * tokens * n * d) + 2 * tokens * d * 50
    assert count_flops(model, torch.zeros(3, 8, dtype=torch.int64, device="meta")) == FlopCount(
        forward=forward, backward=2 * forward, optimizer=optimizer_flops(model)
    )


def test_counting_leaves_weights_gradients_and_random_streams_as_they_were() -> None:
    model = build_model(GPT2, vocab_size=50, seq_len=8)
    model.config.resid_pdrop = 0.1
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.1  # draws from the generator
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    state = torch.get_rng_state()
    count_flops(model, torch.zeros(2, 8, dtype=torch.int64))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_real_training_step_costs_what_count_flops_says() -> None:
    model = build_model(GPT2, vocab_size=50, seq_len=8)
    inputs = torch.randint(0, 50, (3, 8))
    with FlopCounter() as counter:
        logits = model(input_ids=inputs).logits
        functional.cross_entropy(logits[:, :-1].flatten(0, 1), inputs[:, 1:].flatten()).backward()
    counted = count_flops(model, inputs)
    assert (counter.forward, counter.backward) == (counted.forward, counted.backward)
