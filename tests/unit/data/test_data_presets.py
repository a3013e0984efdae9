"""The shipped data presets are valid and complete, each for a registered corpus."""

from importlib.resources import files

import pytest

from stackwise_ray.config.loading import load_trial
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.data import CORPORA
from stackwise_ray.data.tokenizers import tokenizer_source

PRESETS = sorted(path.name.removesuffix(".yaml") for path in (files("stackwise_ray") / "presets" / "data").iterdir())


def data_config(preset):
    needed = ["data.path=notes.txt"] if preset == "text_files" else []
    return load_trial(["model=decoder/gpt2_family/tiny", f"data={preset}", *needed]).data


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_valid_data_config_of_the_corpus_of_its_name(name):
    config = data_config(name)
    assert config.corpus == name
    assert config.corpus in CORPORA
    tokenizer_source(config.tokenizer)


def test_every_main_corpus_has_a_preset():
    assert {"python_stdlib", "markov", "associative_recall", "wikitext2", "ptb", "text_files"} <= set(PRESETS)


def test_the_text_files_preset_asks_for_a_path():
    with pytest.raises(ConfigError, match=r"data.path: is required with corpus: text_files"):
        load_trial(["model=decoder/gpt2_family/tiny", "data=text_files"])
