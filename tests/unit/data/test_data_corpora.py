"""Corpora: what is a document, which split it falls into, and what is refused."""

import json
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import numpy as np
import pytest

from stackwise_ray.config.trial import data_config
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.data import CORPORA, TrainingOrder, gather, prepare
from stackwise_ray.data.preparing import pieces

SENTENCE = "The number {i} is followed by the number {j}, as numbers are.\n"


def story(i):
    return SENTENCE.format(i=i, j=i + 1) * 3


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return prepare(data_config(corpus="python_stdlib"), cache_directory=tmp_path_factory.mktemp("cache"))


@pytest.fixture
def jsonl(tmp_path):
    path = tmp_path / "stories.jsonl"
    path.write_text("".join(json.dumps({"story": story(i)}) + "\n" for i in range(300)))
    return path


def documents(config):
    found = {"train": set(), "validation": set(), "test": set()}
    for document in CORPORA.get(config.corpus)(config).documents():
        assert document.text not in found[document.split], f"{document.name} stands twice"
        found[document.split].add(document.text)
    return found


def test_the_standard_library_is_split_90_5_5_without_a_shared_document(library):
    found = documents(data_config(corpus="python_stdlib"))
    assert found["train"].isdisjoint(found["validation"] | found["test"])
    assert found["validation"].isdisjoint(found["test"])
    n = sum(map(len, found.values()))
    for split, share in (("train", 0.9), ("validation", 0.05), ("test", 0.05)):
        assert abs(len(found[split]) / n - share) < 5 * np.sqrt(share * (1 - share) / n)
        assert library.splits[split].n_documents == len(found[split])
        assert library.splits[split].n_bytes == sum(len(text.encode()) for text in found[split])
        assert library.splits[split].n_words == sum(len(text.split()) for text in found[split])
    assert library.splits["validation"].n_tokens > 65_536 + 256  # the default validation set fits


def test_the_standard_library_has_no_tests_no_installed_packages_and_nothing_of_the_build():
    names = [
        document.name for document in CORPORA.get("python_stdlib")(data_config(corpus="python_stdlib")).documents()
    ]
    parts = {part for name in names for part in Path(name).parts}
    assert {"json", "asyncio", "os.py"} <= parts | set(names)
    assert parts.isdisjoint({"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"})
    assert not [name for name in names if "_sysconfigdata" in name]
    assert names == sorted(names)


def test_byte_tokens_of_the_standard_library_are_the_files_with_an_end_after_each(library):
    tokens = library.splits["test"].tokens
    end = library.special_ids["eos"]
    ends = np.flatnonzero(tokens == end)
    assert len(ends) == library.splits["test"].n_documents
    assert ends[-1] == len(tokens) - 1
    texts = [bytes(part[:-1].astype(np.uint8)).decode() for part in np.split(tokens, ends + 1)[:-1]]
    assert set(texts) == documents(data_config(corpus="python_stdlib"))["test"]


def test_the_standard_library_takes_under_3_s_cold_and_under_0_2_s_warm(tmp_path):
    started = time.perf_counter()
    steps = []
    prepare(data_config(corpus="python_stdlib"), cache_directory=tmp_path, progress=lambda *step: steps.append(step))
    cold = time.perf_counter() - started
    warm = []
    for _ in range(3):
        started = time.perf_counter()
        prepare(data_config(corpus="python_stdlib"), cache_directory=tmp_path)
        warm.append(time.perf_counter() - started)
    assert cold < 3
    assert min(warm) < 0.2
    assert steps[0][:2] == ("tokenising python_stdlib", 0)
    assert steps[-1][1] == steps[-1][2] > 5_000_000


