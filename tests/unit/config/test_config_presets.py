"""Presets: composed by Hydra, found by name, added by user folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from stackwise_ray.config.loading import load_trial
from stackwise_ray.config.reading.presets import compose, list_presets
from stackwise_ray.config.trial.paths import GROUPS
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.plugins import problems
from stackwise_ray.planning.calibration_runs import tiny_trials


def user_preset(folder: Path, name: str, text: str) -> Path:
    file = folder / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return folder


def test_presets_compose_into_the_plain_data_of_a_trial() -> None:
    plain = compose({"model": "decoder/gpt2_family/tiny", "data": "markov"})
    assert set(plain) == {"model", "data", "training", "optimizer"}
    assert (plain["model"]["family"], plain["data"]["corpus"], plain["training"]["regime"]) == (
        "gpt2",
        "markov",
        "classical",
    )
    assert plain["optimizer"]["eps"] == 1e-8
    assert plain["training"]["budget"] == {"tokens": 1e6}


def test_a_composed_preset_is_a_copy() -> None:
    compose({"model": "decoder/gpt2_family/tiny"})["model"]["family"] = "changed"
    assert compose({"model": "decoder/gpt2_family/tiny"})["model"]["family"] == "gpt2"


def test_presets_are_listed_by_group() -> None:
    assert "decoder/gpt2_family/tiny" in list_presets("model")
    assert list_presets("training") == (
        "append",
        "append_cached",
        "append_lora",
        "append_time_input",
        "classical",
        "classical_random_ratio",
        "depth_time",
        "depth_time_lora",
        "hybrid",
    )
    assert all(isinstance(list_presets(group), tuple) for group in GROUPS)
    with pytest.raises(ConfigError, match="unknown preset group 'modell'; did you mean 'model'"):
        list_presets("modell")


@pytest.mark.parametrize("group", GROUPS)
def test_no_group_is_promised_that_has_no_presets(group):
    assert list_presets(group)


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ({}, "model: is required; name a preset, such as"),
        ({"model": "decoder/gpt2_family/tinny"}, "did you mean 'decoder/gpt2_family/tiny'?"),
        (
            {"model": "decoder/gpt2_family/tiny", "data": "wikitex2"},
            "data = wikitex2 is not a preset of the group data; did you mean 'wikitext2'?",
        ),
        ({"model": "decoder/gpt2_family/tiny", "dat": "ptb"}, "dat: unknown preset group; did you mean 'data'?"),
        ({"model": "/etc/passwd"}, "is not the name of a preset"),
        ({"model": "a,b"}, "is not the name of a preset"),
    ],
)
def test_an_unknown_preset_is_refused_with_the_nearest(groups: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(groups)
    assert words in str(caught.value)


def test_a_folder_of_the_user_adds_presets_that_may_build_on_the_shipped_ones(tmp_path: Path) -> None:
    odd = tmp_path / "it's odd, [really]"
    user_preset(odd, "model/mine/deep", "defaults: [/model/decoder/gpt2_family/tiny@_here_, _self_]\nn_layers: 9\n")
    assert "mine/deep" in list_presets("model", [odd])
    plain = compose({"model": "mine/deep"}, [odd])
    assert (plain["model"]["n_layers"], plain["model"]["d_model"]) == (9, 64)


def test_interpolation_between_groups_is_resolved(tmp_path: Path) -> None:
    user_preset(tmp_path, "training/long", "budget: {tokens: 2e6}\nbatch_tokens: ${data.seq_len}\n")
    plain = compose({"model": "decoder/gpt2_family/tiny", "training": "long"}, [tmp_path])
    assert plain["training"]["batch_tokens"] == plain["data"]["seq_len"]


def test_a_preset_of_the_user_never_replaces_one_of_the_same_name(tmp_path: Path) -> None:
    user_preset(tmp_path, "training/classical", "lr: 1\n")
    with pytest.raises(ConfigError, match=r"classical\.yaml: the training preset 'classical' is also .*; rename one"):
        compose({"model": "decoder/gpt2_family/tiny"}, [tmp_path])


def test_a_preset_that_does_not_compose_is_named(tmp_path: Path) -> None:
    user_preset(tmp_path, "training/broken", "lr: ${nowhere.at_all}\n")
    with pytest.raises(ConfigError, match=r"broken\.yaml.*: the presets do not compose: "):
        compose({"model": "decoder/gpt2_family/tiny", "training": "broken"}, [tmp_path])
    with pytest.raises(ConfigError, match="is not a folder"):
        compose({"model": "decoder/gpt2_family/tiny"}, [tmp_path / "nowhere"])


@pytest.mark.parametrize("content", [b"lr: [1\n", b"lr: \xff\n"])
def test_a_preset_that_is_no_yaml_is_named_alone(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "broken.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=f"^{tmp_path}/training/broken.yaml: the presets do not compose: "):
        compose({"model": "decoder/gpt2_family/tiny", "training": "broken"}, [tmp_path])


def install_presets(folder: Path, name: str, package: str) -> None:
    """A distribution that names a package of presets, as an installer leaves it."""
    metadata = folder / f"{name}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[stackwise_ray.presets]\n{name} = {package}\n")


def test_a_broken_package_of_presets_stops_only_who_asks_for_its_presets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "raises").mkdir()
    (tmp_path / "raises" / "__init__.py").write_text("raise RuntimeError('not today')\n")
    theirs = user_preset(tmp_path / "theirs_of_a_test", "training/theirs", "lr: 1e-2\n")
    others = tmp_path / "others_of_a_test"
    for folder in (theirs, others):
        user_preset(folder, "training/same", "lr: 1e-2\n")
    user_preset(theirs, "model/theirs/tiny", "family: [\n")
    (theirs / "data").mkdir()
    (theirs / "data" / "gone.yaml").symlink_to(tmp_path / "nowhere.yaml")
    named = {"absent": "no_such_package", "raising": "raises.presets", "theirs": theirs.name, "others": others.name}
    for name, package in named.items():
        install_presets(tmp_path, name, package)
    monkeypatch.syspath_prepend(tmp_path)
    assert load_trial(["model=decoder/gpt2_family/tiny", "training=theirs", "training.budget={steps: 1}"]).training.lr
    told = "\n".join(problems())
    for part in ("no_such_package, which is not an installed package", "RuntimeError: not today", "'same' is also"):
        assert part in told
    load_trial(["model=decoder/gpt2_family/tiny"])
    assert not problems(), "each is told once"
    with pytest.raises(ConfigError, match=r"_of_a_test/training/same.yaml: the training preset 'same' is also "):
        load_trial(["model=decoder/gpt2_family/tiny", "training=same"])
    with pytest.raises(ConfigError, match=r"= lost is not a preset of the group training; .*no_such_package"):
        load_trial(["model=decoder/gpt2_family/tiny", "training=lost"])
    assert "model=theirs/tiny" in tiny_trials(), "measuring it says what is wrong"


@pytest.mark.parametrize("group", GROUPS)
def test_a_shipped_preset_stays_what_it_is_where_an_installed_package_has_one_of_its_name(
    group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = list_presets(group)[0]
    choice = {"model": "decoder/gpt2_family/tiny", group: name}
    shipped = compose(choice)
    theirs = user_preset(tmp_path / f"takes_{group}_of_a_test", f"{group}/{name}", "nonsense: 1\n")
    user_preset(theirs, f"{group}/theirs_alone", f"defaults: [/{group}/{name}@_here_, _self_]\n")
    install_presets(tmp_path, "takes", theirs.name)
    monkeypatch.syspath_prepend(tmp_path)
    problems()
    assert compose(choice) == shipped
    assert compose({**choice, group: "theirs_alone"}) == shipped
    (told,) = (line for line in problems() if str(theirs) in line)
    assert f"{name}.yaml: the {group} preset '{name}' is also stackwise_ray/presets/{group}/" in told
    assert told.endswith("which is taken; the installed plugin's is left out")


def test_a_changed_preset_is_read_again(tmp_path: Path) -> None:
    for rate in ("1e-3", "2e-3"):
        user_preset(tmp_path, "training/mine", f"lr: {rate}\nbudget: {{tokens: 1e6}}\n# {rate}\n")
        plain = compose({"model": "decoder/gpt2_family/tiny", "training": "mine"}, [tmp_path])
        assert plain["training"]["lr"] == float(rate)


def test_composing_leaves_a_hydra_program_of_the_caller_alone() -> None:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from stackwise_ray.config.reading import presets

    presets._composed.clear()
    with initialize_config_dir(str(presets.SHIPPED), version_base="1.3"):
        compose({"model": "decoder/gpt2_family/tiny"})
        assert GlobalHydra.instance().is_initialized()
        assert hydra_compose("training/classical").training.lr == 3e-3
    presets._composed.clear()
    compose({"model": "decoder/gpt2_family/tiny"})
    assert not GlobalHydra.instance().is_initialized()


def test_words_choose_presets_override_them_and_add_folders(tmp_path: Path) -> None:
    user_preset(tmp_path, "data/mine", "corpus: text_files\npath: x.txt\n")
    trial = load_trial(
        [
            "model=decoder/llama_family/tiny",
            "data=mine",
            f"presets={tmp_path}",
            "training.lr=3e-4",
            "flags=[mixed_precision]",
        ]
    )
    assert (trial.model.family, trial.data.path, trial.training.lr) == ("llama", "x.txt", 3e-4)
    assert trial.flags == ("mixed_precision",)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "command line: model: is required; name a preset, such as"),
        (
            ["model=decoder/gtp2_family/tiny"],
            "command line: model = decoder/gtp2_family/tiny is not a preset of the group model; did you mean",
        ),
        (["modle=decoder/gpt2_family/tiny"], "command line: model: is required"),
        (
            ["model=decoder/gpt2_family/tiny", "trainin.lr=1"],
            "command line: trainin.lr: a trial has no 'trainin.lr'; did you",
        ),
        (["model=decoder/gpt2_family/tiny", 'training.lr="3e-4"'], "write it without quotes: 3e-4"),
        (["model=decoder/gpt2_family/tiny", "training.lr=1e-3,1e-2"], "--multirun"),
        (["model=decoder/gpt2_family/tiny", "data.seq_len=100"], "= 4096 is not a multiple of data.seq_len = 100"),
        (["model=decoder/gpt2_family/tiny", "training.budget=[1"], "command line: training.budget: '[1'"),
        (["model={family: gpt2}"], "command line: model: is required"),
    ],
)
def test_a_wrong_word_is_one_message(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_trial(words)
    assert message in str(caught.value)
