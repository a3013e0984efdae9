"""Decoding of the bk family: the same tokens as the full forward, from a state that does not grow."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from stackwise_ray.config.trial import (
    ExpertsChannelMixer,
    Mixer,
    ResolventApplyMixer,
    ResolventDiagonalMixer,
)
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.kernels import resolvent_apply
from stackwise_ray.models.bk.bk_model import BKConfig, BKForMaskedLM
from stackwise_ray.models.bk.decoding_cache import BKCache, LastPosition
from stackwise_ray.models.mixer_rules import ETA_FLOOR
from tests.small_bk import MIXERS, tokens
from tests.small_bk import build as build_trainable

# with autograd's own gradient decoding is the same
DECODING = {name: mixer for name, mixer in MIXERS.items() if getattr(mixer, "gradient", "adjoint") == "adjoint"}
RESOLVENTS = [name for name in DECODING if name not in ("attention", "none")]
every_mixer = pytest.mark.parametrize("name", DECODING)
GENERATING = [(name, torch.float64) for name in DECODING] + [
    pytest.param(name, torch.float32, marks=pytest.mark.slow if name == "resolvent_apply" else pytest.mark.exhaustive)
    for name in DECODING
]


def build(mixer: Mixer, **changes: Any) -> PreTrainedModel:
    return build_trainable(mixer, **changes).requires_grad_(False)


def decoded(model: PreTrainedModel, ids: Tensor, pieces: tuple[int, ...], mask: Tensor | None = None) -> Tensor:
    """Logits at all positions, from calls of so many positions each."""
    cache, start, logits = BKCache(model.config), 0, []
    for n in pieces:
        seen = None if mask is None else mask[:, : start + n]
        output = model(input_ids=ids[:, start : start + n], attention_mask=seen, past_key_values=cache)
        assert output.past_key_values is cache
        logits.append(output.logits)
        start += n
        assert cache.get_seq_length() == start
    assert start == ids.shape[1]
    return torch.cat(logits, dim=1)


def state_bytes(cache: BKCache) -> int:
    """All memory that the cache keeps alive, not only what its views show."""
    tensors = [t for layer in cache.layers for t in (layer.keys, layer.values) if t is not None]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


@pytest.mark.parametrize(("name", "dtype"), GENERATING)
def test_generate_gives_the_greedy_tokens_of_the_full_forward_over_512_steps(name: str, dtype: torch.dtype) -> None:
    model, ids = build(MIXERS[name], dtype=dtype, tie_embeddings=False), tokens(n=5)
    written = model.generate(ids, max_new_tokens=512, do_sample=False)
    assert written.shape == (2, 517)
    if name.startswith("resolvent_apply"):  # the others soon write in circles; for them the next test is the sharper
        assert all(len(row.unique()) > 8 for row in written[:, 300:]), "too dull a text to tell a wrong state"
    # One full forward over what was written: if every token is the likeliest after its own past, then a loop of full
    # forwards writes the same, token by token.
    logits = model(input_ids=written[:, :-1]).logits[:, 4:]
    assert torch.equal(logits.argmax(-1), written[:, 5:])


@every_mixer
def test_each_of_512_steps_chooses_the_token_of_the_full_forward_after_any_text(name: str) -> None:
    model, ids = build(MIXERS[name], dtype=torch.float32, tie_embeddings=False), tokens(n=517)
    chosen = decoded(model, ids, (5, *[1] * 512)).argmax(-1)
    assert len(chosen.unique()) > 8
    assert torch.equal(chosen, model(input_ids=ids).logits.argmax(-1))


def test_generate_uses_the_cache_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    model, lengths = build(MIXERS["resolvent_apply"]), []
    trunk = type(model.model).forward

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        lengths.append(kwargs["input_ids"].shape[1])
        return trunk(self, *args, **kwargs)

    monkeypatch.setattr(type(model.model), "forward", forward)
    model.generate(tokens(n=5), max_new_tokens=3, do_sample=False)
    model.generate(tokens(n=5), max_new_tokens=3, do_sample=False, use_cache=False)
    assert lengths == [5, 1, 1, 5, 6, 7]


@pytest.mark.parametrize("pieces", [(40,), (1,) * 40, (17, 1, 1, 5, 1, 15), (1, 39), (39, 1)])
@every_mixer
def test_any_cut_into_calls_gives_the_logits_of_one_call(name: str, pieces: tuple[int, ...]) -> None:
    model, ids = build(MIXERS[name]), tokens(n=40)
    torch.testing.assert_close(decoded(model, ids, pieces), model(input_ids=ids).logits, rtol=0, atol=1e-10)


def test_experts_decode_as_they_forward() -> None:
    model, ids = build(MIXERS["resolvent_apply"], channel_mixer=ExpertsChannelMixer(top_k=2)), tokens(n=40)
    have = decoded(model, ids, (17, 1, 1, 5, 1, 15))
    torch.testing.assert_close(have, model(input_ids=ids).logits, rtol=0, atol=1e-10)


def test_rounding_does_not_pile_up_at_the_smallest_eta_in_single_precision() -> None:
    """Stepping from the same float32 numbers gives the float32 result of one call, to its rounding (6e-8)."""
    torch.manual_seed(0)
    potential, x = torch.randn(1, 4, 400), torch.randn(1, 4, 400, 3)
    hop, shift = torch.ones(4, 1), torch.full((4, 1), ETA_FLOOR * 1j, dtype=torch.complex64)
    layer = LastPosition()
    stepped = torch.cat(
        [
            layer.go_on(potential[..., i : i + 1], hop, shift, x[:, :, i : i + 1], backend="torch")[1]
            for i in range(400)
        ],
        dim=2,
    )
    whole = resolvent_apply(potential, hop, shift, x, causal=True, backend="torch")
    assert float((stepped - whole).abs().max()) <= 1e-7 * float(whole.abs().max())


@pytest.mark.parametrize("name", RESOLVENTS)
def test_the_state_is_one_complex_number_a_head_and_one_a_value_at_any_context(name: str) -> None:
    mixer = MIXERS[name]
    assert isinstance(mixer, ResolventApplyMixer | ResolventDiagonalMixer)
    numbers = mixer.n_heads * (1 + (mixer.d_value if isinstance(mixer, ResolventApplyMixer) else 0))
    model, ids = build(mixer, dtype=torch.float32), tokens(batch=3, n=300)
    cache = model(input_ids=ids[:, :200], use_cache=True).past_key_values
    sizes = [state_bytes(cache)]
    for i in range(200, 210):
        model(input_ids=ids[:, i : i + 1], past_key_values=cache)
        sizes.append(state_bytes(cache))
    model(input_ids=ids[:, 210:], past_key_values=cache)
    sizes.append(state_bytes(cache))
    assert set(sizes) == {16 * 3 * 2 * numbers}  # bytes of a complex128, batch, layers


def test_attention_keeps_keys_and_values_and_none_keeps_nothing() -> None:
    ids = tokens(n=40)
    cache = build(MIXERS["attention"])(input_ids=ids, use_cache=True).past_key_values
    assert all(type(layer) is DynamicLayer and layer.get_seq_length() == 40 for layer in cache.layers)
    cache = build(MIXERS["none"])(input_ids=ids, use_cache=True).past_key_values
    assert (state_bytes(cache), cache.get_seq_length()) == (0, 40)


@every_mixer
def test_beam_search_finds_the_same_with_and_without_a_cache(name: str) -> None:
    model, ids = build(MIXERS[name]), tokens(n=5)
    options: dict[str, Any] = {"max_new_tokens": 12, "num_beams": 3, "num_return_sequences": 2, "do_sample": False}
    cached = model.generate(ids, **options)
    assert torch.equal(cached, model.generate(ids, use_cache=False, **options))
    assert not torch.equal(cached[::2], model.generate(ids, max_new_tokens=12, do_sample=False)), "no beam ever changed"


@pytest.mark.parametrize("name", [name for name in DECODING if name != "none"])
def test_reordering_moves_the_states_of_the_sequences(name: str) -> None:
    model, ids = build(MIXERS[name]), tokens(batch=3, n=12)
    order = torch.tensor([2, 0, 0])
    cache = model(input_ids=ids[:, :8], use_cache=True).past_key_values
    cache.reorder_cache(order)
    mixed = torch.cat([ids[order, :8], ids[:, 8:]], dim=1)
    have = model(input_ids=ids[:, 8:], past_key_values=cache).logits
    torch.testing.assert_close(have, model(input_ids=mixed).logits[:, 8:], rtol=0, atol=1e-10)


@every_mixer
def test_batches_padded_on_the_left_generate_what_each_sequence_generates_alone(name: str) -> None:
    model, ids = build(MIXERS[name]), tokens(n=20)
    short = ids[1:, 7:]
    padded = torch.cat([ids[:1], torch.cat([torch.zeros(1, 7, dtype=torch.long), short], dim=1)])
    mask = torch.ones(2, 20, dtype=torch.long)
    mask[1, :7] = 0
    together = model.generate(padded, attention_mask=mask, max_new_tokens=20, do_sample=False)
    for row, alone in ((0, ids[:1]), (1, short)):
        want = model.generate(alone, max_new_tokens=20, do_sample=False)
        assert torch.equal(together[row, 20:], want[0, alone.shape[1] :])


@pytest.mark.parametrize("pieces", [(20, 1, 19), (1,) * 40, (10, 30)])
@every_mixer
def test_masked_positions_anywhere_decode_as_in_one_call(name: str, pieces: tuple[int, ...]) -> None:
    """Padding on the left, a hole across two calls and a hole inside one."""
    model, ids = build(MIXERS[name]), tokens(n=40)
    mask = torch.ones(2, 40, dtype=torch.long)
    mask[1, :6], mask[0, 18:21], mask[1, 30] = 0, 0, 0
    have, want = decoded(model, ids, pieces, mask), model(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(have[mask.bool()], want[mask.bool()], rtol=0, atol=1e-9)


def test_a_copied_cache_goes_on_by_itself() -> None:
    model, ids = build(MIXERS["resolvent_apply"]), tokens(n=40)
    prefix = model(input_ids=ids[:, :30], use_cache=True).past_key_values
    want = model(input_ids=ids).logits[:, 30:]
    for _ in range(2):
        have = model(input_ids=ids[:, 30:], past_key_values=copy.deepcopy(prefix)).logits
        torch.testing.assert_close(have, want, rtol=0, atol=1e-10)
    prefix.reset()
    assert prefix.get_seq_length() == 0
    have = model(input_ids=ids, past_key_values=prefix).logits
    torch.testing.assert_close(have[:, 30:], want, rtol=0, atol=1e-10)


def test_generate_goes_on_from_a_cache_that_it_is_given() -> None:
    model, ids = build(MIXERS["resolvent_apply"]), tokens(n=20)
    cache = model(input_ids=ids[:, :15], use_cache=True).past_key_values
    have = model.generate(ids, past_key_values=cache, max_new_tokens=10, do_sample=False)
    assert torch.equal(have, model.generate(ids, max_new_tokens=10, do_sample=False))


@every_mixer
def test_a_prompt_is_prefilled_in_chunks_into_a_cache_that_is_passed(name: str) -> None:
    model, ids = build(MIXERS[name]), tokens(n=20)
    cache, options = BKCache(model.config), {"max_new_tokens": 10, "do_sample": False}
    have = model.generate(ids, past_key_values=cache, prefill_chunk_size=6, **options)
    assert torch.equal(have, model.generate(ids, **options))


@every_mixer
def test_half_precision_decodes_as_it_forwards(name: str) -> None:
    """Within some units of bfloat16's last place, 2⁻⁸, of the largest logit."""
    model, ids = build(MIXERS[name], dtype=torch.float32), tokens(n=20)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        have, want = decoded(model, ids, (5, 1, 10, 1, 3)), model(input_ids=ids).logits
    assert float((have - want).abs().max()) <= 2**-6 * float(want.abs().max())
    model = model.bfloat16()
    have, want = decoded(model, ids, (5, 1, 10, 1, 3)), model(input_ids=ids).logits
    assert float((have - want).abs().max()) <= 2**-6 * float(want.abs().max())


