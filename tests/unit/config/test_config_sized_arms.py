"""The designs `isoflop` and `ladder`: every size at every budget, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stackwise_ray.config.loading import load_sweep, sweep_from_plain
from stackwise_ray.config.space.designs import Arm, expand
from stackwise_ray.config.space.sweep_config import SweepConfig, sweep_to_plain
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.models.sizes import count_on_meta

BASE = {"model": "decoder/gpt2_family/tiny", "data": "markov"}
SIZES = {
    f"d{width}": {"model.d_model": width, "model.n_heads": 2, "model.d_ff": 4 * width, "model.n_layers": 2}
    for width in (8, 16, 24, 32)
}
ISOFLOP = {"kind": "isoflop", "flops": [1e9, 3e9], "sizes": SIZES}
SEARCH = {"kind": "search", "search": {"space": {"training.lr": [1e-3]}, "trials": 1}}
LADDER = {"kind": "ladder", "tokens_per_parameter": [10, 0.5], "sizes": SIZES}


def sweep(design: dict[str, Any], **keys: Any) -> SweepConfig:
    return sweep_from_plain({"name": "sizes", "base": BASE, "design": design, **keys}, source="sizes.yaml")


def arms(design: dict[str, Any]) -> tuple[Arm, ...]:
    return expand(sweep(design)).arms


def refusal(design: dict[str, Any], **keys: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        sweep(design, **keys)
    return str(caught.value)


def test_isoflop_is_every_size_at_every_budget_of_flops() -> None:
    made = arms(ISOFLOP)
    assert [arm.name for arm in made[:3]] == ["d8,flops=1e+09", "d8,flops=3e+09", "d16,flops=1e+09"]
    assert [(arm.trial.model.d_model, arm.trial.training.budget.flops) for arm in made] == [
        (width, flops) for width in (8, 16, 24, 32) for flops in (1e9, 3e9)
    ]
    assert made[1].parameters["training.budget.flops"] == 3e9
    assert made[1].parameters["model.d_model"] == 8


def test_a_ladder_gives_each_size_tokens_in_proportion_to_its_counted_parameters() -> None:
    made = arms(LADDER)
    assert made[0].name == "d8,ratio=10"
    for arm, ratio in zip(made, [10, 0.5] * 4, strict=True):
        params = count_on_meta(arm.trial.model, vocab_size=500, seq_len=64).non_embedding
        assert arm.trial.training.budget.tokens == round(ratio * params)


def test_a_list_of_presets_is_short_for_sizes_and_is_read_back_from_what_is_stored() -> None:
    presets = ["decoder/gpt2_family/tiny", "decoder/llama_family/tiny", "decoder/gpt2_family/small"]
    made = sweep({"kind": "isoflop", "flops": [1e15], "sizes": presets})
    assert [arm.name.partition(",")[0] for arm in expand(made).arms] == [
        "gpt2_family-tiny",
        "llama_family-tiny",
        "small",
    ]
    again = sweep_from_plain(sweep_to_plain(made))
    assert [arm.trial for arm in expand(again).arms] == [arm.trial for arm in expand(made).arms]


def test_a_size_is_changed_by_a_word_of_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "sizes.yaml"
    file.write_text(
        "name: sizes\nbase: {model: decoder/gpt2_family/tiny, data: markov}\n"
        "design: {kind: isoflop, flops: [1.0e+9], sizes: {a: {model.n_layers: 2}, b: }}\n"
    )
    changed = load_sweep(file, ["design.sizes.b.model.n_layers=3", "design.flops=[2e9]"])
    assert [(arm.name, arm.trial.model.n_layers) for arm in expand(changed).arms] == [
        ("a,flops=2e+09", 2),
        ("b,flops=2e+09", 3),
    ]
    with pytest.raises(ConfigError, match="there is no size 'c'"):
        load_sweep(file, ["design.sizes.c.model.n_layers=3"])


def test_a_constraint_leaves_sizes_out_with_its_reason() -> None:
    design = expand(sweep({**ISOFLOP, "require": ["model.d_model > 8"]}))
    assert [arm.trial.model.d_model for arm in design.arms] == [16, 16, 24, 24, 32, 32]
    assert {arm.reason for arm in design.refused} == {"breaks 'model.d_model > 8'"}


@pytest.mark.parametrize(
    ("design", "words"),
    [
        ({**ISOFLOP, "flops": []}, "design.flops: is empty"),
        ({**ISOFLOP, "flops": [1e9, 1e9]}, "design.flops: contains 1e+09 twice"),
        ({**ISOFLOP, "flops": [0]}, "design.flops.0"),
        ({**ISOFLOP, "sizes": {}}, "design.sizes: is empty"),
        ({**ISOFLOP, "sizes": "auto"}, "design.sizes = auto is not available"),
        ({**ISOFLOP, "sizes": {"a": {}, "b": {}}}, "design.sizes.b: is the same trial as arm 'a,flops=1e+09'"),
        ({**ISOFLOP, "sizes": {"a": {"training.max_steps": 3}}}, "training.max_steps: is set by design.kind"),
        ({**LADDER, "sizes": {"a": {"training": {"budget": {"steps": 3}}}}}, "is set by design.kind: ladder"),
        ({**LADDER, "sizes": {"a": {"model.n_heads": 7}}}, "design.sizes.a.model.n_heads"),
        ({**LADDER, "sizes": {"a b": {}}}, "design.sizes: 'a b' cannot name an arm"),
        ({**LADDER, "flops": [1e9]}, "kind ladder has no such key"),
    ],
)
def test_a_design_of_sizes_that_contradicts_itself_is_refused(design: dict[str, Any], words: str) -> None:
    assert words in refusal(design)


def test_a_budget_in_the_base_has_no_effect_beside_sizes_and_is_refused() -> None:
    base = {**BASE, "overrides": {"training.budget": {"tokens": 1e6}}}
    assert "base.overrides.training.budget: is set by design.kind: isoflop" in refusal(ISOFLOP, base=base)


@pytest.mark.parametrize(
    ("design", "step", "words"),
    [
        (LADDER, {"isoflop": {}}, "needs budgets of FLOPs, and d8,ratio=10 has another"),
        ({**ISOFLOP, "sizes": dict(list(SIZES.items())[:3])}, {"isoflop": {}}, "needs at least 4 sizes at a budget"),
        (ISOFLOP, {"isoflop": {}, "scaling_law": {}}, "exactly one of compare, isoflop, scaling_law"),
        (SEARCH, {"isoflop": {}}, "a search has none"),
    ],
)
def test_an_analysis_that_its_design_cannot_answer_is_refused(design: dict[str, Any], step: Any, words: str) -> None:
    assert words in refusal(design, analysis=[step])
    both = sweep(ISOFLOP, analysis=[{"isoflop": {}}, {"scaling_law": {"law": "power"}}])
    assert [declared.kind for declared in both.steps] == ["isoflop", "scaling_law"]
