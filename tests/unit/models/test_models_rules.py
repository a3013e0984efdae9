"""What a family takes and refuses, and what it answers without torch."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from stackwise_ray.config.trial import ModelConfig, NoMixer
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.models import FAMILIES, check_model
from stackwise_ray.models.family import special_token_settings

GPT2 = ModelConfig(family="gpt2", role="decoder", n_layers=2, d_model=64, n_heads=4, d_ff=128)
LLAMA = replace(GPT2, family="llama")
BERT = replace(GPT2, family="bert", role="encoder")
MODERNBERT = replace(BERT, family="modernbert")


@pytest.mark.parametrize("model", [GPT2, LLAMA, BERT, MODERNBERT], ids=lambda model: model.family)
def test_a_sound_config_passes(model: ModelConfig) -> None:
    assert check_model(model, seq_len=128).name == model.family


@pytest.mark.parametrize(
    ("model", "change", "path", "message"),
    [
        (GPT2, {"family": "gtp2"}, "model.family", "did you mean 'gpt2'?"),
        (GPT2, {"n_heads": 7}, "model.n_heads", "= 7 does not divide d_model = 64; choose 4, 8 or 16"),
        (GPT2, {"n_heads": None}, "model.n_heads", "needs a number of attention heads"),
        (GPT2, {"role": "encoder"}, "model.role", "family gpt2 can only be decoder"),
        (BERT, {"role": "decoder"}, "model.role", "family bert can only be encoder"),
        (GPT2, {"n_kv_heads": 2}, "model.n_kv_heads", "family gpt2 has no such option"),
        (LLAMA, {"n_kv_heads": 3}, "model.n_kv_heads", "= 3 does not divide n_heads = 4; choose 1, 2 or 4"),
        (LLAMA, {"n_heads": 64}, "model.n_heads", "rotary heads of odd width at d_model = 64"),
        (
            LLAMA,
            {"max_positions": 64},
            "model.max_positions",
            "family llama has no such option; leave it out, or choose the family bert or gpt2",
        ),
        (LLAMA, {"dropout": 0.1}, "model.dropout", "= 0.1, but the family llama has no dropout"),
        (GPT2, {"mixer": NoMixer()}, "model.mixer", "= none, but the family gpt2 has no such option"),
        (GPT2, {"max_positions": 100}, "data.seq_len", "= 128 is more than the 100 learned positions of gpt2"),
        (BERT, {"max_positions": 127}, "data.seq_len", "choose data.seq_len <= 127"),
    ],
)
def test_a_field_that_does_not_fit_is_named_with_its_value_and_the_fix(
    model: ModelConfig, change: dict[str, Any], path: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_model(replace(model, **change), seq_len=128)
    assert caught.value.path == path
    assert message in str(caught.value)


def test_a_window_as_long_as_the_position_table_fits() -> None:
    check_model(replace(GPT2, max_positions=128), seq_len=128)


def test_published_ids_stay_where_they_fit_and_become_the_last_id_where_not() -> None:
    llama, gpt2 = FAMILIES.get("llama"), FAMILIES.get("gpt2")
    assert special_token_settings(llama, vocab_size=256, special_ids=None) == {
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": None,
    }
    assert special_token_settings(gpt2, vocab_size=256, special_ids=None)["eos_token_id"] == 255


@pytest.mark.parametrize(
    ("ids", "message"), [({"eos": 256}, "is too small for the eos token 256"), ({"end": 1}, "'end' is unknown")]
)
def test_special_tokens_outside_the_vocabulary_or_unknown_are_refused(ids: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        special_token_settings(FAMILIES.get("gpt2"), vocab_size=256, special_ids=ids)


def test_families_are_listed_and_checked_without_torch() -> None:
    code = (
        "import sys; from stackwise_ray.models import FAMILIES, check_model;"
        "from stackwise_ray.config.trial import ModelConfig;"
        "model = ModelConfig(family='llama', role='decoder', n_layers=1, d_model=8, n_heads=2, d_ff=8);"
        "check_model(model, seq_len=8); assert len(list(FAMILIES.items())) >= 4;"
        "sys.exit(bool({'torch', 'transformers', 'ray'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
