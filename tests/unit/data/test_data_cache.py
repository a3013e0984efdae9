"""The cache of prepared data: whole entries only, one builder at a time, damage found and mended."""

import json
import logging
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from stackwise_ray.config.trial import data_config
from stackwise_ray.core.cache_place import cache_directory
from stackwise_ray.core.errors import ConfigError, TrialError
from stackwise_ray.data import prepare
from stackwise_ray.data.corpora.markov import MarkovSource

CONFIG = data_config(corpus="markov", seq_len=16, markov=MarkovSource(n_tokens=300_000))


@pytest.fixture
def built(tmp_path):
    return prepare(CONFIG, cache_directory=tmp_path)


def leftovers(folder):
    return [path.name for path in folder.rglob("*.partial")]


def test_a_second_preparation_reads_what_the_first_wrote(built, tmp_path):
    steps = []
    again = prepare(CONFIG, cache_directory=tmp_path, progress=lambda *step: steps.append(step))
    assert again.fingerprint == built.fingerprint
    assert not again.rebuilt
    assert not steps  # nothing was tokenised
    np.testing.assert_array_equal(again.splits["test"].tokens, built.splits["test"].tokens)


def test_the_fingerprint_is_the_same_in_another_cache_and_changes_with_the_tokens(built, tmp_path):
    assert prepare(CONFIG, cache_directory=tmp_path / "other").fingerprint == built.fingerprint
    other = data_config(corpus="markov", seq_len=16, markov=MarkovSource(n_tokens=300_000, seed=1))
    assert prepare(other, cache_directory=tmp_path).fingerprint != built.fingerprint
    longer = data_config(corpus="markov", seq_len=32, markov=MarkovSource(n_tokens=300_000))
    assert prepare(longer, cache_directory=tmp_path).directory == built.directory  # seq_len cuts, it does not tokenise


def test_token_files_are_read_only_maps(built):
    tokens = built.splits["train"].tokens
    assert isinstance(tokens, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        tokens[0] = 1


def damage_size(folder):
    with (folder / "train.bin").open("r+b") as file:
        file.truncate(1000)


def damage_beginning(folder):
    with (folder / "validation.bin").open("r+b") as file:
        file.write(b"\xff")


def damage_metadata(folder):
    path = folder / "metadata.json"
    content = json.loads(path.read_text())
    content["fingerprint"] = "0" * 64
    path.write_text(json.dumps(content))


def damage_missing(folder):
    (folder / "test.bin").unlink()


def damage_tokenizer(folder):
    (folder / "tokenizer" / "tokenizer.json").write_text("{}")


@pytest.mark.parametrize(
    "damage",
    [damage_size, damage_beginning, damage_metadata, damage_missing, damage_tokenizer],
    ids=lambda f: f.__name__,
)
def test_a_damaged_entry_is_built_anew_and_the_log_says_so(built, tmp_path, caplog, damage):
    tokens, fingerprint = np.array(built.splits["train"].tokens), built.fingerprint
    damage(built.directory)
    with caplog.at_level(logging.WARNING):
        mended = prepare(CONFIG, cache_directory=tmp_path)
    assert mended.rebuilt
    assert f"{built.directory} were damaged" in caplog.text
    assert mended.fingerprint == fingerprint
    np.testing.assert_array_equal(mended.splits["train"].tokens, tokens)
    assert not leftovers(tmp_path)
    assert not prepare(CONFIG, cache_directory=tmp_path).rebuilt


def test_a_single_changed_byte_between_the_samples_is_found_on_request(built, tmp_path):
    path = built.directory / "train.bin"
    with path.open("r+b") as file:
        file.seek(7001)  # the sampled blocks of 600,000 bytes begin at 0 and 19,238
        file.write(b"\x01")
    assert not prepare(CONFIG, cache_directory=tmp_path).rebuilt
    with pytest.raises(TrialError, match=r"train split .* is damaged"):
        built.verify()
    mended = prepare(CONFIG, cache_directory=tmp_path, verify=True)
    assert mended.rebuilt
    mended.verify()


SCRIPT = """
import sys
from pathlib import Path
from stackwise_ray.config.trial import data_config
from stackwise_ray.data.corpora.markov import MarkovSource
from stackwise_ray.data import prepare
steps = []
config = data_config(corpus="markov", seq_len=16, markov=MarkovSource(n_tokens=int(sys.argv[2])))
print("ready", flush=True)
sys.stdin.readline()
data = prepare(config, cache_directory=Path(sys.argv[1]), progress=lambda *step: steps.append(step))
print(data.fingerprint, len(steps) > 0, int(data.splits["test"].tokens.sum()), flush=True)
"""


def start(folder, n_tokens):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), str(n_tokens)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_processes_that_prepare_at_once_build_once_and_get_the_same(tmp_path):
    processes = [start(tmp_path, 400_000) for _ in range(3)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    results = [process.communicate(timeout=60)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len({(fingerprint, total) for fingerprint, _, total in results}) == 1
    assert sorted(built for _, built, _ in results) == ["False", "False", "True"]
    assert not leftovers(tmp_path)


def test_a_preparer_that_is_killed_leaves_nothing_that_counts(tmp_path):
    process = start(tmp_path, 3_000_000)
    process.stdin.write("go\n")
    process.stdin.flush()
    deadline = time.monotonic() + 30
    while not leftovers(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdin.close()
    process.stdout.close()
    assert leftovers(tmp_path)  # it died inside the build
    config = data_config(corpus="markov", seq_len=16, markov=MarkovSource(n_tokens=3_000_000))
    data = prepare(config, cache_directory=tmp_path)
    assert data.splits["train"].n_tokens == 3_000_000
    assert not data.rebuilt
    assert not leftovers(tmp_path)


def test_a_failed_build_leaves_no_entry(tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    (few / "a.txt").write_text("one\n")
    (few / "b.txt").write_text("two\n")
    with pytest.raises(ConfigError, match="split is empty"):
        prepare(data_config(corpus="text_files", path=str(few), seq_len=2), cache_directory=tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache" / "tokens").iterdir() if path.is_dir()]


def test_a_file_where_the_cache_should_be_is_a_config_error(tmp_path):
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(ConfigError, match="STACKWISE_CACHE"):
        prepare(CONFIG, cache_directory=tmp_path / "cache")
    assert (tmp_path / "cache").read_text() == "in the way"


def test_the_cache_lies_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("STACKWISE_CACHE", str(tmp_path / "own"))
    assert cache_directory() == tmp_path / "own"
    monkeypatch.delenv("STACKWISE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory() == tmp_path / "xdg" / "stackwise_ray"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory() == tmp_path / ".cache" / "stackwise_ray"


def test_a_full_disk_is_named_and_nothing_half_written_is_left(tmp_path):
    """A real limit on the size of files stands in for the disk: the kernel refuses the write as it would when full."""
    script = (
        "import resource, signal, sys, errno\n"
        "from pathlib import Path\n"
        "from stackwise_ray.config.trial import data_config\n"
        "from stackwise_ray.data.corpora.markov import MarkovSource\n"
        "from stackwise_ray.core.errors import DiskFullError\n"
        "from stackwise_ray.data import prepare\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        "    prepare(data_config(corpus='markov', seq_len=16, markov=MarkovSource(n_tokens=300_000)),\n"
        "            cache_directory=Path(sys.argv[1]))\n"
        "except DiskFullError as error:\n"
        "    print('full:', error)\n"
    )
    run = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert run.stdout.startswith(f"full: there is no room for prepared data in {tmp_path}"), run.stderr
    assert not leftovers(tmp_path)
    assert not list(tmp_path.rglob("*.bin"))
