"""What adapters on a trunk owe on every family: every one of them learns, nothing under them moves, what is kept is
a plain model that computes what was trained."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from stackwise_ray.config.trial import Budget, ModelConfig, TrialConfig
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.data import prepare
from stackwise_ray.models import FAMILIES, build_model
from stackwise_ray.models.growth.adapters import adapter_parameters, merge_adapters
from stackwise_ray.models.stack_view import ADAPTER, stack_view
from stackwise_ray.optim.groups import parameter_groups
from stackwise_ray.planning.counted_costs import stage_bytes
from stackwise_ray.training.assembly import Assembly, assemble
from stackwise_ray.training.growth_options import Lora
from stackwise_ray.training.parallel.collectives import Alone
from stackwise_ray.training.scoring import score_run
from stackwise_ray.training.stages import stage_plan
from stackwise_ray.training.step import TrainingStep
from tests.small_models import MODELS, QUICK, cells, mostly_exhaustive, mostly_slow
from tests.small_trials import GROWING, TRIAL, check_cost_model, run, with_training

CPU = torch.device("cpu")
every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
every_model_mostly_slowly = pytest.mark.parametrize("model", mostly_slow(MODELS, quick=("gpt2", "bert", "bk encoder")))
every_kind = pytest.mark.parametrize(
    "model", mostly_exhaustive(MODELS, ("gpt2", "bert", "llama", "bk with experts"), quick=("gpt2",))
)
"""For tests that train and plan, where peft's insertions take seconds: two kinds of matrices, two of blocks."""
every_regime = pytest.mark.parametrize("regime", GROWING)
pytestmark = pytest.mark.usefixtures("module_cache")


def adapted(model: ModelConfig, regime: str = "depth_time", *, n_layers: int = 2, **training: Any) -> TrialConfig:
    trial = replace(TRIAL, model=replace(model, n_layers=n_layers))
    settings = {"regime": regime, "trunk": "lora", "lora": Lora(rank=4, dual=1), "budget": Budget(steps=6)}
    return with_training(trial, **settings | training)


def assembled(trial: TrialConfig) -> Assembly:
    return assemble(trial, prepare(trial.data), CPU)


def train_a_stage(assembly: Assembly, number: int, lr: float = 1e-2) -> dict[str, torch.Tensor]:
    """Takes three steps (the first moves B alone, since it is 0); returns what every parameter was before them."""
    tools = assembly.enter(assembly.plan.stages[number])
    before = {name: p.detach().clone() for name, p in assembly.model.named_parameters()}
    step = TrainingStep(assembly, tools, Alone())
    for index in range(3):
        step.take(step=index, first_sequence=8 * index, n_sequences=8, lr=lr)
    return before


@every_model
def test_a_family_states_the_shapes_of_its_projections(model: ModelConfig) -> None:
    built = build_model(model, vocab_size=50, seq_len=16, device="meta")
    stated = FAMILIES.get(model.family).projections(model)
    view = stack_view(built)
    for block in view.blocks:
        matrices = view.projections(block)
        shapes = [m.weight.shape if isinstance(m, Conv1D) else m.weight.T.shape for m in matrices]
        assert tuple(map(tuple, shapes)) == stated.adapted
        others = {m for m in block.modules() if isinstance(m, nn.Linear | Conv1D)} - set(matrices)
        assert [tuple(m.weight.T.shape) for m in others] == list(stated.unadapted)


@every_regime
@every_model_mostly_slowly
def test_an_adapter_changes_no_logit_when_it_enters_learns_then_and_nothing_under_it_moves_a_bit(
    model: ModelConfig, regime: str
) -> None:
    assembly = assembled(adapted(model, regime, finish=0.2))
    view = stack_view(assembly.model)
    tokens = torch.randint(4, (2, 16), generator=torch.Generator().manual_seed(0))

    def logits() -> torch.Tensor:
        assembly.model.eval()
        with torch.no_grad():
            return assembly.model(input_ids=tokens).logits

    trained_before = None
    for number, stage in enumerate(assembly.plan.stages):
        assembly.enter(stage)
        if trained_before is not None:
            assert torch.equal(logits(), trained_before)
        before = train_a_stage(assembly, number)
        trained_before = logits()
        after = dict(assembly.model.named_parameters())
        changed = {name for name, p in after.items() if not torch.equal(p, before[name])}
        adapters = {name for name in after if f".{ADAPTER}" in name}
        assert adapters <= changed
        assert bool(adapters) is (number > 0)
        trained = {id(p) for block in stage.trainable.blocks for p in view.blocks[block].parameters()}
        trunk = {id(p) for block in view.blocks for p in block.parameters()} - trained
        own = {name for name, p in after.items() if id(p) in trunk and name not in adapters}
        assert own
        assert not own & changed
        if stage.name == "finish":
            assert changed == adapters


