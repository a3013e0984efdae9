"""Building: vocabulary, ties, dropout, fake tensors, pretrained weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GPT2Config, GPT2LMHeadModel

from stackwise_ray.config.trial import ExpertsChannelMixer, ModelConfig, NoMixer, ResolventApplyMixer
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.models import build_model
from stackwise_ray.models.saved import saved_config
from stackwise_ray.models.stack_view import enable_activation_checkpointing, stack_view

GPT2 = ModelConfig(family="gpt2", role="decoder", n_layers=2, d_model=32, n_heads=4, d_ff=64)
LLAMA = replace(GPT2, family="llama")
MODERNBERT = replace(GPT2, family="modernbert", role="encoder")


def test_a_vocabulary_may_be_padded_and_may_not_be_cut() -> None:
    padded = build_model(replace(GPT2, vocab_size=128), vocab_size=100, seq_len=8, device="meta")
    assert padded.config.vocab_size == 128
    with pytest.raises(ConfigError, match=r"model\.vocab_size = 64 is smaller than the tokenizer's 100"):
        build_model(replace(GPT2, vocab_size=64), vocab_size=100, seq_len=8)


def test_positions_come_from_the_window_unless_a_table_is_asked_for() -> None:
    assert build_model(GPT2, vocab_size=50, seq_len=24, device="meta").config.n_positions == 24
    longer = replace(GPT2, max_positions=64)
    assert build_model(longer, vocab_size=50, seq_len=24, device="meta").config.n_positions == 64


@pytest.mark.parametrize(("model", "published"), [(GPT2, True), (LLAMA, False)], ids=["gpt2", "llama"])
@pytest.mark.parametrize("tie", [None, True, False])
def test_the_head_is_tied_as_asked_and_else_as_published(model: ModelConfig, published: bool, tie: bool | None) -> None:
    built = build_model(replace(model, tie_embeddings=tie), vocab_size=50, seq_len=8)
    tied = built.get_output_embeddings().weight is built.get_input_embeddings().weight
    assert tied is (published if tie is None else tie)


def test_dropout_reaches_every_rate_of_the_config() -> None:
    built = build_model(replace(GPT2, dropout=0.25), vocab_size=50, seq_len=8, device="meta")
    assert {m.p for m in built.modules() if isinstance(m, torch.nn.Dropout)} == {0.25}
    assert built.config.attn_pdrop == 0.25


def test_a_fake_model_has_the_ties_of_a_real_one() -> None:
    # Truncated-normal initialisation reads values, which fake tensors have not: it is left out there.
    with FakeTensorMode():
        fake = build_model(MODERNBERT, vocab_size=50, seq_len=8)
    real = build_model(MODERNBERT, vocab_size=50, seq_len=8)
    shapes = {name: tuple(p.shape) for name, p in fake.named_parameters()}
    assert shapes == {name: tuple(p.shape) for name, p in real.named_parameters()}


def test_packed_positions_that_a_caller_passes_are_still_honoured() -> None:
    torch.manual_seed(0)
    model = build_model(LLAMA, vocab_size=50, seq_len=8).eval()
    inputs = torch.randint(0, 50, (1, 8))
    packed = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3]])
    with torch.no_grad():
        second = model(input_ids=inputs[:, 4:]).logits
        together = model(input_ids=inputs, position_ids=packed, attention_mask=None).logits[:, 4:]
        unpacked = model(input_ids=inputs).logits[:, 4:]
    torch.testing.assert_close(together, second)
    assert not torch.allclose(unpacked, second, atol=1e-3)


def test_a_forward_that_fails_leaves_the_next_one_sound() -> None:
    from stackwise_ray.models import unpacked

    model = build_model(GPT2, vocab_size=50, seq_len=8)
    with pytest.raises(IndexError):
        model(input_ids=torch.full((1, 4), 999))
    assert unpacked._consecutive is False


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights")
    build_model(GPT2, vocab_size=50, seq_len=16).save_pretrained(path)
    return path


@pytest.mark.parametrize(
    ("change", "vocab_size", "seq_len", "message"),
    [
        ({"n_layers": 3}, 50, 16, r"model\.n_layers = 3, but .* has 2; write model\.n_layers: 2"),
        ({"d_model": 64}, 50, 16, r"model\.d_model = 64, but .* has 32"),
        ({"n_heads": 2}, 50, 16, r"model\.n_heads = 2, but .* has 4"),
        ({"d_ff": 128}, 50, 16, r"model\.d_ff = 128, but .* has 64"),
        ({"tie_embeddings": False}, 50, 16, r"model\.tie_embeddings = False, but .* has True"),
        ({}, 51, 16, r" has 50 token embeddings, but the tokenizer has 51 entries"),
        ({}, 50, 17, r"data\.seq_len = 17 is more than the 16 learned positions"),
        ({"family": "llama"}, 50, 16, r"model\.family = llama, but .* is a gpt2 model"),
        ({"family": "bert", "role": "encoder"}, 50, 16, r"model\.family = bert, but .* is a gpt2 model"),
    ],
)
def test_weights_of_another_shape_are_refused(
    saved: Path, change: dict[str, Any], vocab_size: int, seq_len: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build_model(replace(GPT2, pretrained=str(saved), **change), vocab_size=vocab_size, seq_len=seq_len)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mixer": NoMixer()}, r"model\.mixer = .*none.*, but .* has .*resolvent_apply"),
        ({"role": "encoder"}, r"model\.role = encoder, but .* has decoder"),
        (
            {"channel_mixer": ExpertsChannelMixer()},
            r"model\.channel_mixer = .*mixture_of_experts.*, but .* has .*swiglu",
        ),
    ],
)
def test_weights_of_another_mixer_or_role_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    model = ModelConfig(family="bk", role="decoder", n_layers=1, d_model=16, d_ff=16, mixer=ResolventApplyMixer())
    build_model(model, vocab_size=50, seq_len=16).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=message):
        build_model(replace(model, pretrained=str(tmp_path), **change), vocab_size=50, seq_len=16)


def test_pretrained_shapes_come_without_weights_on_meta(saved: Path) -> None:
    built = build_model(replace(GPT2, pretrained=str(saved)), vocab_size=50, seq_len=16, device="meta")
    assert {parameter.device.type for parameter in built.parameters()} == {"meta"}


def test_a_path_without_a_model_is_a_mistake_in_what_was_asked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.pretrained = .* cannot be read as a transformers model"):
        build_model(replace(GPT2, pretrained=str(tmp_path)), vocab_size=50, seq_len=16)


@pytest.mark.parametrize("source", ["/no/such/model", "./model", "runs/a/model"])
def test_a_folder_that_is_not_there_is_no_name_of_the_hub(source: str) -> None:
    with pytest.raises(ConfigError, match=rf"model\.pretrained = {source}: there is no such folder"):
        build_model(replace(GPT2, pretrained=source), vocab_size=50, seq_len=16)


def test_pickled_weights_are_not_read(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((saved / "config.json").read_text())
    torch.save(build_model(GPT2, vocab_size=50, seq_len=16).state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="no safetensors weights"):
        build_model(replace(GPT2, pretrained=str(tmp_path)), vocab_size=50, seq_len=16)


def test_weights_that_would_stay_random_are_refused(saved: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    (tmp_path / "config.json").write_text((saved / "config.json").read_text())
    weights = load_file(saved / "model.safetensors")
    del weights["transformer.h.1.mlp.c_fc.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"lacks .*h\.1\.mlp\.c_fc\.weight.* would be random"):
        build_model(replace(GPT2, pretrained=str(tmp_path)), vocab_size=50, seq_len=16)


def test_a_copy_of_a_checkpointed_model_trains_its_own_weights() -> None:
    import copy

    model = build_model(GPT2, vocab_size=50, seq_len=8)
    enable_activation_checkpointing(model)
    copied = copy.deepcopy(model)
    copied(input_ids=torch.zeros(1, 8, dtype=torch.int64)).logits.sum().backward()
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(p.grad is not None for block in stack_view(copied).blocks for p in block.parameters())


def test_enabling_checkpointing_twice_recomputes_once() -> None:
    from stackwise_ray.metrics.flops import count_flops

    model = build_model(GPT2, vocab_size=50, seq_len=8, device="meta")
    inputs = torch.zeros(1, 8, dtype=torch.int64, device="meta")
    enable_activation_checkpointing(model)
    once = count_flops(model, inputs)
    enable_activation_checkpointing(model)
    assert count_flops(model, inputs) == once
    assert once.recomputed > 0


def test_checkpointed_blocks_run_plainly_in_evaluation() -> None:
    from stackwise_ray.metrics.flops import count_flops

    model = build_model(GPT2, vocab_size=50, seq_len=8, device="meta").eval()
    enable_activation_checkpointing(model)
    assert count_flops(model, torch.zeros(1, 8, dtype=torch.int64, device="meta")).recomputed == 0


def test_the_gelu_of_gpt2_is_its_definition_in_one_kernel() -> None:
    mlp = build_model(GPT2, vocab_size=50, seq_len=8).transformer.h[0].mlp
    x = torch.linspace(-12, 12, 10_001)
    with Operations() as seen:
        result = mlp.act(x)
    assert seen.names == ["aten::gelu"]
    exact = x.double()
    defined = 0.5 * exact * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (exact + 0.044715 * exact**3)))
    # Rounding in float32 of values up to 12: half a unit in the last place is 4.8e-7.
    assert (result - defined).abs().max() <= 1e-6


def test_published_weights_of_gpt2_give_the_published_logits_with_gelu_in_one_kernel(tmp_path: Path) -> None:
    torch.manual_seed(0)
    published = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=16, n_embd=32, n_layer=2, n_head=4, n_inner=64))
    with torch.no_grad():
        for parameter in published.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))  # activations of order 1, where GELU bends
    published.save_pretrained(tmp_path / "published")
    assert published.config.activation_function == "gelu_new"
    ours = build_model(replace(GPT2, pretrained=str(tmp_path / "published")), vocab_size=50, seq_len=16).eval()
    ours.save_pretrained(tmp_path / "ours")
    again = GPT2LMHeadModel.from_pretrained(tmp_path / "ours").eval()
    tokens = torch.randint(0, 50, (2, 16))
    with torch.no_grad():
        wanted = published.eval()(input_ids=tokens).logits
        with Operations() as seen:
            logits = ours(input_ids=tokens).logits
        assert (seen.names.count("aten::gelu"), seen.names.count("aten::tanh")) == (2, 0)
        torch.testing.assert_close(logits, wanted, rtol=0, atol=1e-5)
        torch.testing.assert_close(again(input_ids=tokens).logits, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "gelu_fast"])
def test_another_activation_of_a_saved_model_stays(activation: str, tmp_path: Path) -> None:
    GPT2Config(activation_function=activation).save_pretrained(tmp_path)
    assert saved_config(tmp_path, path="model.pretrained").activation_function == activation


class Operations(TorchDispatchMode):
    """The operations that run inside the block, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func._schema.name)
        return func(*args, **(kwargs or {}))
