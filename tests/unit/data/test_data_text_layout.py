"""A user's own text: which files are read, whose split it is, and what is said of the rest."""

import gzip
import json
import os

import pytest

from stackwise_ray.config.trial import data_config
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.data import CORPORA, prepare

RULE_OF_TWO = "files named train and validation"
RULE_OF_THREE = "files named train, validation and test"


def rows(*numbers):
    return "".join(json.dumps({"text": f"document {i} of the text\n"}) + "\n" for i in numbers)


def write(root, files):
    for name, content in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(root)


def corpus(path, **options):
    return CORPORA.get("text_files")(data_config(corpus="text_files", path=str(path), **options))


def splits(source):
    found = {}
    for document in source.documents():
        found.setdefault(document.split, []).append(document.text)
    return found


OWN = {
    "two files": ({"train.jsonl": rows(*range(40)), "validation.jsonl": rows(90, 91)}, 40, 2, 0),
    "three files and a readme": (
        {"train.jsonl": rows(1, 2), "valid.jsonl": rows(3), "test.jsonl": rows(4), "README.md": "# About\n" * 99},
        2,
        1,
        1,
    ),
    "plain texts": ({"train.txt": "a\n" * 99, "val.txt": "b\n" * 9}, 1, 1, 0),
    "shards": (
        {
            "train-00000-of-00002.jsonl": rows(1, 2),
            "train-00001-of-00002.jsonl": rows(3),
            "validation-00000-of-00001.jsonl": rows(4),
        },
        3,
        1,
        0,
    ),
    "numbered shards": (
        {"train_0.jsonl": rows(1), "train_1.jsonl": rows(2), "train.part10.jsonl": rows(3), "dev_0.jsonl": rows(4)},
        3,
        1,
        0,
    ),
    "folders": ({"train/a.txt": "a", "train/b.txt": "b", "val/c.txt": "c", "test/d.txt": "d"}, 2, 1, 1),
    "folders deeper down": ({"en/train/a.txt": "a", "de/train/b.txt": "b", "en/dev/c.txt": "c"}, 2, 1, 0),
    "a folder decides before a file": ({"train/test.txt": "a", "train/b.txt": "b", "valid/train.txt": "c"}, 2, 1, 0),
    "capitals": ({"Train.TXT": "a\n", "Valid.TXT": "b\n"}, 1, 1, 0),
    "names of one data set": (
        {"wiki.train.txt": "a\n", "wiki.valid.txt": "b\n", "wiki.test.txt": "c\n"},
        1,
        1,
        1,
    ),
    "names with the split first": ({"train_corpus.jsonl": rows(1, 2), "val_corpus.jsonl": rows(3)}, 2, 1, 0),
    "two data sets in one folder": (
        {"en.train.txt": "a\n", "en.valid.txt": "b\n", "de.train.txt": "c\n", "de.valid.txt": "d\n"},
        2,
        2,
        0,
    ),
    "folders of a set": ({"train_set/a.txt": "a", "train_set/b.txt": "b", "val-data/c.txt": "c"}, 2, 1, 0),
    "words without a gap": ({"trainset.jsonl": rows(1, 2), "testset.jsonl": rows(3), "devset.jsonl": rows(4)}, 2, 1, 1),
    "other words": ({"train.jsonl": rows(1, 2), "eval.jsonl": rows(3)}, 2, 1, 0),
    "packed files": (
        {"train.jsonl.gz": gzip.compress(rows(1, 2).encode()), "validation.txt.gz": gzip.compress(b"held out")},
        2,
        1,
        0,
    ),
}


@pytest.mark.parametrize(("files", "train", "validation", "test"), OWN.values(), ids=OWN.keys())
def test_a_split_of_ones_own_is_kept(files, train, validation, test, tmp_path):
    source = corpus(write(tmp_path, files))
    found = splits(source)
    assert {name: len(texts) for name, texts in found.items()} == {
        name: count for name, count in (("train", train), ("validation", validation), ("test", test)) if count
    }
    assert source.recipe()["split"] == (RULE_OF_THREE if test else RULE_OF_TWO)
    assert source.splits() == tuple(name for name in ("train", "validation", "test") if name in found)
    assert source.notes()[0] == f"the split is that of the {RULE_OF_THREE if test else RULE_OF_TWO}"
    assert ("there is no test split, and nothing measures it" in source.notes()) == (not test)