def test_a_library_file_that_python_cannot_decode_is_left_out_by_name(tmp_path, monkeypatch):
    root = tmp_path / "lib"
    (root / "test").mkdir(parents=True)
    for i in range(200):
        (root / f"m{i:03}.py").write_text(story(i))
    (root / "broken.py").write_bytes(b"x = '\xff'\n")
    (root / "latin.py").write_bytes(b"# -*- coding: latin-1 -*-\nx = '\xe9'\n")
    (root / "copy.py").write_text(story(0))
    (root / "test" / "test_m.py").write_text("never read")
    real = sysconfig.get_path
    monkeypatch.setattr(sysconfig, "get_path", lambda name, *rest: str(root) if name == "stdlib" else real(name, *rest))
    data = prepare(data_config(corpus="python_stdlib", seq_len=16), cache_directory=tmp_path / "cache")
    facts = data.describe()["facts"]
    assert facts["undecodable_left_out"] == ["broken.py"]
    assert facts["duplicates_dropped"] == 1
    assert sum(split.n_documents for split in data.splits.values()) == 201
    found = documents(data_config(corpus="python_stdlib"))
    assert any("x = 'é'" in text for text in set().union(*found.values()))
    before = data.fingerprint
    (root / "m000.py").write_text(story(1000))  # a changed library is another corpus
    changed = prepare(data_config(corpus="python_stdlib", seq_len=16), cache_directory=tmp_path / "cache")
    assert changed.fingerprint != before


def test_a_python_without_its_sources_is_a_config_error(tmp_path, monkeypatch):
    monkeypatch.setattr(sysconfig, "get_path", lambda *_: str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="the source files of the standard library are not in"):
        prepare(data_config(corpus="python_stdlib"), cache_directory=tmp_path)


def test_jsonl_lines_are_documents_split_by_hash_with_copies_dropped(jsonl, tmp_path):
    with jsonl.open("a") as file:
        file.write(json.dumps({"story": story(5)}) + "\n\n")
    config = data_config(corpus="text_files", path=str(jsonl), text_field="story", seq_len=16)
    data = prepare(config, cache_directory=tmp_path / "cache")
    assert sum(split.n_documents for split in data.splits.values()) == 300
    assert data.describe()["facts"]["duplicates_dropped"] == 1
    found = documents(config)
    assert set().union(*found.values()) == {story(i) for i in range(300)}


def test_a_document_keeps_its_split_when_others_come_or_go(jsonl):
    config = data_config(corpus="text_files", path=str(jsonl), text_field="story")
    before = documents(config)
    lines = jsonl.read_text().splitlines(keepends=True)
    jsonl.write_text("".join([json.dumps({"story": "new"}) + "\n", *reversed(lines[50:])]))
    after = documents(config)
    for split, texts in before.items():
        assert after[split] - {"new"} <= texts


