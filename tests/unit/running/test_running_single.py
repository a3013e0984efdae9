"""One trial in a folder of its own: trained once, counted, and never taken for another one."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stackwise_ray.config.reading.yaml import dump_yaml
from stackwise_ray.config.trial import Budget, TrialConfig
from stackwise_ray.config.trial.editing import to_plain
from stackwise_ray.core import plugins
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.ownership import LOCK_NAME, SweepLock
from stackwise_ray.core.records import MetricRecord
from stackwise_ray.flags import FLAGS
from stackwise_ray.running.single import attempt, build_model, owned, train
from tests.small_trials import TRIAL, with_data, with_model, with_training

pytestmark = pytest.mark.usefixtures("module_cache")


def begun(folder: Path, trial: TrialConfig = TRIAL, **known: object) -> Path:
    """The folder of a trial as an attempt leaves it that has begun."""
    (folder / "metadata").mkdir(parents=True)
    (folder / "config.yaml").write_text(dump_yaml(to_plain(trial)))
    (folder / "metadata" / "environment.json").write_text(json.dumps({"plugins": [], **known}))
    return folder


def test_a_second_call_gives_the_result_again_without_training(tmp_path: Path) -> None:
    records: list[MetricRecord] = []
    first = train(TRIAL, tmp_path / "a" / "b", on_record=records.append)
    folder = tmp_path / "a" / "b"
    assert first.directory == folder
    assert [record.step for record in records] == [1, 2, 3, 3, 4, 5, 6, 6, 6]
    assert {record.attempt for record in records} == {1}
    assert len({record.trial_id for record in records}) == 1
    assert records[-1].metrics["validation/loss"] == first.metrics["validation/loss"]
    assert (folder / "attempt").read_text() == "1"
    assert not (folder / LOCK_NAME).exists(), "nobody owns it any more"

    weights = folder / "model" / "model.safetensors"
    kept = weights.stat().st_mtime_ns
    again = train(TRIAL, folder)
    assert again.metrics == first.metrics
    assert weights.stat().st_mtime_ns == kept
    assert (folder / "attempt").read_text() == "2"
    assert [path.name for path in (folder / "logs").iterdir()] == ["train.log"]


def test_every_attempt_has_the_next_number_and_the_identity_of_the_trial(tmp_path: Path) -> None:
    (tmp_path / "attempt").write_text("6")
    first = next(attempt(TRIAL, tmp_path))
    assert (first.attempt, (tmp_path / "attempt").read_text()) == (7, "7")
    told: list[str] = []
    other = next(attempt(replace(TRIAL, seed=1), tmp_path / "other", progress=lambda what, *_: told.append(what)))
    assert other.attempt == 1
    assert other.trial_id != first.trial_id


def test_another_trial_is_refused_with_the_differences(tmp_path: Path) -> None:
    begun(tmp_path)
    other = replace(TRIAL, seed=4)
    with pytest.raises(ConfigError) as refused, owned(other, tmp_path):
        pass
    assert str(refused.value) == (
        f"{tmp_path}: contains another trial (seed was 0, is 4); choose another --output, or delete this folder"
    )
    assert not (tmp_path / LOCK_NAME).exists()


def test_three_differences_are_named_and_the_others_are_counted(tmp_path: Path) -> None:
    begun(tmp_path)
    wider = with_data(with_model(d_ff=64, n_layers=3, dropout=0.5), seq_len=32)
    other = with_training(replace(wider, seed=4), budget=Budget(tokens=900))
    with pytest.raises(ConfigError) as refused, owned(other, tmp_path):
        pass
    assert "(model.n_layers was 2, is 3; model.d_ff was 32, is 64; model.dropout was 0.0, is 0.5 and 4 more)" in str(
        refused.value
    )
    three = with_model(d_ff=64, n_layers=3, dropout=0.5)
    with pytest.raises(ConfigError, match=r"model.dropout was 0.0, is 0.5\); choose another --output"):
        train(three, tmp_path)


def test_other_weights_than_it_began_from_are_refused(tmp_path: Path) -> None:
    begun(tmp_path, weights_fingerprint="0123456789abcdef")
    with pytest.raises(ConfigError) as refused, owned(TRIAL, tmp_path):
        pass
    assert str(refused.value) == (
        f"{tmp_path}: contains a trial that began from other weights (0123456789ab) than those that training.init_from "
        "names now; choose another --output, delete this folder, or restore the weights"
    )
    with owned(TRIAL, begun(tmp_path / "drawn", weights_fingerprint=None)) as directory:
        assert directory == tmp_path / "drawn"


def test_a_folder_has_one_owner_while_the_block_lasts(tmp_path: Path) -> None:
    with owned(TRIAL, tmp_path):
        holder = SweepLock(tmp_path).owner()
        assert holder is not None
        assert holder.pid == os.getpid()
        with pytest.raises(ConfigError, match=f"running in process {os.getpid()} "), owned(TRIAL, tmp_path):
            pass
    assert SweepLock(tmp_path).owner() is None


def test_a_file_where_the_folder_should_be_is_refused_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_text("mine")
    for place in (file, file / "deeper"):
        with pytest.raises(ConfigError) as refused:
            train(TRIAL, place)
        assert str(refused.value) == (
            f"--output = {place} cannot be a folder, because there is a file of that name; choose another folder"
        )
    assert file.read_text() == "mine"


def test_a_model_is_built_in_training_mode_with_weights_of_torchs_generator() -> None:
    torch.manual_seed(3)
    model = build_model(TRIAL, vocab_size=11)
    assert model.training
    assert model.get_input_embeddings().weight.shape == (11, 16)
    torch.manual_seed(3)
    again = build_model(TRIAL, vocab_size=11)
    assert all(a.equal(b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


FLAG = """
from stackwise_ray.flags import FLAGS, Flag, Measure