def test_gradients_through_a_cache_are_those_of_one_call() -> None:
    model, ids = build(MIXERS["resolvent_apply"]).requires_grad_(True), tokens(n=20)
    want = torch.autograd.grad(model(input_ids=ids).logits.square().sum(), list(model.parameters()))
    have = torch.autograd.grad(decoded(model, ids, (8, 1, 11)).square().sum(), list(model.parameters()))
    for mine, theirs in zip(have, want, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-9)


def test_a_reloaded_model_decodes_with_its_cache(tmp_path: Path) -> None:
    model, ids = build(MIXERS["resolvent_apply"]), tokens(n=5)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    assert again.generation_config.use_cache
    options: dict[str, Any] = {"max_new_tokens": 20, "do_sample": False}
    assert torch.equal(again.generate(ids, **options), model.generate(ids, **options))


# ------------------------------------------------------------------------------------------------ what is refused


def test_two_sided_models_say_why_they_do_not_generate() -> None:
    model = BKForMaskedLM(BKConfig(causal=False))
    with pytest.raises(ConfigError, match="a two-sided model needs the tokens on both sides, and"):
        model.generate(tokens(n=40))
    with pytest.raises(ConfigError, match="in a two-sided mixer each new token changes all earlier positions"):
        model.eval()(input_ids=tokens(n=40), use_cache=True)