def test_a_folder_with_its_own_split_keeps_it_and_drops_held_out_text_from_train(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name, numbers in (("train", range(50)), ("valid", range(40, 60)), ("test", range(60, 80))):
        rows = "".join(json.dumps({"text": story(i)}) + "\n" for i in numbers)
        (folder / f"{name}.jsonl").write_text(rows)
    found = documents(data_config(corpus="text_files", path=str(folder)))
    assert found["train"] == {story(i) for i in range(40)}
    assert found["validation"] == {story(i) for i in range(40, 60)}
    assert found["test"] == {story(i) for i in range(60, 80)}


def test_a_single_text_is_cut_by_position_at_line_ends(tmp_path):
    path = tmp_path / "book.txt"
    text = "".join(story(i) for i in range(200))
    path.write_text(text)
    parts = list(CORPORA.get("text_files")(data_config(corpus="text_files", path=str(path))).documents())
    assert [part.split for part in parts] == ["train", "validation", "test"]
    assert "".join(part.text for part in parts) == text
    assert all(part.text.endswith("\n") for part in parts)
    assert abs(len(parts[0].text) / len(text) - 0.9) < 0.01
    data = prepare(data_config(corpus="text_files", path=str(path), seq_len=16), cache_directory=tmp_path / "cache")
    assert "by position" in data.describe()["recipe"]["split"]


def test_a_glob_takes_files_of_any_suffix(tmp_path):
    for i in range(100):
        (tmp_path / f"{i}.py").write_text(story(i))
    found = documents(data_config(corpus="text_files", path=str(tmp_path / "*.py")))
    assert sum(map(len, found.values())) == 100


def test_the_fingerprint_does_not_depend_on_where_the_files_lie(jsonl, tmp_path):
    other = tmp_path / "elsewhere" / "deep"
    other.mkdir(parents=True)
    (other / "stories.jsonl").write_bytes(jsonl.read_bytes())
    prints = {
        prepare(
            data_config(corpus="text_files", path=str(path), text_field="story", seq_len=16),
            cache_directory=tmp_path / "cache",
        ).fingerprint
        for path in (jsonl, other / "stories.jsonl", other)
    }
    assert len(prints) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b'{"story": "a"}\n{"stori": "b"}\n',
            r"data.text_field = story: .*x.jsonl:2 has no such key; did you mean 'stori'",
        ),
        (b'{"story": 3}\n', "x.jsonl:1 has a int there; it must be text"),
        (b'["a"]\n', "x.jsonl:1 is a list; each line must be a JSON object"),
        (b'{"story": "a"\n', "x.jsonl:1 is not JSON"),
        (b'{"story": "half \\ud800 pair"}\n', "x.jsonl:1: character 5 is half of a surrogate pair"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(tmp_path, content, message):
    (tmp_path / "x.jsonl").write_bytes(content)
    config = data_config(corpus="text_files", path=str(tmp_path / "x.jsonl"), text_field="story", seq_len=4)
    with pytest.raises(ConfigError, match=message):
        prepare(config, cache_directory=tmp_path / "cache")


def test_a_text_that_is_not_utf_8_is_refused_with_the_command_that_converts_it(tmp_path):
    (tmp_path / "x.txt").write_bytes("café".encode("latin-1") * 100)
    with pytest.raises(ConfigError, match=r"x.txt is not UTF-8 text \(byte 3\); convert it \(iconv"):
        prepare(data_config(corpus="text_files", path=str(tmp_path / "x.txt")), cache_directory=tmp_path)


def test_too_little_text_for_a_window_names_both_numbers(jsonl, tmp_path):
    config = data_config(corpus="text_files", path=str(jsonl), text_field="story", seq_len=50_000)
    with pytest.raises(
        ConfigError, match=r"data.seq_len = 50000: the \w+ split has [\d,]+ tokens, and one window needs"
    ):
        prepare(config, cache_directory=tmp_path)


@pytest.mark.parametrize("corpus", ["text_files", "hub"])
def test_a_corpus_that_needs_a_path_says_so(corpus, tmp_path):
    with pytest.raises(ConfigError, match=r"data.path: is required with corpus"):
        prepare(data_config(corpus=corpus), cache_directory=tmp_path)


def test_an_unknown_corpus_is_named_with_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match="= wikitext-2 is an unknown corpus; did you mean 'wikitext2'"):
        prepare(data_config(corpus="wikitext-2"), cache_directory=tmp_path)


def hub_folder(tmp_path, splits):
    folder = tmp_path / "dataset"
    folder.mkdir()
    for name, numbers in splits.items():
        rows = "".join(json.dumps({"content": story(i), "id": i}) + "\n" for i in numbers)
        (folder / f"{name}.jsonl").write_text(rows)
    return str(folder)


