"""What every model family promises: causality, a stack view of all parameters, saving, and parameters by formula."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from stackwise_ray.config.trial import ModelConfig
from stackwise_ray.contracts import require
from stackwise_ray.contracts.small_trial import small_trial
from stackwise_ray.models import FAMILIES, build_model

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

VOCAB_SIZE, SEQ_LEN = 97, 24
ROLES: tuple[Literal["encoder", "decoder"], ...] = ("decoder", "encoder")


def it_says_who_it_is(name: str) -> None:
    """It is registered under its own name, which its models have as their transformers type."""
    family = FAMILIES.get(name)
    require(family.name == name, f"its name is {family.name!r}, and it is '{name}'")
    for model in models(name):
        found = build(model).config.model_type
        require(found == name, f"its models have the transformers type {found!r}, by which they are found again")


def no_token_changes_what_is_before_it(name: str) -> None:
    """A decoder's logit does not change by a bit with a later token, and every token is read."""
    import torch

    for model in (one for one in models(name) if one.role == "decoder"):
        built, inputs = build(model).double(), tokens(1, SEQ_LEN)
        with torch.no_grad():
            before = built(input_ids=inputs).logits
            for position in range(SEQ_LEN):
                changed = inputs.clone()
                changed[:, position] = (changed[:, position] + 13) % VOCAB_SIZE
                after = built(input_ids=changed).logits
                require(not torch.equal(after[:, position], before[:, position]), f"token {position} is not read")
                same = torch.equal(after[:, :position], before[:, :position])
                require(same, f"token {position} changes a logit before it")


def its_view_holds_every_parameter(name: str) -> None:
    """The stack view holds every parameter in one part, and its head gives the logits of the model."""
    import torch

    from stackwise_ray.models.stack_view import stack_view

    for model in models(name):
        built, inputs = build(model).train(False), tokens(2, SEQ_LEN)
        view = stack_view(built)
        require(len(view.blocks) == model.n_layers, f"it has {len(view.blocks)} blocks of {model.n_layers} layers")
        held = {id(parameter) for _, part in view.parts() for parameter in part.parameters()}
        missing = [n for n, parameter in built.named_parameters() if id(parameter) not in held]
        require(not missing, f"the view lacks {', '.join(missing)}")
        shared = [id(p) for block in view.blocks for p in block.parameters()]
        require(len(shared) == len(set(shared)), "two blocks share a parameter")
        with torch.no_grad():
            hidden = built.base_model(input_ids=inputs).last_hidden_state
            same = torch.equal(view.logits(hidden), built(input_ids=inputs).logits)
        require(same, "the head of the view gives other logits than the model")


def it_saves_and_loads(name: str) -> None:
    """A saved model is read by transformers with the same logits."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    for model in models(name):
        built, inputs = build(model).train(False), tokens(2, SEQ_LEN)
        auto = AutoModelForCausalLM if model.role == "decoder" else AutoModelForMaskedLM
        with tempfile.TemporaryDirectory() as folder:
            built.save_pretrained(folder)
            again = auto.from_pretrained(folder).eval()
        with torch.no_grad():
            same = torch.equal(again(input_ids=inputs).logits, built(input_ids=inputs).logits)
        require(same, "read back, it gives other logits")


def its_parameters_are_counted(name: str) -> None:
    """Parameters are counted without weights, and outside embeddings depend on neither vocabulary nor context."""
    from stackwise_ray.models.counting import count_parameters

    for model in models(name):
        require(count_parameters(build(model, "meta")) == count_parameters(build(model)), "meta counts others than cpu")
        small = count_parameters(build_model(model, vocab_size=50, seq_len=8, device="meta"))
        large = count_parameters(build_model(model, vocab_size=5000, seq_len=64, device="meta"))
        require(small.non_embedding == large.non_embedding, "non-embedding parameters depend on vocabulary or context")


def the_seed_decides_its_weights(name: str) -> None:
    """The seed alone decides the weights, which are float32, and no dropout is on."""
    import torch

    for model in models(name):
        first, second = build(model).state_dict(), build(model).state_dict()
        require(all(torch.equal(first[key], second[key]) for key in first), "one seed gives two models")
        kinds = {str(parameter.dtype) for parameter in build(model).parameters()}
        require(kinds == {"torch.float32"}, f"its weights are {', '.join(sorted(kinds))}")
        inputs, built = tokens(2, SEQ_LEN), build(model)
        with torch.no_grad():
            same = torch.equal(built(input_ids=inputs).logits, built(input_ids=inputs).logits)
        require(same, "in training mode two passes differ: dropout is on")


def its_flops_are_counted(name: str) -> None:
    """Every operation of a step has a FLOP rule, and it counts the same with and without weights."""
    import torch

    from stackwise_ray.metrics.flops import count_flops

    for model in models(name):
        counts = []
        for device in ("cpu", "meta"):
            inputs = torch.zeros(2, SEQ_LEN, dtype=torch.int64, device=device)
            counted = count_flops(build(model, device), inputs)
            counts.append((counted.forward, counted.backward, counted.optimizer))
        require(counts[0] == counts[1], f"cpu counts {counts[0]} and meta {counts[1]} (forward, backward, optimizer)")


def models(name: str) -> list[ModelConfig]:
    """A small model of the family in each of its roles."""
    family, small = FAMILIES.get(name), small_trial().model
    found = []
    for role in (role for role in ROLES if role in family.roles):
        model = replace(small, family=name, role=role)
        if family.takes_mixer:
            from stackwise_ray.config.trial import ResolventApplyMixer

            model = replace(model, n_heads=None, mixer=ResolventApplyMixer(n_heads=2))
        found.append(model)
    return found


def build(model: ModelConfig, device: str = "cpu") -> PreTrainedModel:
    import torch

    torch.manual_seed(0)
    return build_model(model, vocab_size=VOCAB_SIZE, seq_len=SEQ_LEN, device=device)


def tokens(*shape: int) -> torch.Tensor:
    import torch

    return torch.randint(0, VOCAB_SIZE, shape, generator=torch.Generator().manual_seed(1))


CHECKS = (
    it_says_who_it_is,
    no_token_changes_what_is_before_it,
    its_view_holds_every_parameter,
    it_saves_and_loads,
    its_parameters_are_counted,
    the_seed_decides_its_weights,
    its_flops_are_counted,
)
