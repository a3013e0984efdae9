"""What is paired with what: missing blocks, doubled runs, mixed runs, unequal budgets, mistakes in the question."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from synthetic_sweeps import final_metrics, table

from analysis import AnalysisError, aggregate, compare, compare_sequentially, load_runs
from analysis.scaling.law_table import read_law_runs
from analysis.table.selection import rename_columns


def test_a_missing_block_is_listed_with_its_reason_and_the_verdict_is_conditional():
    runs = table({"a": [2.0, 2.1, 2.2], "b": [1.8, None, 2.01]})
    runs.attrs["exclusions"] = [{"arm": "b", "seed": 1, "by": "status", "why": "failed: loss is NaN at step 31"}]
    comparison = compare(runs, "loss", baseline="a", equal=None)
    assert [(item.arm, item.block, item.reason) for item in comparison.missing] == [
        ("b", "1", "failed: loss is NaN at step 31")
    ]
    assert comparison["b"].n == 2
    assert any("conditional on survival" in note for note in comparison["b"].notes)
    assert any("loss is NaN at step 31" in line for line in comparison.remarks())


def test_an_arm_that_failed_everywhere_stays_in_the_table_and_in_the_family():
    runs = table({"a": [2.0, 2.1, 2.2], "b": [1.8, 1.905, 2.01]})
    runs.attrs["exclusions"] = [
        {"arm": "c", "seed": seed, "by": "status", "why": "failed: out of memory"} for seed in range(3)
    ]
    comparison = compare(runs, "loss", baseline="a", equal=None)
    assert comparison.verdicts == {"b": "better", "c": "undecided"}
    assert comparison["c"].n == 0
    assert comparison["b"].p_adjusted == pytest.approx(2 * comparison["b"].p)


def test_a_loss_that_is_not_finite_is_a_missing_block_with_that_reason():
    runs = table({"a": [2.0, 2.1, 2.2], "b": [1.8, float("nan"), float("inf")]})
    comparison = compare(runs, "loss", baseline="a", equal=None)
    assert [(item.block, item.reason) for item in comparison.missing] == [("1", "loss is nan"), ("2", "loss is inf")]
    assert comparison["b"].n == 1


def test_rows_that_did_not_finish_or_are_no_replicates_are_left_out_with_a_note():
    runs = table({"a": [2.0, 2.1, 2.2], "b": [1.8, 1.9, 2.01]})
    runs["status"] = ["finished"] * 5 + ["failed"]
    runs["reason"] = [None] * 5 + ["out of memory"]
    runs["role"] = "replicate"
    tuning = runs.iloc[[0]].assign(seed=99, role="tuning", loss=9.0)
    comparison = compare(pd.concat([runs, tuning], ignore_index=True), "loss", baseline="a", equal=None)
    assert comparison["b"].n == 2
    assert comparison.missing[0].reason == "status failed: out of memory"
    assert comparison.notes[:2] == ("1 run left out: role tuning", "1 run left out: status failed")


def test_exact_copies_of_a_run_are_dropped_with_a_note_and_differing_ones_refused():
    runs = table({"a": [2.0, 2.1], "b": [1.8, 1.9]})
    copied = compare(pd.concat([runs, runs.iloc[[3]]], ignore_index=True), "loss", baseline="a", equal=None)
    assert copied["b"].n == 2
    assert "1 exact copies of a run left out: b in block 1" in copied.notes
    with pytest.raises(AnalysisError, match=r"arm 'b' has 2 different runs in block 1 \(loss = 1.9, 7\)"):
        compare(pd.concat([runs, runs.iloc[[3]].assign(loss=7.0)], ignore_index=True), "loss", baseline="a", equal=None)
    same_loss = pd.concat([runs.assign(lr=0.1), runs.iloc[[3]].assign(lr=0.2)], ignore_index=True)
    with pytest.raises(AnalysisError, match="arm 'b' has 2 different runs in block 1"):  # another run, the same loss
        compare(same_loss, "loss", baseline="a", equal=None)


def test_several_block_columns_pair_seed_and_item():
    runs = pd.DataFrame(
        [
            {
                "arm": arm,
                "seed": seed,
                "item": item,
                "loss": 1.0 + 0.1 * seed + item + (arm == "b") * (0.3 + 0.01 * item * seed),
            }
            for arm in "ab"
            for seed in range(2)
            for item in range(3)
        ]
    )
    result = compare(runs, "loss", baseline="a", block=["seed", "item"], equal=None)["b"]
    assert result.n == 6
    assert result.blocks[0] == "0 × 0"
    with pytest.raises(AnalysisError, match="3 different runs in block 0"):
        compare(runs, "loss", baseline="a", equal=None)


def test_mixed_data_fingerprints_are_refused_and_mixed_machines_are_stated():
    runs = table({"a": [2.0, 2.1, 2.2], "b": [1.8, 1.9, 2.01]})
    with pytest.raises(AnalysisError, match=r"different data: fingerprints x \(a\), y \(b\)"):
        compare(runs.assign(data_fingerprint=["x"] * 3 + ["y"] * 3), "loss", baseline="a", equal=None)
    mixed = runs.assign(
        data_fingerprint="x", device=["cpu"] * 3 + ["cuda"] * 3, backend="torch", torch=["2.12", "2.13"] * 3
    )
    notes = compare(mixed, "loss", baseline="a", equal=None).notes
    assert "mixed devices: cpu (a); cuda (b)" in notes
    assert any(note.startswith("mixed versions of torch") for note in notes)
    assert not any("backends" in note for note in notes)


def test_devices_drivers_and_shares_that_differ_are_stated_and_shared_gpus_where_speed_counts():
    runs = table({"a": [2.0, 2.1, 2.2], "b": [1.8, 1.9, 2.01]}).assign(
        device="NVIDIA T4", cuda=["12.8"] * 3 + ["13.0"] * 3, driver=["570.1"] * 3 + ["580.65"] * 3
    )
    runs["gpu_share"] = [1.0] * 3 + [0.5] * 3
    runs["computes_slowly"] = [None] * 3 + ["bf16"] * 3
    runs["throughput/tokens_per_s"] = [100.0, 101.0, 102.0, 50.0, 51.0, 53.0]
    runs["wall_seconds"] = 60.0
    runs["gpus"] = [1] * 3 + [2] * 3
    runs["device_memory_bytes"] = [16e9] * 3 + [80e9] * 3
    mixed = {
        "mixed numbers of GPUs: 1 (a); 2 (b)",
        "mixed amounts of device memory: 16000000000.0 (a); 80000000000.0 (b)",
        "mixed versions of CUDA: 12.8 (a); 13.0 (b)",
        "mixed drivers: 570.1 (a); 580.65 (b)",
        "mixed shares of a GPU: 0.5 (b); 1.0 (a)",
    }
    slow = {
        "asked for a share of a GPU, so that the speed depends on what ran beside: b",
        "ran on a GPU that computes bf16 slowly: b",
    }
    losses = set(compare(runs, "loss", baseline="a", equal=None).notes)
    assert mixed <= losses
    assert not slow & losses
    assert mixed | slow <= set(compare(runs, "throughput/tokens_per_s", baseline="a", equal=None).notes)
    assert slow <= set(compare(runs, "loss", baseline="a", equal="wall_seconds").notes)


def test_a_strangers_columns_of_these_names_are_no_versions():
    runs = table({"a": [2.0, 2.1, 2.2], "b": [1.8, 1.9, 2.01]}).assign(
        cuda=[True] * 3 + [False] * 3, driver=["ann"] * 3 + ["bob"] * 3
    )
    notes = compare(runs, "loss", baseline="a", equal=None).notes
    assert not any("CUDA" in note or "driver" in note for note in notes)
    renamed = runs.assign(version=runs["arm"])
    notes = compare(renamed, "loss", baseline="a", arm="version", equal=None).notes
    assert not any("mixed versions" in note for note in notes)  # the arms, and no version of ours


@pytest.mark.parametrize("shares", [["half", None, "50%"] * 2, [None] * 6, [None, None, None, "1", "1", "1"]])
def test_a_strangers_shares_and_runs_from_before_them_stop_no_comparison_of_speed(shares):
    runs = table({"a": [2.0, 2.1, 2.2], "b": [1.8, 1.9, 2.01]}).assign(gpu_share=shares, computes_slowly=None)
    runs["throughput/tokens_per_s"] = [100.0, 101.0, 102.0, 50.0, 51.0, 53.0]
    notes = compare(runs, "throughput/tokens_per_s", baseline="a", equal=None).notes
    assert not any("share of a GPU, so" in note or "slowly" in note for note in notes)


def test_budgets_that_differ_are_refused_with_the_worst_pair_and_within_tolerance_they_pass():
    runs = table({"a": [2.0, 2.1, 2.2], "b": [1.8, 1.9, 2.01]}, flops=[1e12, 1e12, 1e12, 1.005e12, 0.995e12, 1e12])
    assert compare(runs, "loss", baseline="a").budgets == "flops"
    runs.loc[5, "flops"] = 1.1e12
    with pytest.raises(AnalysisError, match=r"flops differ by more than 1%.*b in block 2, 1.1e\+12 against 1e\+12"):
        compare(runs, "loss", baseline="a")
    assert compare(runs, "loss", baseline="a", tolerance=0.11).budgets == "flops"
    assert "budgets not required to be equal" in compare(runs, "loss", baseline="a", equal=None).notes


def test_what_a_checkpoint_cost_counts_where_it_was_charged_and_is_noted_where_it_was_not():
    charged = {"init/flops": [None] * 3 + [4e11] * 3, "init/charged": [None] * 3 + [1.0] * 3}
    runs = table({"a": [2.0, 2.1, 2.2], "b": [1.8, 1.9, 2.01]}, flops=[1e12] * 3 + [6e11] * 3).assign(**charged)
    comparison = compare(runs, "loss", baseline="a")
    assert comparison.budgets == "flops"
    assert not any("not charged" in note for note in comparison.notes)
    free = runs.assign(**{"flops": [1e12] * 6, "init/charged": [None] * 3 + [0.0] * 3})
    comparison = compare(free, "loss", baseline="a")
    assert comparison.budgets == "flops"
    assert "the cost of the initial weights is not charged: b" in comparison.notes
    with pytest.raises(AnalysisError, match="flops differ by more than"):
        compare(runs.assign(flops=[1e12] * 6), "loss", baseline="a")


def test_budgets_that_nobody_recorded_are_stated():
    runs = table({"a": [2.0, 2.1, 2.2], "b": [1.8, 1.9, 2.01]})
    comparison = compare(runs, "loss", baseline="a")
    assert comparison.budgets is None
    assert any("budgets not recorded" in note for note in comparison.notes)
    partly = runs.assign(flops=[1e12] * 5 + [None])
    (note,) = (note for note in compare(partly, "loss", baseline="a").notes if "budgets" in note)
    assert note == (
        "budgets not recorded (flops) in 1 of the 3 pairs: not checked there; equal within 1% in the others"
    )
    memory = runs.assign(**{"memory/peak_bytes": 5.0e7})
    assert compare(memory, "loss", baseline="a", equal="peak_bytes").budgets == "peak_bytes"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"metric": "los"}, "metric = 'los' is not a column.*did you mean 'loss'"),
        ({"arm": "model"}, "arm = 'model' is not a column"),
        ({"block": "sed"}, "block = 'sed' is not a column.*did you mean 'seed'"),
        ({"baseline": "aa"}, "baseline = 'aa' is not an arm"),
        ({"correction": "holmes"}, "correction = 'holmes'.*did you mean 'holm'"),
        ({"direction": "up"}, "direction = 'up'"),
        ({"test": "z"}, "test = 'z'"),
        ({"margin": -1.0}, "margin = -1"),
        ({"alpha": 0.7}, "alpha = 0.7"),
        ({"equal": "flop"}, "equal = 'flop' is not a budget; did you mean 'flops'"),
        ({"tolerance": 2.0}, "tolerance = 2"),
    ],
)
def test_a_mistake_in_the_question_is_refused_with_value_and_fix(options, words):
    runs = table({"a": [2.0, 2.1], "b": [1.8, 1.9]}, flops=1e12)
    with pytest.raises(AnalysisError, match=words):
        compare(runs, **{"metric": "loss", "baseline": "a", **options})


@pytest.mark.parametrize("column", ["arm", "seed"])
def test_a_run_of_no_arm_or_no_block_is_no_arm_and_no_block_of_its_own(column):
    runs = table({"a": [2.0, 2.1, 2.2], "b": [1.8, 1.9, 2.05]})
    lost = runs.assign(**{column: runs[column].where(runs.index != 4)})
    for judge in (compare, compare_sequentially):
        with pytest.raises(AnalysisError, match=f"column '{column}' is empty in 1 of 6 runs \\(first: row 4\\)"):
            judge(lost, "loss", baseline="a")


def test_budgets_that_are_not_finite_are_not_called_equal():
    runs = table({"a": [2.0, 2.1, 2.2], "b": [1.8, 1.9, 2.05]}, flops=math.inf)
    comparison = compare(runs, "loss", baseline="a")
    assert any(note.endswith("in 3 of the 3 pairs: not checked there") for note in comparison.notes)
    assert comparison.budgets is None


@pytest.mark.parametrize("known", [0, 2])
def test_budgets_are_called_equal_only_where_every_pair_was_checked(known):
    """An arm without FLOPs on record, and one with some."""
    runs = table({"a": [2.0, 2.1, 2.2], "b": [1.8, 1.9, 2.05]}, flops=[1e12] * (3 + known) + [None] * (3 - known))
    comparison = compare(runs, "loss", baseline="a")
    assert "budgets not checked" in comparison.sentence
    assert not any("every pair" in line for line in comparison.remarks())
    sequential = compare_sequentially(runs, "loss", baseline="a")
    assert not any(line.startswith("equal") for line, _ in sequential.remarks_of_arms())


def test_text_among_the_numbers_and_a_lonely_arm_are_refused():
    runs = table({"a": [2.0, 2.1], "b": [1.8, 1.9]})
    with pytest.raises(AnalysisError, match="holds text where a number should be: 'diverged'"):
        compare(runs.assign(loss=[2.0, 2.1, 1.8, "diverged"]), "loss", baseline="a", equal=None)
    with pytest.raises(AnalysisError, match="only one arm, 'a'"):
        compare(runs[runs["arm"] == "a"], "loss", baseline="a", equal=None)


ENCODER = {"role": "encoder", "n_layers": 4}
CLASSICAL = {"regime": "classical", "mask_ratio": 0.15}
GROWN = {"regime": "depth_time", "noise": {"kind": "point"}, "time": "depth", "blocks_per_stack": 1, "finish": 0.0}


def masked_sweep(journal, **regimes):
    """Encoders on three seeds, an arm a regime, with the loss on their own masks and that on common ones."""
    for arm, training in regimes.items():
        for seed in range(3):
            metrics = final_metrics(1.0 + 0.1 * seed**2) | {"validation/masked_loss": 2.0 + 0.1 * seed}
            training = {"budget": {"flops": 1e12}, **training}
            journal.trial(arm, seed, metrics, config={"model": ENCODER, "training": training})
    return journal.close()


@pytest.mark.parametrize("metric", ["loss", "validation/loss", "train/loss"])
def test_losses_on_other_masks_are_refused_with_the_one_that_can_be_compared(journal, metric):
    runs = load_runs(masked_sweep(journal, classical=CLASSICAL, grown=GROWN))
    message = r"masks of depth_time.*\(grown\); masks on 0.15 of the positions \(classical\).*validation/masked_loss"
    for judge in (compare, compare_sequentially):
        with pytest.raises(AnalysisError, match=message):
            judge(runs, metric, baseline="classical")
        judge(runs, "validation/masked_loss", baseline="classical")
    with pytest.raises(AnalysisError, match="masks of depth_time"):
        aggregate(runs.assign(task="t"), metric)


def test_losses_on_the_same_masks_are_compared_and_masked_tokens_never_with_next_ones(journal):
    other = {**CLASSICAL, "lr": 1e-4}
    causal = {"regime": "classical", "mask_ratio": 0.15}
    for seed in range(3):
        config = {"model": {"role": "decoder"}, "training": {"budget": {"flops": 1e12}, **causal}}
        journal.trial("causal", seed, final_metrics(1.0), config=config)
    runs = load_runs(masked_sweep(journal, classical=CLASSICAL, slower=other))
    with pytest.raises(AnalysisError, match=r"next tokens \(causal\); so keep the arms of one"):
        compare(runs, "loss", baseline="classical")
    both = runs[runs["arm"] != "causal"]
    assert set(compare(both, "loss", baseline="classical").verdicts) == {"slower"}


def test_of_a_foreign_table_no_kind_of_loss_is_known_and_none_is_claimed(tmp_path):
    path = tmp_path / "runs.csv"
    table({"classical": [1.0, 1.1, 1.3], "grown": [1.1, 1.3, 1.2]}).to_csv(path)
    runs = load_runs(path)
    assert "loss_kind" not in runs.columns
    assert set(compare(runs, "loss", baseline="classical").verdicts) == {"grown"}


def test_a_law_of_encoders_is_fitted_to_the_loss_on_common_masks_where_their_own_differ(journal):
    runs = load_runs(masked_sweep(journal, classical=CLASSICAL, grown=GROWN))
    with pytest.raises(AnalysisError, match=r"mixed kinds of loss in column 'loss_kind': masks on 0\.15"):
        read_law_runs(runs, ["flops"])
    common = rename_columns(runs, {"loss": "validation/masked_loss"})
    assert read_law_runs(common, ["flops"]).loss.max() == pytest.approx(2.2)


def test_a_column_that_nobody_named_is_asked_for_by_its_option_and_not_by_a_name_that_looks_like_it():
    runs = table({"a": [2.0, 2.1], "b": [1.8, 1.9]}).rename(columns={"arm": "optimizer", "seed": "Name"})
    with pytest.raises(
        AnalysisError, match=r"^arm = 'arm' is not a column of the table; choose one of .*optimizer.*\(--arm COLUMN\)"
    ):
        compare(runs, "loss", baseline="a")
    with pytest.raises(AnalysisError, match=r"did you mean 'optimizer'\? \(--arm COLUMN\)"):
        compare(runs, "loss", baseline="a", arm="optimiser")