POLICIES: dict[str, dict[str, Any]] = {
    "right to left": {"lora": Lora(rank=4, pattern="rising", dual=1), "finish": 0.2},
    "right to left, tied": {"embeddings": "tied_frozen", "finish": 0.2},
    "left to right": {"regime": "append", "lora": Lora(rank=4, pattern="falling", dual=1), "finish": 0.2},
    "left to right, all embeddings": {"regime": "append", "embeddings": "untied_all"},
}
EVERYWHERE = ("right to left", "left to right")
"""On every family; the others on one encoder and one decoder."""


@pytest.mark.parametrize(
    ("name", "policy"),
    cells(MODELS, EVERYWHERE, quick=["gpt2"])
    + cells(QUICK, [policy for policy in POLICIES if policy not in EVERYWHERE], quick=["gpt2"]),
)
def test_the_cost_model_is_what_is_counted_within_three_per_cent(name: str, policy: str) -> None:
    check_cost_model(adapted(MODELS[name], n_layers=3, **POLICIES[policy]))


@every_kind
def test_the_model_that_is_kept_is_a_plain_one_that_computes_what_was_trained(
    model: ModelConfig, tmp_path: Path
) -> None:
    _, result = run(adapted(model, lr=1e-2, finish=0.2), tmp_path, keep_model=True)
    scored = score_run(tmp_path).metrics
    assert scored["validation/loss"] == pytest.approx(result.metrics["validation/loss"], rel=1e-6)
    kept = load_file(tmp_path / "model" / "model.safetensors")
    assert not any(ADAPTER in name or "base_layer" in name for name in kept)
    assert sum(tensor.numel() for tensor in kept.values()) == result.metrics["model/params"]
    rows = json.loads((tmp_path / "outputs" / "metrics.json").read_text())["stages"]
    products = sum(map(sum, FAMILIES.get(model.family).projections(model).adapted))
    assert rows[-1]["trainable_params"] == products * (2 * 4 + (1 + 2) * 1)  # the finish is the second growth


def test_merging_adds_the_products_of_all_adapters_to_the_weights() -> None:
    for name in ("gpt2", "llama"):
        assembly = assembled(adapted(MODELS[name], n_layers=3))
        for number in range(3):
            train_a_stage(assembly, number, lr=0.1)
        tokens = torch.randint(4, (2, 16), generator=torch.Generator().manual_seed(0))
        assembly.model.eval()
        names = dict(assembled(adapted(MODELS[name], n_layers=3)).model.named_parameters()).keys() - {"lm_head.weight"}
        with torch.no_grad():
            before = assembly.model(input_ids=tokens).logits
            merge_adapters(assembly.model)
            after = assembly.model(input_ids=tokens).logits
        torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)
        assert dict(assembly.model.named_parameters()).keys() - {"lm_head.weight"} == names


@pytest.mark.parametrize(
    ("pattern", "ranks"), [("constant", [6, 6, 6, 6]), ("rising", [3, 5, 7, 9]), ("falling", [9, 7, 5, 3])]
)
def test_ranks_follow_the_depth_of_the_trunk_and_the_second_set_is_smaller_and_over_all_of_it(
    pattern: Any, ranks: list[int]
) -> None:
    assembly = assembled(adapted(MODELS["bert"], n_layers=5, lora=Lora(rank=6, pattern=pattern, dual=2)))
    for number, stage in enumerate(assembly.plan.stages):
        assembly.enter(stage)
        if number == 0:
            continue
        sets = {s.name: dict(s.ranks) for s in stage.trainable.adapters}
        newest = sets[f"trunk_{number}"]
        assert newest == dict.fromkeys(stage.active_blocks[1:], 2)
    blocks = stack_view(assembly.model).blocks
    found = []
    for number in range(1, 5):
        layer: Any = blocks[number].attention.self.query
        sizes = {name: len(down.weight) for name, down in layer.lora_A.items()}
        found.append(sizes.pop(f"stack_{5 - number}"))
        assert sizes == {f"trunk_{growth}": 2 for growth in range(5 - number, 5)}
        assert set(layer.active_adapters) == set(layer.lora_A)
    assert found == ranks
    assert not hasattr(blocks[0].attention.self.query, "lora_A")


