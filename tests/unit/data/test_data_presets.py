"""The shipped data presets are valid and complete, each for a registered corpus."""

from importlib.resources import files

import pytest
import yaml
from pydantic import TypeAdapter

from stackwise_ray.config.trial import DataConfig
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.data import CORPORA, prepare
from stackwise_ray.data.tokenizers import tokenizer_source

PRESETS = sorted(path.name for path in (files("stackwise_ray") / "presets" / "data").iterdir())


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_valid_data_config_of_a_registered_corpus(name):
    text = (files("stackwise_ray") / "presets" / "data" / name).read_text(encoding="utf-8")
    config = TypeAdapter(DataConfig).validate_python(yaml.safe_load(text))
    assert f"{config.corpus}.yaml" == name
    assert config.corpus in CORPORA
    tokenizer_source(config.tokenizer)


def test_every_main_corpus_has_a_preset():
    assert {"python_stdlib", "markov", "wikitext2", "ptb", "text_files"} <= {
        name.removesuffix(".yaml") for name in PRESETS
    }


def test_the_text_files_preset_asks_for_a_path(tmp_path):
    text = (files("stackwise_ray") / "presets" / "data" / "text_files.yaml").read_text(encoding="utf-8")
    config = TypeAdapter(DataConfig).validate_python(yaml.safe_load(text))
    with pytest.raises(ConfigError, match=r"set data.path"):
        prepare(config, cache_directory=tmp_path)
