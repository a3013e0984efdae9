"""One FLOP convention for every family, mode and device: run over the registry and the presets named tiny."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch._subclasses import FakeTensorMode

from stackwise_ray.config.reading.presets import list_presets
from stackwise_ray.config.reading.yaml import load_yaml
from stackwise_ray.config.trial import (
    AttentionMixer,
    ExpertsChannelMixer,
    Mixer,
    ModelConfig,
    ResolventApplyMixer,
    ResolventDiagonalMixer,
)
from stackwise_ray.config.trial.validation import validate
from stackwise_ray.metrics.flops import FlopCount, FlopCounter, count_flops
from stackwise_ray.metrics.memory import LiveTensorPeak, SavedActivations, tensors_of
from stackwise_ray.models import FAMILIES, build_model
from stackwise_ray.models.stack_view import enable_activation_checkpointing, stack_view

PRESETS = Path(__file__).resolve().parents[2] / "stackwise_ray" / "presets" / "model"
VOCAB_SIZE, BATCH, SEQ_LEN = 97, 2, 160  # longer than ModernBERT's window of 128


def tiny_models() -> dict[str, ModelConfig]:
    """Every preset named tiny, two layers deep (ModernBERT: one global, one local), with every mixer it may have and
    once with experts."""
    found: dict[str, ModelConfig] = {}
    for name in list_presets("model"):
        if name.endswith("/tiny"):
            model = validate(ModelConfig, load_yaml(PRESETS / f"{name}.yaml"))
            model = replace(model, n_layers=2)
            mixers = get_args(get_args(Mixer)[0]) if FAMILIES.get(model.family).takes_mixer else ()
            found |= {f"{name}-{kind().kind}": replace(model, mixer=kind()) for kind in mixers} or {name: model}
            if mixers:
                found[f"{name}-experts"] = replace(model, channel_mixer=ExpertsChannelMixer())
    llama = found["decoder/llama_family/tiny"]
    return found | {"llama-grouped": replace(llama, n_kv_heads=2), "llama-one-key": replace(llama, n_kv_heads=1)}


MODELS = tiny_models()
every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
KINDS = (
    "decoder/gpt2_family/tiny",
    "encoder/bert_family/tiny",
    "decoder/llama_family/tiny",
    *(name for name in MODELS if name.endswith(("experts", "resolvent_apply"))),
)
"""Whose passes differ in what they save: they are checkpointed by default, the others in the exhaustive run."""


def cases(*, bf16: bool = False) -> list[Any]:
    """(name, whether checkpointed, and then also in 16 bits)."""
    again = "checkpointed in bf16" if bf16 else "checkpointed"
    plain = [pytest.param(name, False, id=f"plain-{name}") for name in MODELS]
    marks = {name: [pytest.mark.slow, *([] if name in KINDS else [pytest.mark.exhaustive])] for name in MODELS}
    return plain + [pytest.param(name, True, id=f"{again}-{name}", marks=marks[name]) for name in MODELS]


@cache
def count(model: ModelConfig, device: str, *, checkpointing: bool = False, bf16: bool = False) -> FlopCount:
    """`count_flops` on "cpu", "meta" or on "fake" CPU tensors."""
    real = "cpu" if device == "fake" else device
    with FakeTensorMode() if device == "fake" else nullcontext():
        built = build_model(model, vocab_size=VOCAB_SIZE, seq_len=SEQ_LEN, device=real)
        if checkpointing:
            enable_activation_checkpointing(built)
        inputs = torch.zeros(BATCH, SEQ_LEN, dtype=torch.int64, device=real)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            return count_flops(built, inputs)


def attends(model: ModelConfig) -> bool:
    return FAMILIES.get(model.family).takes_n_heads or isinstance(model.mixer, AttentionMixer)


def attention_flops(model: ModelConfig) -> int:
    """4·N·d a token a layer, by hand."""
    return BATCH * SEQ_LEN * 4 * SEQ_LEN * model.d_model * model.n_layers if attends(model) else 0


@pytest.mark.parametrize(("name", "checkpointed"), cases(bf16=True))
def test_meta_fake_and_cpu_count_the_same_to_the_unit(name: str, checkpointed: bool) -> None:
    model = MODELS[name]
    cpu, meta, fake = (count(model, d, checkpointing=checkpointed, bf16=checkpointed) for d in ("cpu", "meta", "fake"))
    assert (meta.forward, meta.backward, meta.optimizer) == (cpu.forward, cpu.backward, cpu.optimizer)
    assert fake == cpu
    # On meta attention is not fused: the scores are kept and not computed again. Elsewhere half a forward pass is.
    assert cpu.recomputed - meta.recomputed == attention_flops(model) // 2


@every_model
def test_checkpointing_changes_nothing_but_what_is_recomputed(model: ModelConfig) -> None:
    plain, checkpointed = count(model, "meta"), count(model, "meta", checkpointing=True)
    assert replace(checkpointed, recomputed=0) == plain
    assert plain.recomputed == 0
    blocks = model.n_layers * (plain.forward - count(replace(model, n_layers=1), "meta").forward)
    # A block is computed again up to its last product, whose result nothing in the block needs: a third at most.
    assert 0.6 * blocks < checkpointed.recomputed <= blocks


@every_model
def test_counted_is_analytic_within_a_hundredth(model: ModelConfig) -> None:
    built = build_model(model, vocab_size=VOCAB_SIZE, seq_len=SEQ_LEN, device="meta")
    view = stack_view(built)
    matrices = {
        id(weight): weight.numel()
        for part in (*view.blocks, *view.head)
        for weight in part.parameters()
        if weight.ndim == 2 and min(weight.shape) > 1
    }
    tokens = BATCH * SEQ_LEN
    forward = 2 * tokens * sum(matrices.values()) + attention_flops(model)
    backward = 2 * forward
    mixer = model.mixer
    causal = model.role == "decoder"
    if isinstance(mixer, ResolventApplyMixer):
        elements, width = tokens * mixer.n_heads * model.n_layers, mixer.d_value
        forward += elements * (12 + 9 * width if causal else 14 + 17 * width)
        backward += elements * (31 + 26 * width if causal else 4 + 34 * width)
    elif isinstance(mixer, ResolventDiagonalMixer):
        forward += (11 if causal else 29) * tokens * mixer.n_heads * model.n_layers
        backward += (20 if causal else 54) * tokens * mixer.n_heads * model.n_layers
    counted = count(model, "meta")
    assert counted.forward == pytest.approx(forward, rel=0.01)
    assert counted.backward == pytest.approx(backward, rel=0.01)
    assert counted.optimizer == 15 * sum(parameter.numel() for parameter in built.parameters())


@every_model
def test_an_evaluation_costs_the_forward_pass_of_a_step(model: ModelConfig) -> None:
    built = build_model(model, vocab_size=VOCAB_SIZE, seq_len=SEQ_LEN).eval()
    for mode in (torch.no_grad, torch.inference_mode):
        with mode(), FlopCounter() as counter:
            built(input_ids=torch.zeros(BATCH, SEQ_LEN, dtype=torch.int64))
        assert counter.count == FlopCount(forward=count(model, "meta").forward)


@cache
def step_memory(model: ModelConfig, *, fake: bool, checkpointing: bool) -> tuple[int, int]:
    """(peak of live tensors, saved activations) of one step, in bytes."""
    with FakeTensorMode() if fake else nullcontext():
        built = build_model(model, vocab_size=VOCAB_SIZE, seq_len=SEQ_LEN)
        if checkpointing:
            enable_activation_checkpointing(built)
        inputs = torch.zeros(BATCH, SEQ_LEN, dtype=torch.int64)
        with LiveTensorPeak(tensors_of(built)) as peak:
            with SavedActivations(built) as saved:
                loss = built(input_ids=inputs).logits.logsumexp(-1).sum()
            loss.backward()
        return peak.peak_bytes, saved.bytes


@pytest.mark.parametrize(("name", "checkpointed"), cases())
def test_fake_tensors_predict_the_memory_of_the_real_step_to_the_byte(name: str, checkpointed: bool) -> None:
    predicted = step_memory(MODELS[name], fake=True, checkpointing=checkpointed)
    assert predicted == step_memory(MODELS[name], fake=False, checkpointing=checkpointed)


@every_model
def test_checkpointing_saves_memory(model: ModelConfig) -> None:
    plain = step_memory(model, fake=True, checkpointing=False)
    checkpointed = step_memory(model, fake=True, checkpointing=True)
    assert checkpointed[0] < plain[0]
    assert checkpointed[1] < 0.5 * plain[1]
