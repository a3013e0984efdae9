"""What a word beside a model stands for: arms that the rules of a sweep accept."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from stackwise_ray.config.loading import load_sweep, load_trial
from stackwise_ray.config.reading.presets import list_presets
from stackwise_ray.config.space.designs import expand
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.registries import FLAGS
from stackwise_ray.drafting.contests import Contest, choices, contest
from stackwise_ray.drafting.sizing import measured_trials
from stackwise_ray.drafting.writing import SearchSpaceDraft
from tests.golden import Golden

GPT2, BERT = "decoder/gpt2_family/tiny", "encoder/bert_family/tiny"


def draft_of(found: Contest, model: str, seconds: float = 600.0, **changes: object) -> SearchSpaceDraft:
    given = {"claim": "Is 'this': better?\n# no comment", "data": "markov", "path": None, "lr": 3e-3, **changes}
    return SearchSpaceDraft(contest=found, model=model, seconds=seconds, budget={"flops": 1e11}, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("against", ["decoder/llama_family/tiny", "lr", "deeper"])
def test_a_written_file_is_as_on_file(against: str, golden: Golden) -> None:
    golden.check(
        f"drafts/{against.rpartition('/')[0].replace('/', '_') or against}.yaml",
        draft_of(contest(GPT2, against), GPT2).text(),
    )


@pytest.mark.parametrize("against", list(choices(GPT2)))
def test_every_choice_beside_a_decoder_makes_a_valid_file(against: str, tmp_path: Path) -> None:
    found = contest(GPT2, against)
    file = tmp_path / "draft.yaml"
    file.write_text(draft_of(found, GPT2).text())
    sweep = load_sweep(file)
    assert {arm.name for arm in expand(sweep).arms} == set(found.arms)
    assert sweep.question == "Is 'this': better?\n# no comment"
    assert sweep.comparisons[0].metric == "validation/loss"
    assert 20 <= len(file.read_text().splitlines()) <= 27
    assert file.read_text().count(" # ") >= 6, "it is commented"


@given(claim=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
@example(claim='He said "it\'s": yes\nno # \U0001f600 \x7f \u2028 {a: [b]} end')
def test_a_claim_is_kept_to_the_letter(claim: str) -> None:
    found = Contest(arms={"a": {}, "b": {}}, claim="", tuned=False, role="decoder")
    assert yaml.safe_load(draft_of(found, GPT2, claim=claim).text())["question"] == claim


@pytest.mark.parametrize("against", ["encoder/modernbert_family/tiny", "depth_time", "deeper", "training.lr=1e-3"])
def test_encoders_are_compared_on_the_masks_that_all_share(against: str, tmp_path: Path) -> None:
    file = tmp_path / "draft.yaml"
    file.write_text(draft_of(contest(BERT, against), BERT).text())
    assert load_sweep(file).comparisons[0].metric == "validation/masked_loss"


def test_the_choices_are_the_models_of_one_size_the_shapes_the_rates_the_regimes_and_the_flags() -> None:
    found = choices(GPT2)
    assert list(found)[:2] == ["decoder/bk_family/tiny", "decoder/llama_family/tiny"]
    assert set(found) == {
        *("decoder/bk_family/tiny", "decoder/llama_family/tiny", "deeper", "wider", "lr"),
        *(set(list_presets("training")) - {"classical"}),
        *FLAGS.names(),
    }


@pytest.mark.parametrize("model", [GPT2, BERT, "decoder/bk_family/tiny", "decoder/llama_family/tiny"])
@pytest.mark.parametrize(("word", "factor"), [("deeper", 2), ("wider", 0.5)])
def test_another_shape_has_as_many_parameters(model: str, word: str, factor: float) -> None:
    from stackwise_ray.models.sizes import non_embedding_params

    start = load_trial([f"model={model}"])
    arm = contest(model, word).words(list(contest(model, word).arms)[1])
    other = load_trial([f"model={model}", *arm])
    assert other.model.n_layers == start.model.n_layers * factor
    assert non_embedding_params(other.model) == pytest.approx(non_embedding_params(start.model), rel=0.01)


def test_values_of_a_path_are_arms_beside_the_unchanged_base() -> None:
    found = contest(GPT2, "training.batch_tokens=2048,4096")
    assert found.arms == {
        "base": {},
        "batch_tokens_2048": {"training.batch_tokens": 2048},
        "batch_tokens_4096": {"training.batch_tokens": 4096},
    }
    assert (found.baseline, found.tuned, found.name) == ("base", False, "base_and_2_others")
    assert contest(GPT2, "model=decoder/llama_family/tiny") == contest(GPT2, "decoder/llama_family/tiny")


def test_learning_rates_are_compared_with_the_models_own_under_its_value() -> None:
    found = contest(GPT2, "lr")
    assert found.arms == {
        "lr_0.003": {"training.lr": 0.003},
        "lr_0.001": {"training.lr": 0.001},
        "lr_0.009": {"training.lr": 0.009},
    }
    assert found.claim == (
        "At equal training FLOPs, which training.lr gives gpt2 tiny the lowest loss: 0.003 (the baseline), 0.001 or "
        "0.009?"
    )
    assert (found.baseline, found.tuned, found.name) == ("lr_0.003", False, "lr_0.003_and_2_others")
    assert "    lr_0.003: {training.lr: 0.003}\n" in draft_of(found, GPT2).text()
    one = contest(GPT2, "training.lr=1e-2")
    assert one.claim.endswith("the lowest loss: 0.003 (the baseline) or 0.01?")


def test_the_models_own_learning_rate_among_the_values_is_the_baseline_and_no_second_arm() -> None:
    found = contest(GPT2, "training.lr=1e-3,3e-3,1e-2")
    assert list(found.arms) == ["lr_3e-3", "lr_1e-3", "lr_1e-2"]
    assert found.baseline == "lr_3e-3"


@pytest.mark.parametrize(
    ("against", "problem"),
    [
        (GPT2, "is the model to start from"),
        (BERT, "they predict different things"),
        ("classical", "is how the model is trained to start with"),
        ("depth_tim", "did you mean 'depth_time'"),
        ("training.lt=1", "did you mean 'training.lr'"),
        ("training.lr=", "has no value"),
        ("training.lr=3e-3", "is the learning rate that the model has to start with; name another value"),
        ("model=decoder/bk_family/tiny,decoder/llama_family/tiny", "names 2 presets"),
    ],
)
def test_a_comparison_that_cannot_be_says_why(against: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        contest(GPT2, against)


def test_a_short_time_is_spent_on_fewer_seeds_and_no_tuning() -> None:
    found = contest(GPT2, "decoder/llama_family/tiny")
    assert "seeds: 3" in draft_of(found, GPT2, 299.0).text()
    assert "tune: null" in draft_of(found, GPT2, 299.0).text()
    assert "seeds: 5" in draft_of(found, GPT2, 300.0).text()
    assert "log_uniform: [0.001, 0.009]" in draft_of(found, GPT2, 300.0).text()
    limits = [yaml.safe_load(draft_of(found, GPT2, seconds).text())["limits"] for seconds in (60.0, 450.0, 3600.0)]
    assert [limit["wall_hours"] for limit in limits] == [0.25, 0.25, 2.0], "twice the time, and no less than 15 minutes"
    assert "tune: null # the arms are learning rates" in draft_of(contest(GPT2, "lr"), GPT2, 300.0).text()


def test_what_is_measured_is_what_the_arms_train() -> None:
    found = contest(GPT2, "decoder/llama_family/tiny")
    draft = draft_of(found, GPT2, data="text_files", path="my.txt")
    batch = "training.batch_tokens=1024"
    assert measured_trials(draft, list(found.arms)) == [
        f"model={GPT2} data=python_stdlib {batch}",
        f"model=decoder/llama_family/tiny data=python_stdlib {batch}",
    ]
    of_markov = draft_of(contest(GPT2, "training.batch_tokens=2048"), GPT2)
    assert measured_trials(of_markov, ["batch_tokens_2048"]) == [f"model={GPT2} data=markov training.batch_tokens=2048"]


@pytest.mark.parametrize("values", ["abc", "null", "nan", "true", "1e-3,'2e-3'", "[1e-3]"])
def test_rates_that_are_no_numbers_are_refused(values: str) -> None:
    with pytest.raises(ConfigError, match="it must be numbers, like 1e-3,3e-3"):
        contest(GPT2, f"training.lr={values}")
