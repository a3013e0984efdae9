"""What every corpus promises; a new one is picked up from the registry by itself."""

import json
from pathlib import Path

import numpy as np
import pytest

from stackwise_ray.config.trial import data_config
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.data import CORPORA, gather, prepare
from stackwise_ray.data.corpus import SPLITS


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory):
    """400 documents for the corpora that read what the user names."""
    folder = tmp_path_factory.mktemp("texts")
    rows = (json.dumps({"text": f"Document {i} tells of {i * i} things.\n" * 4}) + "\n" for i in range(400))
    (folder / "documents.jsonl").write_text("".join(rows))
    return folder


@pytest.fixture(params=CORPORA.names(), scope="module")
def corpus(request, text_folder, tmp_path_factory):
    """(config, corpus class) of a source that is at hand; the hub itself is never asked."""
    with pytest.MonkeyPatch.context() as patch:
        from huggingface_hub import constants

        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        patch.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))
        make = CORPORA.get(request.param)
        reasons = []
        for path in (None, str(text_folder)):
            config = data_config(corpus=request.param, path=path, seq_len=32)
            try:
                next(iter(make(config).documents()))
            except ConfigError as error:
                reasons.append(str(error))
                continue
            yield config, make
            return
        assert "fetch it with" in reasons[0], f"a missing source gives no way out: {reasons[0]}"
        pytest.skip(reasons[0])


def test_documents_come_in_the_same_order_every_time_and_no_split_shares_one(corpus):
    config, make = corpus
    source = make(config)
    first, again = list(source.documents()), list(make(config).documents())
    assert first == again == list(source.documents())
    texts = {split: {document.text for document in first if document.split == split} for split in SPLITS}
    assert all(texts.values())
    assert texts["train"].isdisjoint(texts["validation"] | texts["test"])
    assert texts["validation"].isdisjoint(texts["test"])
    assert all(document.name for document in first)


def test_recipe_and_signature_are_stable_json_and_the_recipe_knows_no_place(corpus, text_folder):
    config, make = corpus
    for read in (lambda: make(config).recipe(), lambda: make(config).signature()):
        assert json.dumps(read()) == json.dumps(read())
    recipe = json.dumps(make(config).recipe())
    assert make(config).recipe()["corpus"] == config.corpus
    assert str(text_folder) not in recipe
    assert str(Path.home()) not in recipe


def test_prepared_bytes_are_the_documents_and_come_back_from_the_cache(corpus, module_cache):
    config, make = corpus
    data = prepare(config, cache_directory=module_cache)
    ends = make.separated
    for split in SPLITS:
        documents = [document.text for document in make(config).documents() if document.split == split]
        part = data.splits[split]
        assert part.n_documents == len(documents)
        assert part.n_bytes == sum(len(text.encode()) for text in documents)
        assert part.n_tokens == len(part.tokens) == part.n_bytes + ends * len(documents)
        assert part.n_words > 0
        assert int(part.tokens.max()) < data.vocab_size
        assert bytes(part.tokens[part.tokens < 256].astype(np.uint8)).decode() == "".join(documents)
    again = prepare(config, cache_directory=module_cache, verify=True)
    assert (again.fingerprint, again.rebuilt) == (data.fingerprint, False)
    description = data.describe()
    assert json.loads(json.dumps(description)) == description
    inputs, targets = gather(data.splits["train"].tokens, [0, 5], config.seq_len)
    np.testing.assert_array_equal(inputs[:, 1:], targets[:, :-1])


def test_only_a_corpus_with_a_known_source_has_an_oracle(corpus, module_cache):
    config, _ = corpus
    data = prepare(config, cache_directory=module_cache)
    losses = data.oracle_loss([0, 32])
    assert (losses is None) == (data.entropy_rate is None)
    if losses is not None:
        assert losses.shape == (2,)
        assert (losses > 0).all()
