"""What a search-space file may compare: losses on the same masks, models that its workers can hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from stackwise_ray.config.identity import plan_hash
from stackwise_ray.config.loading import load_sweep, load_trial
from stackwise_ray.config.space.designs import expand
from stackwise_ray.config.trial.editing import to_plain
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.records import NEXT_TOKENS, loss_kind

MASKED = """
name: m
base: {model: encoder/bert_family/tiny, data: markov, overrides: {training.budget: {steps: 8}}}
design:
  kind: arms
  arms: {classical: {}, grown: {training: depth_time}, wide: {model.d_ff: 600}}
  baseline: classical
replicates: {seeds: 2}
analysis:
  - compare: {metric: %s, baseline: classical, equal: null}
"""


def test_encoders_with_other_masks_are_not_compared_by_the_loss_on_their_own(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(MASKED % "validation/loss")
    with pytest.raises(
        ConfigError, match=r"validation/loss cannot be compared between classical and grown: .* masks; c"
    ):
        load_sweep(file)
    file.write_text(MASKED % "validation/masked_loss")
    assert len(expand(load_sweep(file)).arms) == 3
    file.write_text((MASKED % "validation/loss").replace("{training: depth_time}", "{training.lr: 1.0e-4}"))
    assert len(expand(load_sweep(file)).arms) == 3


@pytest.mark.parametrize(
    ("both", "other"),
    [
        ("training: append", "training.time: input"),
        ("training: hybrid, training.init_from: x", "training.hybrid: band"),
    ],
)
def test_what_draws_the_masks_is_not_compared_by_the_loss_on_them(both: str, other: str, tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    text = (MASKED % "validation/loss").replace("wide: {model.d_ff: 600}", f"wide: {{{both}, {other}}}")
    slower = f"{both}, training.lr: 1.0e-4"
    file.write_text(text.replace("classical: {}", f"classical: {{{both}}}").replace("training: depth_time", slower))
    with pytest.raises(
        ConfigError, match=r"validation/loss cannot be compared between classical and wide: .* masks; comp"
    ):
        load_sweep(file)


@pytest.mark.parametrize(
    ("model", "metric", "message"),
    [
        (
            "encoder/bert_family/tiny",
            "validation/perplexity",
            "classical: it predicts masked tokens, and this metric is about next tokens",
        ),
        ("encoder/bert_family/tiny", "test/perplexity_word", "classical: it predicts masked tokens"),
        ("decoder/gpt2_family/tiny", "validation/masked_loss_15", "classical: it predicts next tokens"),
        (
            "decoder/gpt2_family/tiny, overrides: {data.final_evaluation: fixed}",
            "test/loss",
            "classical: it has data.final_evaluation = fixed",
        ),
        (
            "decoder/gpt2_family/tiny",
            "validation/answer_accuracy",
            "classical: it has data.corpus = markov, a text without questions",
        ),
        (
            "decoder/gpt2_family/tiny, overrides: {data.corpus: python_stdlib, data.markov: null}",
            "validation/oracle_loss",
            "classical: it has data.corpus = python_stdlib, a text with no known entropy",
        ),
    ],
)
def test_a_metric_that_no_arm_would_report_is_refused_before_anything_runs(
    model: str, metric: str, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "m.yaml"
    arms = "design: {kind: arms, arms: {classical: {}, wide: {model.d_ff: 600}}, baseline: classical}\n"
    base = "name: m\nbase: {model: MODEL, data: markov}\n".replace("MODEL", model)
    file.write_text(f"{base}{arms}analysis: [{{compare: {{metric: {metric}}}}}]\n")
    with pytest.raises(
        ConfigError, match=rf"analysis\.0\.compare\.metric = {metric} is not reported by the arm {message}"
    ):
        load_sweep(file)
    file.write_text(f"{base}{arms}objective: [{{metric: {metric}}}]\n")
    with pytest.raises(ConfigError, match=rf"objective\.0\.metric = {metric} is not reported by the arm {message}"):
        load_sweep(file)


SEARCH = """
name: m
base: {data: markov, model: encoder/bert_family/tiny, overrides: {training.budget: {steps: 4}}}
design: {kind: search}
search: {sampler: random, trials: 4, space: {training.lr: {log_uniform: [0.001, 0.01]}, %s}}
objective: [{metric: %s}]
"""
GROWN = "training.regime: [depth_time]"
OWN_TO_EACH = "cannot choose among the points of search.space"


@pytest.mark.parametrize(
    ("factor", "metric", "why"),
    [
        ("model: [encoder/bert_family/tiny]", "validation/perplexity", "one of them predicts masked tokens"),
        ("model: [decoder/gpt2_family/tiny, encoder/bert_family/tiny]", "validation/perplexity", "masked tokens"),
        ("model: [encoder/bert_family/tiny, decoder/gpt2_family/tiny]", "validation/masked_loss", "next tokens"),
        ("model: [encoder/bert_family/tiny, decoder/gpt2_family/tiny]", "validation/loss", "models by themselves"),
        (
            "model: [decoder/gpt2_family/tiny, encoder/bert_family/tiny, decoder/llama_family/tiny]",
            "validation/loss",
            OWN_TO_EACH,
        ),
        ("training.mask_ratio: {uniform: [0.1, 0.4]}", "validation/loss", f"{OWN_TO_EACH}.*validation/masked_loss"),
        (f"{GROWN}, model.n_layers: [4, 8], training.blocks_per_stack: [1, 2]", "validation/loss", OWN_TO_EACH),
        (
            f"{GROWN}, model.n_layers: {{int: [4, 8]}}, training.blocks_per_stack: {{int: [1, 2]}}",
            "validation/loss",
            OWN_TO_EACH,
        ),
        (
            "model: [decoder/gpt2_family/tiny], training.regime: [classical, depth_time], training.decoder_objective: "
            "{choice: [bidirectional, noisy_context], when: {training.regime: depth_time}}",
            "validation/loss",
            OWN_TO_EACH,
        ),
        (
            "model.d_ff: [256, 512], training.mask_ratio: {choice: [0.15, 0.3], when: {model.d_ff: 512}}",
            "validation/loss",
            OWN_TO_EACH,
        ),
        ("data: [markov, python_stdlib]", "validation/loss", f"{OWN_TO_EACH}.*search each text by itself"),
        (f"{GROWN}, training.finish: [0, 0.2]", "validation/masked_loss_without_finish", "has no training.finish"),
    ],
)
def test_a_search_is_refused_where_its_points_answer_other_questions(
    factor: str, metric: str, why: str, tmp_path: Path
) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(SEARCH % (factor, metric))
    with pytest.raises(ConfigError, match=rf"objective\.0\.metric = {metric} .*{why}"):
        load_sweep(file)


@pytest.mark.parametrize(
    ("factor", "metric"),
    [
        ("training.mask_ratio: {uniform: [0.1, 0.4]}", "validation/masked_loss"),
        ("model.d_ff: [256, 512, 600]", "validation/loss"),
        (f"{GROWN}, model.n_layers: [4, 8]", "validation/masked_loss"),
        ("model: [encoder/bert_family/tiny, encoder/modernbert_family/tiny]", "validation/loss"),
    ],
)
def test_a_search_among_answers_to_one_question_is_taken(factor: str, metric: str, tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(SEARCH % (factor, metric))
    load_sweep(file)


def test_points_that_a_constraint_rules_out_are_not_held_against_a_search(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    factors = f"{GROWN}, model.n_layers: [4, 8, 12], training.blocks_per_stack: [1, 2, 3]"
    linked = "require: ['model.n_layers == 4 * training.blocks_per_stack']}\n"  # four stacks at every point
    file.write_text((SEARCH % (factors, "validation/loss")).replace("}}\nobjective", "}, " + linked + "objective"))
    load_sweep(file)


def test_early_stopping_by_a_loss_on_masks_of_their_own_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    factors = f"{GROWN}, training.noise.r_last: {{uniform: [0.1, 0.3]}}"
    text = SEARCH % (factors, "validation/masked_loss")
    file.write_text(f"{text}scheduler: {{kind: asha, metric: validation/loss}}\n")
    with pytest.raises(ConfigError, match=r"scheduler\.metric = validation/loss cannot choose among the points of .*"):
        load_sweep(file)
    file.write_text(f"{text}scheduler: {{kind: asha}}\n")
    load_sweep(file)


def test_an_arm_that_is_not_tuned_is_not_asked_for_what_tuning_goes_by(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text("""
name: m
base: {data: markov, model: encoder/bert_family/tiny, overrides: {training.budget: {steps: 400}}}
design: {kind: arms, arms: {enc: {}, dec: {model: decoder/gpt2_family/tiny, training.lr: 0.001}}}
tune: {space: {training.lr: {log_uniform: [0.0001, 0.01]}}, trials_per_arm: 3}
objective: [{metric: validation/masked_loss}]
""")
    load_sweep(file)


def test_tuning_what_changes_the_question_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    text = """
name: m
base: {data: markov, model: encoder/bert_family/tiny, overrides: {training.budget: {steps: 400}}}
design: {kind: arms, arms: {plain: {}, wide: {model.d_ff: 600}}, baseline: plain}
tune: {space: {training.mask_ratio: {uniform: [0.1, 0.4]}}, trials_per_arm: 3}
objective: [{metric: METRIC}]
"""
    file.write_text(text.replace("METRIC", "validation/loss"))
    with pytest.raises(ConfigError, match=r"validation/loss cannot choose among the points of tune\.space"):
        load_sweep(file)
    file.write_text(text.replace("METRIC", "validation/masked_loss"))
    load_sweep(file)


def test_masked_tokens_and_next_tokens_are_never_in_one_column(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    decoders = (MASKED % "validation/loss").replace("encoder/bert_family", "decoder/gpt2_family")
    file.write_text(decoders)
    expand(load_sweep(file))
    both_sides = "{training: depth_time, training.decoder_objective: bidirectional}"
    file.write_text(decoders.replace("{training: depth_time}", both_sides))
    with pytest.raises(
        ConfigError, match=r"validation/loss cannot be compared between classical and .* masked tokens, the other next"
    ):
        load_sweep(file)


def test_what_is_compared_first_is_the_objective_where_none_is_written(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    text = MASKED % "validation/masked_loss"
    second = "  - compare: {metric: validation/loss, equal: null}\n"

    def objective(text: str) -> tuple[str, str | None]:
        file.write_text(text)
        (goal,) = load_sweep(file).objective
        return goal.metric, goal.direction

    assert objective(text) == ("validation/masked_loss", None)
    assert objective(text.replace("equal: null", "equal: null, direction: maximize")) == (
        "validation/masked_loss",
        "maximize",
    )
    same_masks = text.replace("{training: depth_time}", "{training.lr: 1.0e-4}") + second
    assert objective(same_masks) == ("validation/masked_loss", None)
    written = "objective: [{metric: validation/masked_loss_15}]\n"
    assert objective(text + written) == ("validation/masked_loss_15", None)
    assert objective(text.partition("analysis:")[0]) == ("validation/loss", None)


def test_short_trials_do_not_optimise_what_only_replicates_measure(tmp_path: Path) -> None:
    file = tmp_path / "t.yaml"
    text = (MASKED % "test/perplexity_word").replace("encoder/bert_family", "decoder/gpt2_family")
    file.write_text(text)
    assert load_sweep(file).objective[0].metric == "test/perplexity_word"
    file.write_text(text + "tune: {space: {training.lr: [1.0e-3, 3.0e-3]}}\n")
    assert load_sweep(file).objective[0].metric == "validation/loss"


def test_losses_on_other_masks_are_no_points_of_one_law(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    compared = "compare: {metric: %s, baseline: classical, equal: null}"
    file.write_text(MASKED.replace(compared, "scaling_law: {law: power}"))
    with pytest.raises(
        ConfigError, match=r"scaling_law.*fitted to validation/loss cannot be compared .* different masks"
    ):
        load_sweep(file)


@pytest.mark.parametrize("model", ["encoder/bert_family/tiny", "decoder/gpt2_family/tiny"])
@pytest.mark.parametrize("decoder_objective", ["noisy_context", "bidirectional"])
def test_the_kind_of_a_recorded_loss_is_of_next_tokens_where_no_masks_are_filled(
    model: str, decoder_objective: str
) -> None:
    both_sides = ["training=depth_time", "training.decoder_objective=bidirectional"]
    words = both_sides if decoder_objective == "bidirectional" and model.startswith("decoder") else []
    trial = load_trial([f"model={model}", "data=markov", "training.budget={steps: 8}", *words])
    assert (loss_kind(to_plain(trial)) == NEXT_TOKENS) is not trial.fills_masks


def test_another_number_of_stacks_is_another_kind_of_loss() -> None:
    """Each stack has its own part of the noise, so two stacks and four are asked about other masks."""
    words = ["model=encoder/bert_family/tiny", "data=markov", "training=depth_time", "training.budget={steps: 8}"]
    kinds = [loss_kind(to_plain(load_trial([*words, f"training.blocks_per_stack={n}"]))) for n in (2, 1)]
    assert [kind.rpartition("; ")[2] for kind in kinds if kind] == ["2 stacks", "4 stacks"]


def test_a_model_is_not_shared_out_among_one_worker(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    text = (MASKED % "validation/masked_loss").replace("{training: depth_time}", "{training.parallel: sharded}")
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"resources\.workers = 1, but the arm grown has training\.parallel: sharded"):
        load_sweep(file)
    file.write_text(f"{text}resources: {{workers: 2}}\n")
    assert len(expand(load_sweep(file)).arms) == 3


def test_a_micro_batch_is_fitted_into_memory_for_one_worker(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    text = (MASKED % "validation/masked_loss").replace("{training: depth_time}", "{training.memory_bytes: 10_000_000}")
    file.write_text(f"{text}resources: {{workers: 2}}\n")
    with pytest.raises(ConfigError, match=r"resources\.workers = 2, but the arm grown has training\.memory_bytes"):
        load_sweep(file)
    file.write_text(text)
    assert len(expand(load_sweep(file)).arms) == 3


def test_an_error_names_what_the_file_says_where_it_names_no_objective(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    gpt = MASKED.replace("encoder/bert_family", "decoder/gpt2_family")
    both = (gpt % "validation/loss").replace("equal: null", "equal: null, direction: minimize")
    file.write_text(both + "  - compare: {metric: validation/loss, equal: null, direction: maximize}\n")
    with pytest.raises(ConfigError, match=r"analysis\.1\.compare\.direction = maximize, but analysis\.0\.compare\.dir"):
        load_sweep(file)
    file.write_text(gpt % "wikitext2/perplexity_word")
    with pytest.raises(
        ConfigError, match=r"analysis\.0\.compare\.metric = wikitext2/perplexity_word belongs to the task"
    ):
        load_sweep(file)
    file.write_text((gpt % "validation/loss") + "objective: [{metric: wikitext2/perplexity_word}]\n")
    with pytest.raises(ConfigError, match=r"objective\.0\.metric = wikitext2/perplexity_word belongs to the task"):
        load_sweep(file)
    file.write_text((gpt % "validation/loss") + "objective_from: analysis\n")
    with pytest.raises(ConfigError, match="objective_from: unknown key"):
        load_sweep(file)


def test_a_metric_is_optimised_once(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    goals = "objective: [{metric: validation/masked_loss}, {metric: validation/masked_loss}]\n"
    file.write_text((MASKED % "validation/masked_loss") + goals)
    with pytest.raises(
        ConfigError,
        match=r"objective\.1\.metric = validation/masked_loss is in the list already; name each metric once",
    ):
        load_sweep(file)


@pytest.mark.parametrize("stage", ["tune", "search"])
def test_an_unknown_flag_in_a_space_is_refused_before_anything_runs(tmp_path: Path, stage: str) -> None:
    file = tmp_path / "m.yaml"
    space = "{space: {flags: [[], [early_exit], [early_exti]]}}"
    head = "name: m\nbase: {model: decoder/gpt2_family/tiny, data: markov}\n"
    design = "{kind: search}" if stage == "search" else "{kind: arms, arms: {a: {}}}"
    file.write_text(f"{head}design: {design}\n{stage}: {space}\n")
    with pytest.raises(ConfigError, match=rf"m\.yaml: {stage}\.space\.flags = early_exti .*'early_exit'"):
        load_sweep(file)


def test_a_component_without_options_is_asked_for_as_an_empty_mapping(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    text = "name: m\nbase: {model: decoder/gpt2_family/tiny, data: markov, overrides: {model.components: %s}}\n"
    file.write_text(f"{text % '{early_exit: }'}design: {{kind: arms, arms: {{a: {{}}}}}}\n")
    with pytest.raises(ConfigError, match=r"overrides\.model\.components\.early_exit = null .* early_exit: \{\}"):
        load_sweep(file)


def test_no_equal_budget_is_asked_for_by_none_and_by_null_in_the_file_and_on_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    text = MASKED % "validation/masked_loss"
    sweeps = []
    for written in ("null", "none", "None"):
        file.write_text(text.replace("equal: null", f"equal: {written}"))
        sweeps.append(load_sweep(file))
    file.write_text(text.replace(", equal: null", ""))
    assert expand(load_sweep(file)).questions.comparisons[0].equal == "steps"
    for word in ("null", "none", "None"):
        entry = f"{{compare: {{metric: validation/masked_loss, baseline: classical, equal: {word}}}}}"
        sweeps.append(load_sweep(file, overrides=[f"analysis=[{entry}]"]))
    assert [expand(sweep).questions.comparisons[0].equal for sweep in sweeps] == [None] * 6
    assert len({plan_hash(sweep) for sweep in sweeps}) == 1, "another spelling is no amendment"
