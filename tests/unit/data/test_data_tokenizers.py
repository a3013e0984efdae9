"""Tokenizers: sizes, round trips, what is saved with a model, and what is refused."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackwise_ray.config.trial import data_config
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.data import prepare
from stackwise_ray.data.tokenizers import ByteEncoder, load_saved, tokenizer_source

TRAIN = [
    " the cat sat on the mat \n the dog ate <unk> \n",
    "def add(x, y):\n    return x + y  # the sum\n",
    "Ein Haus, ein Baum; naïve Geschichten über Öl.\n",
]
AWKWARD = "tabs\t and  spaces \n\n\n ünïcödé 𝄞 <|eos|> </s> <eos> [MASK] \x00 end"


def build(spec, texts=TRAIN):
    return tokenizer_source(spec).build(lambda: iter(texts))


def shared_tokenizer(name):
    root = os.environ.get("STACKWISE_DATA")
    if not root or not (Path(root) / "tokenizers" / name).is_dir():
        pytest.skip(f"STACKWISE_DATA has no tokenizers/{name}")
    return name


@given(st.text())
def test_bytes_are_the_utf_8_bytes_of_any_text(text):
    assert ByteEncoder().encode([text])[0].tolist() == list(text.encode())


def test_the_byte_tokenizer_that_is_saved_gives_the_same_ids_and_reads_them_back(tmp_path):
    encoder = build("bytes")
    encoder.save(tmp_path / "tokenizer")
    saved = load_saved(tmp_path / "tokenizer")
    assert encoder.vocab_size == len(saved) == 260
    assert encoder.special_ids == {"pad": 256, "bos": 257, "eos": 258, "mask": 259}
    roles = {role: getattr(saved, f"{role}_token_id") for role in encoder.special_ids}
    assert roles == encoder.special_ids
    text = AWKWARD.replace("<|eos|>", "")
    assert saved(text).input_ids == encoder.encode([text])[0].tolist()
    assert saved.decode(encoder.encode([text])[0]) == text
    assert saved("a<|eos|>").input_ids == [97, 258]  # a prompt may hold special tokens
    assert encoder.encode(["<|eos|>"])[0].tolist() == list(b"<|eos|>")  # a corpus may not


def test_every_byte_survives_the_saved_byte_tokenizer(tmp_path):
    build("bytes").save(tmp_path / "tokenizer")
    saved = load_saved(tmp_path / "tokenizer")
    characters = "".join(map(chr, [*range(0x80), *range(0x80, 0x800, 7), *range(0x800, 0xD800, 97), 0x1F600, 0x10FFFF]))
    assert saved(characters, split_special_tokens=True).input_ids == list(characters.encode())


def test_words_are_those_of_the_train_split_with_an_end_a_line(tmp_path):
    encoder = build("words", [" b a b \n \n c b", " a <unk> \n"])
    encoder.save(tmp_path / "tokenizer")
    saved = load_saved(tmp_path / "tokenizer")
    assert encoder.vocab_size == len(saved) == 5
    ids = encoder.encode([" a b new \n c \n"])[0].tolist()
    assert saved.convert_ids_to_tokens(ids) == ["a", "b", "<unk>", "<eos>", "c", "<eos>"]
    assert saved(" a b new \n c \n").input_ids == ids
    assert ids[0] == 3  # b is the most frequent, then a: ids 2 and 3 after <eos> and <unk>
    assert encoder.special_ids == {"eos": saved.eos_token_id, "unk": saved.unk_token_id}
    assert encoder.end_of_document is None


def test_a_trained_bpe_has_the_size_asked_for_and_loses_nothing(tmp_path):
    encoder = build("bpe:300")
    encoder.save(tmp_path / "tokenizer")
    saved = load_saved(tmp_path / "tokenizer")
    assert encoder.vocab_size == len(saved) == 300
    assert set(encoder.special_ids) == {"pad", "bos", "eos", "mask"}
    assert {role: getattr(saved, f"{role}_token_id") for role in encoder.special_ids} == dict(encoder.special_ids)
    ids = encoder.encode([AWKWARD])[0]
    assert saved.decode(ids) == AWKWARD
    assert not np.isin(ids, list(encoder.special_ids.values())).any()
    assert len(encoder.encode([" the cat sat on the mat"])[0]) < 15


def test_training_a_bpe_is_deterministic_over_processes():
    code = (
        "from stackwise_ray.data.tokenizers import tokenizer_source\n"
        "texts = [f'{i * i} word{i % 37} {i % 11}other thing{i % 5}\\n' * 3 for i in range(900)]\n"
        "print(tokenizer_source('bpe:400').build(lambda: iter(texts)).digest())"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        for _ in range(3)
    ]
    assert len({run.stdout for run in runs}) == 1


def test_a_bpe_learns_from_the_train_split_alone(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    rng = np.random.RandomState(0)
    words = ["".join(rng.choice(list("abcdefgh"), 6)) for _ in range(60)]
    (folder / "train.txt").write_text("\n".join(" ".join(rng.choice(words, 8)) for _ in range(200)))
    (folder / "valid.txt").write_text("zzzzzz qqqqqq zzzzzz qqqqqq\n" * 500)
    (folder / "test.txt").write_text("qqqqqq zzzzzz qqqqqq zzzzzz\n" * 500)
    config = data_config(corpus="text_files", path=str(folder), tokenizer="bpe:320", seq_len=8)
    data = prepare(config, cache_directory=tmp_path / "cache")
    vocabulary = data.tokenizer.get_vocab()
    assert not [token for token in vocabulary if "zz" in token or "qq" in token]
    assert [token for token in vocabulary if len(token) >= 5 and set(token) <= set("abcdefghĠ")]


@pytest.mark.parametrize("spec", ["bpe:", "bpe:12", "bpe:many", "bpe:-5"])
def test_a_malformed_bpe_size_is_refused_with_an_example(spec):
    with pytest.raises(ConfigError, match=r"data.tokenizer = bpe:.*at least 260 entries.*for example bpe:8000"):
        tokenizer_source(spec)


def test_a_bpe_that_the_text_cannot_fill_says_how_far_it_goes():
    with pytest.raises(
        ConfigError, match=r"= bpe:5000: the train split is enough for only \d+ entries; write bpe:\d+ or less"
    ):
        build("bpe:5000")


def test_a_tokenizer_folder_of_transformers_is_used_as_it_is(tmp_path):
    original = build("bpe:300")
    original.save(tmp_path / "mine")
    encoder = build(str(tmp_path / "mine"))
    assert encoder.vocab_size == 300
    assert encoder.encode([AWKWARD])[0].tolist() == original.encode([AWKWARD])[0].tolist()
    assert encoder.special_ids == original.special_ids


def test_a_folder_without_a_tokenizer_and_a_missing_one_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"contains no tokenizer; it must contain tokenizer.json"):
        tokenizer_source(str(tmp_path))
    with pytest.raises(ConfigError, match="there is no such folder"):
        tokenizer_source(str(tmp_path / "none"))


def test_a_name_that_is_nowhere_lists_the_places_and_the_nearest_kind(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.delenv("STACKWISE_DATA", raising=False)
    with pytest.raises(
        ConfigError, match=r"= byts: no such tokenizer; did you mean 'bytes'\? Looked in byts and on the"
    ):
        build("byts")


@pytest.mark.parametrize(
    ("name", "size", "specials"),
    [
        ("gpt2", 50_257, {"bos": 50_256, "eos": 50_256, "unk": 50_256}),
        ("bert-base-uncased", 30_522, {"pad": 0, "unk": 100, "cls": 101, "sep": 102, "mask": 103}),
        ("mistral-v1", 32_000, {"unk": 0, "bos": 1, "eos": 2}),
    ],
)
def test_published_tokenizers_have_their_sizes_and_ids(name, size, specials, tmp_path):
    encoder = build(shared_tokenizer(name))
    assert encoder.vocab_size == size
    assert encoder.special_ids == specials
    ids = encoder.encode([AWKWARD])[0]
    assert not np.isin(ids, [i for role, i in specials.items() if role != "unk"]).any()
    encoder.save(tmp_path / "tokenizer")
    saved = load_saved(tmp_path / "tokenizer")
    assert len(saved) == size
    assert saved(AWKWARD, add_special_tokens=False, split_special_tokens=True).input_ids == ids.tolist()
    if name != "bert-base-uncased":  # which lower-cases
        assert saved.decode(ids) == AWKWARD


@pytest.mark.parametrize(
    ("name", "text", "ids"),
    [
        # GPT-2 and BERT: as their documentation gives them; Mistral: by the sentencepiece library 0.2.3.
        ("gpt2", "Hello world", [15496, 995]),
        ("bert-base-uncased", "Hello World", [7592, 2088]),
        ("mistral-v1", "Hello world", [22557, 1526]),
        ("mistral-v1", " two  leading", [28705, 989, 28705, 5374]),
        ("mistral-v1", "naïve 𝄞\n", [1879, 28920, 333, 28705, 243, 160, 135, 161, 13]),
    ],
)
def test_published_tokenizers_give_the_published_ids(name, text, ids):
    assert build(shared_tokenizer(name)).encode([text])[0].tolist() == ids


def test_a_folder_whose_tokenizer_transformers_cannot_read_is_one_message(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    with pytest.raises(ConfigError, match=r"= .*: transformers cannot read its tokenizer .*save it again"):
        tokenizer_source(str(tmp_path)).build(iter)
