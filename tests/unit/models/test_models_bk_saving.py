"""The bk family in transformers: saved and loaded, by every Auto class, as a classifier, refused in a wrong role."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from stackwise_ray.core.errors import ConfigError
from stackwise_ray.models.bk.bk_model import BKConfig, BKForSequenceClassification, BKModel
from stackwise_ray.models.mixer_rules import mixer_settings
from stackwise_ray.models.stack_view import stack_view
from tests.small_bk import MIXERS, build, sharpened, tokens


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("role", ["decoder", "encoder"])
@pytest.mark.parametrize("name", MIXERS)
def test_saved_models_come_back_equal(name: str, role: str, tied: bool, tmp_path: Path) -> None:
    model, ids = build(MIXERS[name], role, tie_embeddings=tied), tokens()
    head, embedding = stack_view(model).head[0].weight, stack_view(model).embeddings[0].weight
    assert (head is embedding) == tied
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    auto = AutoModelForCausalLM if role == "decoder" else AutoModelForMaskedLM
    again = auto.from_pretrained(tmp_path, dtype=torch.float64).eval()
    assert again.config.mixer == model.config.mixer
    want = model.state_dict()
    assert again.state_dict().keys() == want.keys()
    assert all(torch.equal(tensor, want[key]) for key, tensor in again.state_dict().items())
    with torch.no_grad():
        # Not to the bit: the loaded weights lie at other alignments, and matrix products may then sum in another order.
        torch.testing.assert_close(again(input_ids=ids).logits, model(input_ids=ids).logits, rtol=0, atol=1e-13)


def test_trained_weights_are_not_initialised_again_on_loading(tmp_path: Path) -> None:
    model = build(MIXERS["resolvent_apply"])
    with torch.no_grad():
        model.model.layers[1].mixer.matrix.hop.fill_(0.123)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert float(again.model.layers[1].mixer.matrix.hop[0].detach()) == pytest.approx(0.123)


def classifier(causal: bool) -> PreTrainedModel:
    torch.manual_seed(0)
    config = BKConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_labels=3, pad_token_id=0, causal=causal
    )
    return sharpened(AutoModelForSequenceClassification.from_config(config).double())


@pytest.mark.parametrize("causal", [True, False])
def test_sequence_classification_learns_what_it_is_shown(causal: bool) -> None:
    model, ids, labels = classifier(causal), tokens(batch=6) + 1, torch.tensor([0, 1, 2, 0, 1, 2])
    assert isinstance(model, BKForSequenceClassification)
    assert model(input_ids=ids).logits.shape == (6, 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    first = model(input_ids=ids, labels=labels).loss.item()
    for _ in range(30):
        optimizer.zero_grad()
        torch.autograd.backward(model(input_ids=ids, labels=labels).loss)
        optimizer.step()
    assert first > 0.5
    assert model(input_ids=ids, labels=labels).loss.item() < 0.05
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("causal", [True, False])
def test_padding_changes_no_class_and_a_classifier_comes_back_from_its_files(causal: bool, tmp_path: Path) -> None:
    model, ids = classifier(causal).eval(), tokens(n=12) + 1
    with torch.no_grad():
        want = model(input_ids=ids).logits
        for pad in ((0, 5), (5, 0)):
            padded = functional.pad(ids, pad)
            have = model(input_ids=padded, attention_mask=(padded > 0).long()).logits
            torch.testing.assert_close(have, want, rtol=0, atol=1e-9)
        model.save_pretrained(tmp_path)
        again = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float64).eval()
        torch.testing.assert_close(again(input_ids=ids).logits, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("role", ["decoder", "encoder"])
def test_every_auto_class_takes_the_trunk_of_a_trained_model(role: str, tmp_path: Path) -> None:
    model, ids = build(MIXERS["resolvent_apply"], role), tokens()
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        want = model.model(input_ids=ids).last_hidden_state
        trunk = AutoModel.from_pretrained(tmp_path, dtype=torch.float64)
        assert isinstance(trunk, BKModel)
        torch.testing.assert_close(trunk(input_ids=ids).last_hidden_state, want, rtol=0, atol=1e-12)
        other = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float64, num_labels=5)
        torch.testing.assert_close(other.model(input_ids=ids).last_hidden_state, want, rtol=0, atol=1e-12)


def test_an_encoder_is_not_loaded_as_a_decoder_nor_the_other_way_round(tmp_path: Path) -> None:
    for role, wrong, message in (
        ("encoder", AutoModelForCausalLM, "a two-sided mixer shows each position the next token"),
        ("decoder", AutoModelForMaskedLM, "a causal mixer does not see the tokens after a mask"),
    ):
        build(MIXERS["resolvent_apply"], role).save_pretrained(tmp_path / role)
        with pytest.raises(ConfigError, match=message):
            wrong.from_pretrained(tmp_path / role)


def test_unknown_mixer_settings_of_a_saved_model_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="resolvent_aply is unknown; did you mean 'resolvent_apply'"):
        mixer_settings({"kind": "resolvent_aply"}, 16)
    with pytest.raises(ConfigError, match=r"model\.mixer\.n_head: attention has no such key; did you mean 'n_heads'"):
        mixer_settings({"kind": "attention", "n_head": 4}, 16)


def test_config_survives_its_json_form(tmp_path: Path) -> None:
    config = build(MIXERS["original"]).config
    config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(again, BKConfig)
    assert again.mixer == config.mixer
    assert (again.causal, again.intermediate_size, again.tie_word_embeddings) == (True, 24, True)
