"""The bk family: causality, both sides, gradients, masks, generation, settings that do not fit."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from stackwise_ray.config.trial import (
    AttentionMixer,
    Mixer,
    ModelConfig,
    NoMixer,
    ResolventApplyMixer,
    ResolventDiagonalMixer,
)
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.models import build_model, check_model
from stackwise_ray.models.bk.bk_model import BKConfig, BKForCausalLM, BKForMaskedLM
from stackwise_ray.models.bk.token_mixers import ETA_RANGE, initial_eta
from stackwise_ray.models.counting import count_parameters
from stackwise_ray.models.mixer_rules import ETA_FLOOR, mixer_settings
from stackwise_ray.models.stack_view import enable_activation_checkpointing, stack_view
from tests.small_bk import MIXERS, VOCABULARY, build, model_config, tokens

MIXING = [name for name in MIXERS if name != "none"]


@pytest.mark.parametrize("name", MIXERS)
def test_future_tokens_do_not_change_one_bit_of_earlier_logits(name: str) -> None:
    model, ids = build(MIXERS[name]), tokens()
    with torch.no_grad():
        before = model(input_ids=ids).logits
        for position in range(1, ids.shape[1]):
            changed = ids.clone()
            changed[:, position] = (changed[:, position] + 1) % VOCABULARY
            after = model(input_ids=changed).logits
            assert torch.equal(before[:, :position], after[:, :position]), position
            assert not torch.equal(before[:, position], after[:, position])


@pytest.mark.parametrize("name", MIXING)
def test_decoders_read_earlier_tokens(name: str) -> None:
    model, ids = build(MIXERS[name]), tokens()
    changed = ids.clone()
    changed[:, 10] = (changed[:, 10] + 1) % VOCABULARY
    with torch.no_grad():
        assert not torch.equal(model(input_ids=ids).logits[:, 11], model(input_ids=changed).logits[:, 11])


def test_none_is_local_to_the_token() -> None:
    model, ids = build(NoMixer()), tokens()
    with torch.no_grad():
        alone = torch.cat([model(input_ids=ids[:, i : i + 1]).logits for i in range(ids.shape[1])], dim=1)
        torch.testing.assert_close(model(input_ids=ids).logits, alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", MIXING)
def test_encoders_see_both_sides(name: str) -> None:
    model, ids = build(MIXERS[name], "encoder"), tokens()
    with torch.no_grad():
        before = model(input_ids=ids).logits
        for position in (11, 9):
            changed = ids.clone()
            changed[:, position] = (changed[:, position] + 1) % VOCABULARY
            assert not torch.equal(before[:, 10], model(input_ids=changed).logits[:, 10])


@pytest.mark.parametrize("role", ["decoder", "encoder"])
@pytest.mark.parametrize("name", MIXERS)
def test_every_parameter_gets_a_finite_gradient(name: str, role: str) -> None:
    model, ids = build(MIXERS[name], role), tokens()
    output = model(input_ids=ids, labels=ids)
    assert output.logits.shape == (2, 37, VOCABULARY)
    torch.autograd.backward(output.loss)
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert bool(torch.isfinite(parameter.grad).all()), parameter_name
        assert bool((parameter.grad != 0).any()), parameter_name


def test_gradient_by_autograd_equals_the_adjoint_and_the_truncated_one_differs() -> None:
    gradients = {}
    for gradient in ("adjoint", "autograd", "diagonal"):
        mixer = ResolventDiagonalMixer(n_heads=2, learn=("potential",), gradient=gradient)  # type: ignore[arg-type]
        model, ids = build(mixer), tokens()
        torch.autograd.backward(model(input_ids=ids, labels=ids).loss)
        gradients[gradient] = model.model.layers[0].mixer.matrix.potential.weight.grad
    torch.testing.assert_close(gradients["autograd"], gradients["adjoint"], rtol=1e-10, atol=1e-14)
    assert float((gradients["diagonal"] - gradients["adjoint"]).abs().max()) > 1e-3 * float(
        gradients["adjoint"].abs().max()
    )


@pytest.mark.parametrize("role", ["decoder", "encoder"])
@pytest.mark.parametrize("name", MIXERS)
def test_padding_on_the_left_changes_no_other_position(name: str, role: str) -> None:
    model, ids = build(MIXERS[name], role), tokens(n=20)
    padded = torch.cat([torch.zeros(2, 6, dtype=torch.long), ids], dim=1)
    mask = (torch.arange(26) >= 6).long().expand(2, -1)
    with torch.no_grad():
        have = model(input_ids=padded, attention_mask=mask).logits[:, 6:]
        torch.testing.assert_close(have, model(input_ids=ids).logits, rtol=0, atol=1e-9)
        assert bool(torch.isfinite(model(input_ids=padded, attention_mask=mask).logits).all())


@pytest.mark.parametrize("role", ["decoder", "encoder"])
@pytest.mark.parametrize("name", MIXING)
def test_padding_on_the_right_changes_no_other_position(name: str, role: str) -> None:
    model, ids = build(MIXERS[name], role), tokens(n=20)
    padded = torch.cat([ids, torch.zeros(2, 6, dtype=torch.long)], dim=1)
    mask = (torch.arange(26) < 20).long().expand(2, -1)
    with torch.no_grad():
        have = model(input_ids=padded, attention_mask=mask).logits[:, :20]
        torch.testing.assert_close(have, model(input_ids=ids).logits, rtol=0, atol=1e-9)


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("name", MIXERS)
def test_generate_takes_the_most_likely_token_of_the_full_forward(name: str, use_cache: bool) -> None:
    model, ids = build(MIXERS[name]), tokens(n=5)
    everything = torch.ones_like(ids)
    have = model.generate(ids, attention_mask=everything, max_new_tokens=6, do_sample=False, use_cache=use_cache)
    want = ids
    with torch.no_grad():
        for _ in range(6):
            following = model(input_ids=want).logits[:, -1].argmax(-1, keepdim=True)
            want = torch.cat([want, following], dim=1)
    assert torch.equal(have, want)


@pytest.mark.parametrize("name", MIXERS)
def test_works_on_the_meta_device_and_on_fake_tensors(name: str) -> None:
    meta = build_model(model_config(MIXERS[name]), vocab_size=VOCABULARY, seq_len=64, device="meta")
    output = meta(input_ids=tokens().to("meta"), labels=tokens().to("meta"))
    assert output.logits.shape == (2, 37, VOCABULARY)
    torch.autograd.backward(output.loss)
    assert all(parameter.grad is not None for parameter in meta.parameters())
    with FakeTensorMode():
        fake = build_model(model_config(MIXERS[name]), vocab_size=VOCABULARY, seq_len=64)
        assert fake(input_ids=torch.zeros(2, 9, dtype=torch.long)).logits.shape == (2, 9, VOCABULARY)


@pytest.mark.parametrize("name", ["resolvent_apply", "attention", "none"])
def test_activation_checkpointing_changes_no_bit(name: str) -> None:
    plain, ids = build(MIXERS[name]).train(), tokens()
    recomputing = copy.deepcopy(plain)
    enable_activation_checkpointing(recomputing)
    for model in (plain, recomputing):
        torch.autograd.backward(model(input_ids=ids, labels=ids).loss)
    for mine, theirs in zip(recomputing.parameters(), plain.parameters(), strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        assert torch.equal(mine.grad, theirs.grad)


@pytest.mark.parametrize("name", MIXERS)
def test_autocast_to_bf16_trains(name: str) -> None:
    model, ids = build(MIXERS[name]).float(), tokens()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(input_ids=ids, labels=ids).loss
    torch.autograd.backward(loss)
    assert all(parameter.grad is not None for parameter in model.parameters())
    exact = model(input_ids=ids, labels=ids).loss
    assert float(loss.detach()) == pytest.approx(float(exact.detach()), rel=0.05)


def test_weights_in_bf16_run() -> None:
    for name in MIXING:
        model = build(MIXERS[name]).bfloat16()
        assert bool(torch.isfinite(model(input_ids=tokens()).logits).all())


def test_stack_view_holds_every_parameter_once() -> None:
    for mixer in MIXERS.values():
        model = build(mixer)
        held = {id(p) for _, module in stack_view(model).parts() for p in module.parameters()}
        assert held == {id(p) for p in model.parameters()}
        assert len(stack_view(model).blocks) == 2


def parameters(mixer: Mixer, n_layers: int, d_model: int, d_ff: int) -> int:
    """Non-embedding parameters by hand."""
    token = {
        "resolvent_apply": lambda h, f, p: d_model * h * (1 + p + 2 * f) + h * f + 3 * h,
        "none": lambda h, f, p: -d_model,
        "attention": lambda h, f, p: 4 * d_model**2,
    }
    heads, width = getattr(mixer, "n_heads", 0), getattr(mixer, "d_value", 0)
    features = 2 * width + 2 * getattr(mixer, "diagonal_features", False)
    return n_layers * (token[mixer.kind](heads, features, width) + 2 * d_model + 3 * d_model * d_ff) + d_model


@pytest.mark.parametrize("name", ["resolvent_apply", "resolvent_apply with diagonal features", "attention", "none"])
def test_parameter_count_follows_the_formula(name: str) -> None:
    model = build_model(model_config(MIXERS[name]), vocab_size=VOCABULARY, seq_len=64, device="meta")
    assert count_parameters(model).non_embedding == parameters(MIXERS[name], 2, 16, 24)


def test_tiny_size_agrees_with_the_other_families_within_two_percent() -> None:
    def tiny(**fields: Any) -> int:
        config = ModelConfig(role="decoder", n_layers=4, d_model=64, **fields)
        return count_parameters(build_model(config, vocab_size=256, seq_len=256, device="meta")).non_embedding

    bk = tiny(family="bk", d_ff=152, mixer=ResolventApplyMixer())
    assert bk == 201_888 == parameters(ResolventApplyMixer(), 4, 64, 152)
    for other in (tiny(family="gpt2", n_heads=4, d_ff=256), tiny(family="llama", n_heads=4, d_ff=176)):
        assert abs(bk - other) <= 0.02 * other


def test_initial_eta_is_spaced_over_its_range_and_kept_above_its_floor() -> None:
    model = build_model(model_config(ResolventApplyMixer()), vocab_size=VOCABULARY, seq_len=64)
    matrix = model.model.layers[0].mixer.matrix
    _, hop, shift = matrix(torch.zeros(1, 3, 16), None)
    eta = shift.imag.flatten()
    torch.testing.assert_close(eta.detach(), initial_eta(8, None), rtol=1e-5, atol=0)
    assert (float(eta[0].detach()), float(eta[-1].detach())) == pytest.approx(ETA_RANGE, rel=1e-4)
    assert bool((hop == 1).all())
    with torch.no_grad():
        matrix.rho.fill_(-100.0)
    _, _, shift = matrix(torch.zeros(1, 3, 16), None)
    assert float(shift.imag.min().detach()) == pytest.approx(ETA_FLOOR)


def test_original_settings_give_the_original_matrix() -> None:
    model = build_model(model_config(MIXERS["original"]), vocab_size=VOCABULARY, seq_len=64)
    mixer = model.model.layers[0].mixer
    x = torch.randn(1, 5, 16)
    potential, hop, shift = mixer.matrix(x, None)
    torch.testing.assert_close(potential[0, 0], -2 + (x @ mixer.matrix.potential.weight.T)[0, :, 0])
    assert hop.flatten().tolist() == [1.0]
    assert shift.flatten().tolist() == [1j]
    assert [name for name, _ in mixer.named_parameters()] == ["matrix.potential.weight", "out.weight", "out.bias"]


def test_two_sided_decoder_and_causal_encoder_are_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError, match="causal = false: a two-sided mixer shows each position the next"):
        BKForCausalLM(BKConfig(causal=False))
    with pytest.raises(ConfigError, match="causal = true: a causal mixer does not see the tokens after a mask"):
        BKForMaskedLM(BKConfig(causal=True))


MISTAKES: dict[str, tuple[Mixer, str]] = {
    "odd attention heads": (
        AttentionMixer(n_heads=3),
        r"model\.mixer\.n_heads = 3 does not divide d_model = 16 into heads of even width.*choose 2, 4 or 8",
    ),
    "nothing of the input": (
        ResolventDiagonalMixer(learn=("hop",)),
        r"model\.mixer\.learn = \['hop'\] lacks potential",
    ),
    "hop without gradient": (
        ResolventDiagonalMixer(gradient="diagonal"),
        r"model\.mixer\.gradient = diagonal gives the hop no gradient",
    ),
    "eta below its floor": (ResolventDiagonalMixer(eta=0.001), r"model\.mixer\.eta = 0\.001 is not above "),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_settings_that_do_not_fit_are_refused(mistake: str) -> None:
    mixer, message = MISTAKES[mistake]
    with pytest.raises(ConfigError, match=message):
        check_model(model_config(mixer), seq_len=8)
    with pytest.raises(ConfigError, match=message):
        mixer_settings(dataclasses.asdict(mixer), 16)


def test_forced_backend_is_taken_when_the_model_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STACKWISE_BK_BACKEND", "reference")
    model = build(MIXERS["resolvent_apply"])
    assert model.model.layers[0].mixer.backend == "reference"
    monkeypatch.setenv("STACKWISE_BK_BACKEND", "nothing")
    with pytest.raises(ConfigError, match="unknown kernel backend 'nothing'"):
        build(MIXERS["resolvent_apply"])