def test_a_cache_of_another_kind_is_refused_by_name() -> None:
    model = build(MIXERS["resolvent_apply"])
    with pytest.raises(ValueError, match=r"past_key_values is a DynamicCache.*BKCache\(model\.config\)"):
        model(input_ids=tokens(n=40), past_key_values=DynamicCache())


def test_a_mask_that_leaves_out_the_cached_positions_is_refused() -> None:
    model, ids = build(MIXERS["resolvent_apply"]), tokens(n=40)
    cache = model(input_ids=ids[:, :30], use_cache=True).past_key_values
    with pytest.raises(ValueError, match=r"has shape \(2, 10\); it must be \(batch, positions \(30 of them in the"):
        model(input_ids=ids[:, 30:], attention_mask=torch.ones(2, 10), past_key_values=cache)


def test_a_cache_in_training_is_refused_and_not_made_unasked() -> None:
    model = build(MIXERS["resolvent_apply"]).requires_grad_(True).train()
    model.config.use_cache = True
    assert model(input_ids=tokens(n=40)).past_key_values is None
    with pytest.raises(ValueError, match="a cache cannot be used while activations are recomputed"):
        model(input_ids=tokens(n=40), use_cache=True)
    assert model.generate(tokens(n=5), max_new_tokens=2, do_sample=False).shape == (2, 7)


def test_positions_are_taken_back_by_attention_and_refused_by_a_resolvent() -> None:
    ids = tokens(n=40)
    cache = build(MIXERS["resolvent_apply"])(input_ids=ids, use_cache=True).past_key_values
    with pytest.raises(ValueError, match="cannot remove its last 3 tokens"):
        cache.crop(-3)
    model = build(MIXERS["attention"])
    cache = model(input_ids=ids, use_cache=True).past_key_values
    cache.crop(-3)
    assert cache.get_seq_length() == 37
    have = model(input_ids=ids[:, 37:], past_key_values=cache).logits
    torch.testing.assert_close(have, model(input_ids=ids).logits[:, 37:], rtol=0, atol=1e-10)


def test_assisted_decoding_is_refused() -> None:
    model = build(MIXERS["resolvent_apply"])
    with pytest.raises(ValueError, match="assisted generation is not supported with stateful models"):
        model.generate(tokens(batch=1, n=5), max_new_tokens=4, prompt_lookup_num_tokens=2)
