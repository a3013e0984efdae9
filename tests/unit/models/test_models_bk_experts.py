"""The mixture of experts: its definition, the router's gradient, the load balance, and what is refused."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM, PreTrainedModel

from stackwise_ray.config.loading import load_trial
from stackwise_ray.config.trial import ExpertsChannelMixer, ModelConfig, ResolventApplyMixer
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.metrics.flops import count_flops
from stackwise_ray.models import build_model, check_model
from stackwise_ray.models.bk.bk_model import BKConfig
from stackwise_ray.models.bk.channel_mixers import MixtureOfExperts, SwiGLU, load_balance
from stackwise_ray.models.mixer_rules import channel_mixer_settings
from stackwise_ray.models.stack_view import enable_activation_checkpointing
from tests.small_bk import VOCABULARY, sharpened

D_MODEL, D_FF = 16, 24
MODEL = ModelConfig(
    family="bk",
    role="decoder",
    n_layers=2,
    d_model=D_MODEL,
    d_ff=D_FF,
    mixer=ResolventApplyMixer(n_heads=2),
    channel_mixer=ExpertsChannelMixer(),
)
every_top_k = pytest.mark.parametrize("top_k", [1, 2, 4])


def build(top_k: int = 1, role: Any = "decoder", **settings: Any) -> PreTrainedModel:
    """A float64 model in training mode whose router has opinions."""
    torch.manual_seed(0)
    experts = ExpertsChannelMixer(top_k=top_k, **settings)
    config = dataclasses.replace(MODEL, role=role, channel_mixer=experts)
    return sharpened(build_model(config, vocab_size=VOCABULARY, seq_len=64).double())


def experts(top_k: int, n_experts: int = 4) -> MixtureOfExperts:
    torch.manual_seed(1)
    return MixtureOfExperts(ExpertsChannelMixer(n_experts=n_experts, top_k=top_k), D_MODEL, D_FF).double()


def tokens(batch: int = 3, n: int = 21) -> Tensor:
    return torch.randint(VOCABULARY, (batch, n), generator=torch.Generator().manual_seed(3))


@every_top_k
def test_a_token_gets_the_sum_of_its_chosen_experts_weighted_by_their_probability(top_k: int) -> None:
    """Against single SwiGLUs, token by token."""
    module, x = experts(top_k), torch.randn(2, 5, D_MODEL, dtype=torch.float64)
    singles = []
    for number in range(4):
        single = SwiGLU(D_MODEL, D_FF).double()
        mine = slice(number * D_FF, (number + 1) * D_FF)
        with torch.no_grad():
            single.gate.weight.copy_(module.experts.gate.weight[mine])
            single.up.weight.copy_(module.experts.up.weight[mine])
            single.down.weight.copy_(module.experts.down.weight[:, mine])
        singles.append(single)
    mixed, _ = module(x)
    for sequence in range(2):
        for position in range(5):
            token = x[sequence, position]
            p = module.router(token).softmax(-1)
            chosen = p.sort(descending=True).indices[:top_k]
            want = torch.stack([p[e] * singles[int(e)](token) for e in chosen]).sum(0)
            torch.testing.assert_close(mixed[sequence, position], want, rtol=1e-12, atol=1e-14)


@every_top_k
def test_the_router_gets_the_gradient_of_finite_differences(top_k: int) -> None:
    """Of the loss that is trained on, load balance included; choices are constant within the step."""
    model, ids = build(top_k), tokens()
    router = model.model.layers[0].ffn.router.weight

    def loss() -> Tensor:  # in float64, which the loss of transformers is not
        output = model(input_ids=ids)
        return functional.cross_entropy(output.logits.flatten(0, 1), ids.flatten()) + 0.3 * output.aux_loss

    (gradient,) = torch.autograd.grad(loss(), [router])
    step, differences = 1e-6, torch.empty_like(router)
    with torch.no_grad():
        for row, column in itertools.product(*map(range, router.shape)):
            values = []
            for sign in (1, -1):
                router[row, column] += sign * step
                values.append(float(loss()))
                router[row, column] -= sign * step
            differences[row, column] = (values[0] - values[1]) / (2 * step)
    assert float(gradient.abs().max()) > 1e-3
    torch.testing.assert_close(gradient, differences, rtol=1e-6, atol=1e-8)


@every_top_k
def test_the_next_token_loss_alone_teaches_every_router(top_k: int) -> None:
    """The trap: with weights normalised over the chosen, top_k = 1 would give the router exactly nothing."""
    model, ids = build(top_k, load_balance=0.0), tokens()
    torch.autograd.backward(model(input_ids=ids, labels=ids).loss)
    for block in model.model.layers:
        assert float(block.ffn.router.weight.grad.abs().max()) > 1e-4


@pytest.mark.parametrize("role", ["decoder", "encoder"])
def test_every_expert_and_router_is_trained(role: str) -> None:
    model, ids = build(2, role), tokens(batch=8)
    torch.autograd.backward(model(input_ids=ids, labels=ids).loss)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
    for block in model.model.layers:
        used = block.ffn.experts.up.weight.grad.view(4, D_FF, D_MODEL).abs().amax((1, 2))
        assert bool((used > 0).all())


# ------------------------------------------------------------------------------------------------ the load balance


def test_load_balance_by_hand() -> None:
    p = torch.tensor([[[0.7, 0.3], [0.6, 0.4], [0.2, 0.8], [0.9, 0.1]]])
    chosen = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]])
    # f = (3/4, 1/4), P = (0.6, 0.4): 2 · (0.45 + 0.1)
    assert float(load_balance(p, chosen)) == pytest.approx(1.1)
    both = torch.ones_like(chosen)  # top_k = 2 of 2: f = (1/2, 1/2) whatever the router says
    assert float(load_balance(p, both)) == pytest.approx(1.0)


def test_load_balance_is_one_where_even_and_rises_to_the_number_of_experts() -> None:
    even = torch.full((1, 8, 4), 0.25)
    chosen = torch.eye(4).repeat(2, 1).unsqueeze(0)
    assert float(load_balance(even, chosen)) == pytest.approx(1.0)
    one = torch.eye(4)[:1].expand(1, 8, 4)
    assert float(load_balance(one, one)) == pytest.approx(4.0)


def test_load_balance_of_a_batch_is_the_mean_over_its_sequences_and_skips_padding() -> None:
    torch.manual_seed(0)
    p = torch.randn(3, 10, 4, dtype=torch.float64).softmax(-1)
    chosen = torch.zeros_like(p).scatter(-1, p.topk(2).indices, 1.0)
    lengths = (10, 7, 4)
    mask = torch.stack([(torch.arange(10) < length).long() for length in lengths])
    alone = [load_balance(p[i : i + 1, :n], chosen[i : i + 1, :n]) for i, n in enumerate(lengths)]
    assert float(load_balance(p, chosen, mask)) == pytest.approx(float(torch.stack(alone).mean()))


def test_the_loss_holds_the_balance_in_training_only() -> None:
    model, ids = build(load_balance=0.5), tokens()
    output = model(input_ids=ids, labels=ids)
    entropy = functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert output.aux_loss.item() > 1.01
    assert output.loss.item() == pytest.approx((entropy + 0.5 * output.aux_loss).item(), rel=1e-6)
    output = model.eval()(input_ids=ids, labels=ids)
    assert output.aux_loss is None
    assert output.loss.item() == pytest.approx(entropy.item(), rel=1e-6)


def test_training_on_the_balance_alone_spreads_the_tokens() -> None:
    model, ids = build(), tokens(batch=8)
    routers = [block.ffn.router.weight for block in model.model.layers]
    with torch.no_grad():  # something that all tokens share, and routers that send it to the first expert
        model.model.embed_tokens.weight.add_(1.0)
        for router in routers:
            router[0] += 0.3
    optimizer = torch.optim.Adam(routers, lr=0.03)
    first = model(input_ids=ids).aux_loss.item()
    for _ in range(30):
        optimizer.zero_grad()
        model(input_ids=ids).aux_loss.backward()
        optimizer.step()
    last = model(input_ids=ids).aux_loss.item()
    assert first > 1.3
    assert last < 1 + 0.4 * (first - 1)


def test_activation_checkpointing_gives_the_same_gradients_bit_for_bit() -> None:
    plain, ids = build(load_balance=0.3), tokens()
    recomputing = copy.deepcopy(plain)
    enable_activation_checkpointing(recomputing)
    for model in (plain, recomputing):
        torch.autograd.backward(model(input_ids=ids, labels=ids).loss)
    for mine, theirs in zip(recomputing.parameters(), plain.parameters(), strict=True):
        assert mine.grad is not None
        assert torch.equal(mine.grad, theirs.grad)


# ------------------------------------------------------------------------------------------------ costs and settings


def test_flops_do_not_depend_on_the_routing_and_are_those_of_all_experts() -> None:
    ids, counts = tokens(), set()
    for top_k in (1, 2, 4):
        model = build(top_k).float()
        for seed in range(3):
            torch.manual_seed(seed)
            for block in model.model.layers:
                torch.nn.init.normal_(block.ffn.router.weight, std=3.0)
            counts.add(count_flops(model, ids))
    assert len(counts) == 1
    dense = dataclasses.replace(MODEL, channel_mixer=None, d_ff=4 * D_FF)
    without = count_flops(build_model(dense, vocab_size=VOCABULARY, seq_len=64), ids)
    assert counts.pop().forward - without.forward == 2 * 2 * ids.numel() * D_MODEL * 4  # the routers, in two layers


def test_a_token_of_another_sequence_changes_no_output() -> None:
    """No capacity that others could use up."""
    model, ids = build().eval(), tokens()
    changed = ids.clone()
    changed[1:] = (changed[1:] + 7) % VOCABULARY
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits[0], model(input_ids=changed).logits[0])


def test_a_saved_model_keeps_its_experts_and_settings(tmp_path: Path) -> None:
    model, ids = build(2, load_balance=0.07).eval(), tokens()
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64).eval()
    assert again.config.channel_mixer == model.config.channel_mixer
    assert again.config.router_aux_loss_coef == 0.07
    with torch.no_grad():
        torch.testing.assert_close(again(input_ids=ids).logits, model(input_ids=ids).logits, rtol=0, atol=1e-12)


def test_a_model_saved_before_there_were_experts_has_a_swiglu() -> None:
    config = BKConfig.from_dict({"model_type": "bk", "hidden_size": 16})
    assert config.channel_mixer == {"kind": "swiglu"}
    assert config.router_aux_loss_coef == 0.0


def test_more_chosen_than_there_are_experts_are_refused() -> None:
    model = dataclasses.replace(MODEL, channel_mixer=ExpertsChannelMixer(n_experts=2, top_k=3))
    with pytest.raises(ConfigError, match=r"top_k = 3 is not between 1 and n_experts = 2; choose 1 to 2"):
        check_model(model, seq_len=8)
    with pytest.raises(ConfigError, match=r"model\.channel_mixer\.top_k = 3 is not between 1 and n_experts = 2"):
        load_trial(
            ["model=decoder/bk_family/tiny", "model.channel_mixer={kind: mixture_of_experts, n_experts: 2, top_k: 3}"]
        )


def test_experts_are_written_by_kind_and_their_keys_are_checked() -> None:
    words = ["model=decoder/bk_family/tiny"]
    trial = load_trial([*words, "model.channel_mixer={kind: mixture_of_experts, top_k: 2}"])
    assert trial.model.channel_mixer == ExpertsChannelMixer(top_k=2)
    with pytest.raises(ConfigError, match=r"did you mean 'model\.channel_mixer\.n_experts'"):
        load_trial([*words, "model.channel_mixer={kind: mixture_of_experts, experts: 2}"])
    with pytest.raises(ConfigError, match=r"= 1 is out of range; it must be at least 2"):
        load_trial([*words, "model.channel_mixer={kind: mixture_of_experts, n_experts: 1}"])
    with pytest.raises(ConfigError, match="family gpt2 has no such option; leave it out, or choose the family bk"):
        load_trial(["model=decoder/gpt2_family/tiny", "model.channel_mixer={kind: swiglu}"])


def test_unknown_settings_of_a_saved_model_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"model\.channel_mixer\.kind = moe is unknown"):
        channel_mixer_settings({"kind": "moe"})
    with pytest.raises(
        ConfigError, match=r"model\.channel_mixer\.topk: mixture_of_experts has no such key; did you mean"
    ):
        channel_mixer_settings({"kind": "mixture_of_experts", "topk": 1})