def test_a_document_that_is_held_out_and_in_train_stays_held_out(tmp_path):
    found = splits(
        corpus(write(tmp_path, {"train.jsonl": rows(1, 2, 3), "valid.jsonl": rows(3, 4), "test.jsonl": rows(2)}))
    )
    assert {name: len(texts) for name, texts in found.items()} == {"train": 1, "validation": 2, "test": 1}


def test_files_of_no_split_are_not_read_and_named(tmp_path):
    files = {"train.jsonl": rows(1, 2), "dev.jsonl": rows(3), "README.md": "about", "notes/more.txt": "x", "a.csv": "1"}
    source = corpus(write(tmp_path, files))
    assert "about" not in splits(source)["train"]
    assert source.notes()[-2:] == (
        "not read, because only .txt, .md, .jsonl files are: a.csv",
        "not read, because no split is in its name: README.md, notes/more.txt",
    )


DOCUMENTS = {
    "a train alone is no split": {"train-0.jsonl": rows(*range(60)), "train-1.jsonl": rows(*range(60, 99))},
    "words in titles": {"train_station.txt": "a", "test_plan.txt": "b", "valid_ticket.txt": "c"},
    "a title that begins with the word": {"training day.txt": "a", "validation of x.txt": "b"},
}


@pytest.mark.parametrize("files", DOCUMENTS.values(), ids=DOCUMENTS.keys())
def test_names_of_documents_make_no_split(files, tmp_path):
    assert corpus(write(tmp_path, files)).recipe()["split"].startswith("sha256")


def test_a_train_without_a_validation_is_split_anew_with_a_word(tmp_path):
    source = corpus(write(tmp_path, {"train.jsonl": rows(*range(60)), "questions.jsonl": rows(*range(60, 99))}))
    assert source.recipe()["split"].startswith("sha256")
    assert "named for train, with no validation beside it: train.jsonl; all text is split anew" in source.notes()
    assert not any("anew" in note for note in corpus(tmp_path, split="hash").notes())


REFUSED = {
    "no validation": (
        {"train.jsonl": rows(1, 2), "test.jsonl": rows(3)},
        r"its files are named for train and test \(test.jsonl\), but none for validation\. .*data\.split=hash",
    ),
    "no train": (
        {"corpus.jsonl": rows(1, 2), "valid.jsonl": rows(3)},
        r"are named for validation \(valid.jsonl\), but none for train",
    ),
    "most of the text has no split": (
        {"train.txt": "a", "val.txt": "b", "one.txt": "x" * 99, "two.txt": "y" * 99},
        r"most of the text is in 2 others, such as one\.txt, and would be left out",
    ),
}


