"""Which weights are scored: whole models alone, with what growing gave them, and without a word from transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stackwise_ray.core.errors import ConfigError
from stackwise_ray.models import build_model
from stackwise_ray.models.growth.insertion import GATE, make_growable, untie_head
from stackwise_ray.training.scoring import load_model
from tests.small_models import MODELS

IDS = torch.arange(12).view(1, 12)


def test_a_trunk_without_its_head_is_refused_and_not_scored_with_a_random_one(tmp_path: Path) -> None:
    build_model(MODELS["bert"], vocab_size=20, seq_len=16).bert.save_pretrained(tmp_path)
    with pytest.raises(
        ConfigError, match=r"is not a complete masked language model: it lacks cls\.predictions\..* random"
    ):
        load_model(str(tmp_path), "encoder")


@pytest.mark.parametrize("name", ["bert", "gpt2", "modernbert", "llama"])
@pytest.mark.parametrize("untied", [True, False])
def test_a_grown_model_comes_back_whole_and_quietly(
    name: str, untied: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = build_model(MODELS[name], vocab_size=20, seq_len=16)
    make_growable(model)
    if untied:
        untie_head(model)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith(GATE):
                parameter.fill_(0.3)
            elif parameter_name.endswith("bias"):
                parameter.normal_()
    model.eval().save_pretrained(tmp_path)
    capfd.readouterr()
    loaded = load_model(str(tmp_path), MODELS[name].role).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=IDS).logits, model(input_ids=IDS).logits)
    assert capfd.readouterr() == ("", "")