def test_a_dataset_keeps_the_splits_that_it_has(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    path = hub_folder(tmp_path, {"train": range(300), "validation": range(290, 320), "test": range(320, 350)})
    found = documents(data_config(corpus="hub", path=path, text_field="content"))
    assert found["train"] == {story(i) for i in range(290)}
    assert found["validation"] == {story(i) for i in range(290, 320)}
    assert found["test"] == {story(i) for i in range(320, 350)}


def test_what_a_dataset_lacks_is_taken_out_of_its_train_split(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    path = hub_folder(tmp_path, {"train": range(300), "test": range(300, 330)})
    found = documents(data_config(corpus="hub", path=path, text_field="content"))
    assert found["test"] == {story(i) for i in range(300, 330)}
    assert found["train"] | found["validation"] == {story(i) for i in range(300)}
    assert 1 <= len(found["validation"]) <= 34  # 5 % of 300 is 15; 5 standard deviations are 19


def test_a_column_that_a_dataset_lacks_is_an_error_with_the_others(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    path = hub_folder(tmp_path, {"train": range(30)})
    with pytest.raises(
        ConfigError, match=r"data.text_field = text: the dataset has no such column; choose one of content, id"
    ):
        prepare(data_config(corpus="hub", path=path), cache_directory=tmp_path / "cache")


def test_a_benchmark_that_is_nowhere_lists_the_places_and_the_command(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("STACKWISE_DATA", str(tmp_path))
    with pytest.raises(ConfigError) as caught:
        prepare(data_config(corpus="wikitext103", tokenizer="words"), cache_directory=tmp_path)
    message = str(caught.value)
    assert message.startswith("data.corpus = wikitext103: not found.")
    assert f"{tmp_path}/wikitext-103 for train.txt" in message
    assert "datasets.load_dataset('Salesforce/wikitext', 'wikitext-103-v1')" in message
    with pytest.raises(ConfigError, match=r"data.path = .*: ptb is not there; give a folder with ptb.train.txt"):
        prepare(data_config(corpus="ptb", path=str(tmp_path)), cache_directory=tmp_path)


def test_files_that_are_not_the_published_benchmark_are_refused(tmp_path):
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}.txt").write_text(" \n = A = \n \n a b c \n" * 50)
    with pytest.raises(ConfigError, match="has 500 words with one <eos> per line, but the published one has 2,088,628"):
        prepare(data_config(corpus="wikitext2", path=str(tmp_path), seq_len=8), cache_directory=tmp_path / "cache")


def test_a_vocabulary_beyond_16_bits_is_stored_whole(tmp_path):
    folder = tmp_path / "words"
    folder.mkdir()
    (folder / "train.txt").write_text("".join(f"w{i} w{i + 1}\n" for i in range(70_000)))
    (folder / "valid.txt").write_text("w1 w69999 unheard\n" * 10)
    (folder / "test.txt").write_text("w2\n" * 10)
    config = data_config(corpus="text_files", path=str(folder), tokenizer="words", seq_len=8)
    data = prepare(config, cache_directory=tmp_path / "cache")
    assert data.vocab_size == 70_001 + 2
    assert data.splits["train"].tokens.dtype == np.uint32
    assert data.splits["train"].tokens.max() == data.vocab_size - 1 > 65_535
    inputs, targets = gather(data.splits["train"].tokens, TrainingOrder(210_000, 8, 0).windows(0, 4), 8)
    assert data.tokenizer.decode(inputs[0]).split()[1:] == data.tokenizer.decode(targets[0]).split()[:-1]
    assert data.tokenizer.decode(data.splits["validation"].tokens[:4]) == "w1 w69999 <unk> <eos>"


def test_long_documents_are_cut_before_lines_that_begin_with_a_word():
    text = "alpha beta\n \n = gamma\n\n\ndelta\n" * 20
    cut = list(pieces(text, 50))
    assert "".join(piece for piece, _ in cut) == text
    assert [last for _, last in cut] == [False] * (len(cut) - 1) + [True]
    for piece, _ in cut[1:]:
        assert not piece[:2].isspace()
    assert max(len(piece) for piece, _ in cut) <= 50
    assert list(pieces("x" * 25, 10)) == [("x" * 10, False), ("x" * 10, False), ("x" * 5, True)]
    assert list(pieces("", 10)) == [("", True)]


def test_importing_the_package_loads_neither_torch_nor_transformers_nor_datasets():
    code = (
        "import sys; from stackwise_ray.data import prepare, CORPORA; CORPORA.names();"
        "print([m for m in ('torch', 'transformers', 'datasets', 'tokenizers', 'ray') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.strip() == "[]"


def test_a_folder_of_other_files_is_not_read_for_its_few_texts(tmp_path):
    for number in range(3):
        (tmp_path / f"page{number}.txt").write_text(f"text {number}\n" * 50)
    for number in range(5):
        (tmp_path / f"page{number}.rst").write_text("more text")
    (tmp_path / ".git").mkdir()
    for number in range(9):
        (tmp_path / ".git" / f"object{number}").write_text("hidden: does not count")
    with pytest.raises(ConfigError, match=r"Here these are 3; 5 others would be left out \(.rst 5\).*\*\*/\*.rst"):
        prepare(data_config(corpus="text_files", path=str(tmp_path)), cache_directory=tmp_path / "cache")