@pytest.mark.parametrize(("files", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_half_a_split_is_refused_with_the_ways_out(files, message, tmp_path):
    path = write(tmp_path, files)
    with pytest.raises(ConfigError, match=message):
        corpus(path).signature()
    assert corpus(path, split="hash").recipe()["split"].startswith("sha256")


def test_a_split_by_hash_is_made_where_it_is_asked_for(tmp_path):
    path = write(tmp_path, {"train.jsonl": rows(*range(200)), "validation.jsonl": rows(*range(200, 220))})
    source = corpus(path, split="hash")
    found = splits(source)
    assert sum(map(len, found.values())) == 220
    assert any("document 200 of" in text or "document 201 of" in text for text in found["train"])
    assert source.notes() == ()


def test_a_glob_keeps_a_split_and_one_file_of_a_split_says_what_is_not_read(tmp_path):
    path = write(tmp_path, {"train.jsonl": rows(*range(60)), "validation.jsonl": rows(60, 61)})
    assert corpus(f"{path}/*.jsonl").recipe()["split"] == RULE_OF_TWO
    (note,) = corpus(f"{path}/train.jsonl").notes()
    assert note.startswith("validation.jsonl beside it is not read: this one file is split anew; name the folder")
    assert corpus(f"{path}/train.jsonl", split="hash").notes() == ()


def test_links_are_followed_once_and_a_loop_is_named(tmp_path):
    write(tmp_path, {"far/books/a.txt": "a", "far/books/b.txt": "b", "here/c.txt": "c", "here/in/d.txt": "d"})
    here = tmp_path / "here"
    os.symlink("../far/books", here / "books")
    os.symlink("..", here / "in" / "up")
    os.symlink("../far/books/a.txt", here / "one.txt")
    os.symlink("nowhere.txt", here / "dead.txt")
    source = corpus(here)
    names = sorted(file.relative_to(here).as_posix() for file in source._layout.files)
    assert names == ["books/a.txt", "books/b.txt", "c.txt", "in/d.txt", "one.txt"]
    (note,) = source.notes()
    assert note == "not followed, because the link leads to a folder that is read already: in/up"
    assert sorted(text for texts in splits(source).values() for text in texts) == ["a", "b", "c", "d"]


def test_suffixes_are_compared_without_case_and_what_is_not_read_is_named(tmp_path):
    path = write(tmp_path, {"a.TXT": "a", "b.Md": "b", "c.JsonL": rows(1), ".hidden.txt": "x", "d.pdf": "y"})
    source = corpus(path)
    assert len(source._layout.files) == 3
    assert source.notes() == (
        "not read, because only .txt, .md, .jsonl files are: d.pdf",
        "not read, because the name begins with a dot: .hidden.txt",
    )


def test_a_text_without_a_test_split_is_prepared_with_two(tmp_path):
    path = write(tmp_path / "text", {"train.txt": "word " * 99, "val.txt": "other " * 20})
    data = prepare(data_config(corpus="text_files", path=path, seq_len=8), cache_directory=tmp_path / "cache")
    assert tuple(data.splits) == ("train", "validation")
    assert data.held_out == ("validation",)
    assert set(data.describe()["splits"]) == {"train", "validation"}
    assert data.remarks[0] == f"{path}: the split is that of the {RULE_OF_TWO}"


def test_an_empty_split_of_ones_own_is_not_answered_by_a_number_of_documents(tmp_path):
    path = write(tmp_path / "text", {"train.jsonl": rows(1, 2, 3), "val.jsonl": rows(4), "test.jsonl": rows(4)})
    with pytest.raises(ConfigError, match=r"the validation split is empty \(files named train, validation and test\)"):
        prepare(data_config(corpus="text_files", path=path, seq_len=4), cache_directory=tmp_path / "cache")


ENCODED = {
    "utf-16": ("café text\n".encode("utf-16"), "x.txt is UTF-16 text; convert it .iconv -f utf-16 -t utf-8 '"),
    "utf-16 without its mark": (
        "plain text\n".encode("utf-16-le"),
        "has a zero at byte 1, as UTF-16 .*iconv -f utf-16le",
    ),
    "utf-16, big end first": ("plain text\n".encode("utf-16-be"), "has a zero at byte 0.*iconv -f utf-16be"),
    "utf-32": ("text\n".encode("utf-32"), "is UTF-32 text; convert it .iconv -f utf-32"),
    "one byte per letter": (
        "café".encode("latin-1"),
        r"is not UTF-8 text \(byte 3\); .*\(iconv -f windows-1252",
    ),
    "zip": (b"PK\x03\x04rest", "is a zip file; unpack it .unzip '"),
    "xz": (b"\xfd7zXZ\x00rest", "is packed by xz; unpack it .unxz '"),
    "parquet": (b"PAR1rest", "is a parquet file; read its folder by data=hub data.path='"),
    "half a gzip": (gzip.compress(b"text " * 999)[:40], "is packed by gzip and damaged .*gzip -t"),
}


@pytest.mark.parametrize("name", ["x.txt", "x.jsonl"])
@pytest.mark.parametrize(("content", "message"), ENCODED.values(), ids=ENCODED.keys())
def test_bytes_that_are_no_utf_8_are_named_with_what_converts_them(content, message, name, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=message.replace("x.txt", name).replace("byte 3", r"(line 1, )?byte 3")):
        splits(corpus(tmp_path / name))


def test_a_packed_text_is_the_text(tmp_path):
    text = "".join(f"line {i}\n" for i in range(400))
    (tmp_path / "book.txt").write_text(text)
    (tmp_path / "book.txt.gz").write_bytes(gzip.compress(text.encode("utf-8-sig")))
    plain, packed = corpus(tmp_path / "book.txt"), corpus(tmp_path / "book.txt.gz")
    assert splits(packed) == splits(plain)
    assert plain.size_bytes() == len(text)
    assert packed.size_bytes() is None  # how much text there is, nobody knows before it is read