def test_initial_adapters_come_from_the_seed_and_not_from_the_order_or_from_torchs_generator() -> None:
    walked, jumped, other = (assembled(replace(adapted(MODELS["bert"], n_layers=3), seed=seed)) for seed in (0, 0, 1))
    last = walked.plan.stages[-1]
    for stage in walked.plan.stages:
        torch.rand(7)
        walked.enter(stage)
    state = torch.get_rng_state()
    for assembly in (jumped, other):
        assembly.enter(last)
    assert torch.equal(torch.get_rng_state(), state)
    tensors = [{n: p for n, p in a.model.named_parameters() if ADAPTER in n} for a in (walked, jumped, other)]
    assert list(tensors[0]) == list(tensors[1]) == list(tensors[2])  # so that an optimizer's state finds its place
    assert all(torch.equal(p, tensors[1][name]) for name, p in tensors[0].items())
    assert not any(torch.equal(p, tensors[2][name]) for name, p in tensors[0].items() if "lora_A" in name)
    drawn = [p for name, p in tensors[0].items() if "lora_A" in name and "stack" in name and p.shape[1] == 16]
    assert len({p[0, 0].item() for p in drawn}) == len(drawn)


def test_adapters_are_matrices_to_the_optimizer() -> None:
    assembly = assembled(adapted(MODELS["gpt2"]))
    assembly.enter(assembly.plan.stages[-1])
    decayed, plain = parameter_groups(assembly.model, 0.1)
    assert {id(p) for p in adapter_parameters(assembly.model)} <= {id(p) for p in decayed["params"]}
    assert plain["weight_decay"] == 0


def test_recomputed_activations_are_saved_under_adapters_as_well_and_give_the_same_gradients() -> None:
    for name in ("bert", "gpt2"):
        saved, gradients = [], []
        for checkpointing in (False, True):
            trial = adapted(MODELS[name], activation_checkpointing=checkpointing)
            saved.append(stage_bytes(trial, stage_plan(trial).stages[-1], vocab_size=50).saved_activations)
            assembly = assembled(trial)
            train_a_stage(assembly, 1)
            gradients.append([p.detach().clone() for p in adapter_parameters(assembly.model)])
        assert saved[1] < 0.5 * saved[0]
        assert all(torch.equal(p, q) for p, q in zip(*gradients, strict=True))


def test_a_finish_is_reported_with_and_without(tmp_path: Path) -> None:
    """What it began with is what the same trial without it ends with (right to left the masks in between differ)."""
    longer = adapted(MODELS["bert"], trunk="frozen", lora=Lora(), finish=0.4, lr=1e-2, budget=Budget(steps=10))
    metrics = run(longer, tmp_path / "with")[1].metrics
    shorter = with_training(longer, finish=0.0, budget=Budget(steps=6))
    before = run(shorter, tmp_path / "without")[1].metrics
    names = [name for name in metrics if name.startswith("validation/masked_loss") and "without" not in name]
    assert len(names) == 6
    for name in names:
        assert metrics[f"{name}_without_finish"] == before[name] != metrics[name]
    assert metrics["validation/loss_without_finish"] != metrics["validation/loss"]
    report = (tmp_path / "with" / "outputs" / "evaluation_report.md").read_text()
    measured = [name for name in metrics if name.endswith("_without_finish")]
    assert report.count(", before the finish") == len(measured) == 7


def test_a_finish_with_adapters_is_reported_with_and_without_for_a_decoder_too(tmp_path: Path) -> None:
    metrics = run(adapted(MODELS["gpt2"], finish=0.4, lr=1e-2), tmp_path)[1].metrics
    assert metrics["validation/loss_without_finish"] != metrics["validation/loss"]


def test_four_bits_without_bitsandbytes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # as where it is not installed
    assembly = assembled(adapted(MODELS["bert"], trunk="qlora"))
    with pytest.raises(ConfigError, match=r"training\.trunk = qlora needs bitsandbytes.* choose lora"):
        assembly.enter(assembly.plan.stages[1])