FLAGS.register("mine")(
    Flag(name="mine", summary="Wide blocks.", claim="None.", measured_by=(Measure(metric="validation/loss"),),
         needs=lambda trial: None, edits=lambda trial: {"model.d_ff": 48})
)
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[plugins.Plugin]:
    """A plugin with the flag ``mine``, loaded for this test alone."""
    monkeypatch.setattr(plugins, "_loaded", {})
    (tmp_path / "mine.py").write_text(FLAG)
    loaded = plugins.load_plugin(str(tmp_path / "mine.py"))
    yield loaded
    FLAGS.unregister("mine")
    del sys.modules[loaded.module]


def test_the_model_that_is_built_has_what_the_flags_of_the_trial_set(plugin: plugins.Plugin) -> None:
    plain, wide = (build_model(replace(TRIAL, flags=flags), vocab_size=11, device="meta") for flags in ((), ("mine",)))
    assert (plain.config.n_inner, wide.config.n_inner) == (32, 48)
    assert wide.config.n_positions == TRIAL.data.seq_len
    assert {parameter.device.type for parameter in wide.parameters()} == {"meta"}


def test_a_trial_whose_plugin_was_changed_is_refused(plugin: plugins.Plugin, tmp_path: Path) -> None:
    trial = replace(TRIAL, flags=("mine",))
    same = begun(tmp_path / "same", trial, plugins=[{"name": "other", "sha256": "0" * 64}, plugin.record()])
    with owned(trial, same) as directory:
        assert directory == same
    folder = begun(tmp_path / "changed", trial, plugins=[{"name": plugin.name, "sha256": "0" * 64}])
    with pytest.raises(ConfigError) as refused, owned(trial, folder):
        pass
    assert str(refused.value) == (
        f"{folder}: contains a trial that began before the plugin {plugin.name} changed (its sha256 is now "
        f"{plugin.sha256[:12]}); choose another --output, delete this folder, or restore the plugin"
    )
    (folder / "metadata" / "environment.json").unlink()
    with owned(trial, folder):
        """An attempt that ended before it had written that."""
