"""What a sweep's plan says and refuses before anything runs: limits, CPUs, GPUs, and whose speed its times are of."""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from rich.console import Console

import stackwise_ray as sw
from analysis.paired.power import minimum_detectable_effect
from stackwise_ray.config.space.designs import expand
from stackwise_ray.core.calibration_store import Calibration, Sample
from stackwise_ray.core.environment import usable_cores
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.quantities import format_bytes
from stackwise_ray.core.records import TrialRecord
from stackwise_ray.core.untuned_rates import ONE_RATE, OWN_RATES
from stackwise_ray.planning.calibration_key import calibration_key
from stackwise_ray.planning.demand import Demand
from stackwise_ray.planning.plan_display import plan_table
from stackwise_ray.planning.preparation import PreparedCorpora
from stackwise_ray.planning.sweep_plan import SweepPlan
from stackwise_ray.tracking.journal import Journal
from stackwise_ray.training.initial import identify
from stackwise_ray.trials.finished_trials import KnownTrials
from stackwise_ray.trials.proposals import plan_sweep, source_for
from tests.unit.trials.test_trials_proposals import ARMS, SEARCH, TUNE, sweep


@pytest.fixture
def no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without any corpus, without a copy of the hub's files and without a network, wherever the test runs."""
    monkeypatch.setenv("STACKWISE_DATA", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr("stackwise_ray.data.hub_access._answers", lambda endpoint: False)


@pytest.fixture
def own_calibration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calibration:
    """The calibration of a machine that has measured nothing yet: this one has, in other tests."""
    monkeypatch.setenv("STACKWISE_CACHE", str(tmp_path / "cache"))
    return Calibration()


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a GPU, wherever the test runs."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("STACKWISE_GPUS", "0")


def plan(tmp_path: Path, text: str) -> SweepPlan:
    asked = sweep(tmp_path, text)
    return plan_sweep(asked, expand(asked), PreparedCorpora())


def test_a_plan_above_the_limit_of_flops_is_refused(tmp_path: Path) -> None:
    assert plan(tmp_path, ARMS + "limits: {flops: 1e15}\n").trials == 6
    with pytest.raises(ConfigError, match=r"limits.flops.*is below the \S+ training FLOPs planned"):
        plan(tmp_path, ARMS + "limits: {flops: 1e9}\n")


def test_a_plan_refuses_the_grid_that_its_run_would_refuse(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a grid cannot try all of its values; write a list"):
        plan(tmp_path, SEARCH.replace("random", "grid"))


def test_a_plan_of_a_grid_counts_its_points(tmp_path: Path) -> None:
    text = SEARCH.replace("random", "grid").replace("{log_uniform: [1e-4, 1e-1]}", "[1e-3, 1e-2]")
    assert plan(tmp_path, text).row("point-1", "search").trials == 2


def test_a_plan_refuses_a_sampler_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # it is installed for the other tests
    with pytest.raises(ConfigError, match=r'not installed; pip install -e "\.\[cmaes\]"'):
        plan(tmp_path, SEARCH.replace("random", "cmaes"))


def test_a_plan_for_more_cpus_than_this_machine_has_says_where_the_sweep_can_run(tmp_path: Path) -> None:
    asked = sweep(tmp_path, ARMS + "resources: {cpus_per_trial: 512}\n")
    here, there = sw.plan(asked), sw.plan(asked, address="ray://cluster:10001")
    assert here.trials == there.trials == 6
    cores = usable_cores()
    need = f"a trial needs 512 CPUs; this machine has {cores} CPU{'s' if cores > 1 else ''}: run it "
    assert any(note.startswith(f"{need}with --address on a cluster that has them") for note in here.notes)
    assert any(note.startswith(f"{need}on ray://cluster:10001") for note in there.notes)
    with pytest.raises(ConfigError, match=r"resources.*512 CPUs.*this machine has \d+ CPUs"):
        Demand.of(asked.resources).require_this_machine()


def test_a_plan_says_that_a_cluster_may_hold_more_trials_at_a_time_than_this_machine(tmp_path: Path) -> None:
    asked = sweep(tmp_path, ARMS)
    said = [note for note in sw.plan(asked, address="ray://c:1").notes if note.endswith("ray://c:1 may run more")]
    assert len(said) == 1
    assert not [note for note in sw.plan(asked).notes if "may run more" in note]


def test_a_plan_of_more_memory_than_this_machine_has_says_so() -> None:
    total = psutil.virtual_memory().total
    demand = Demand(workers=2)
    assert demand.memory_here([None, total / 4]) is None
    said = demand.memory_here([None, total])
    assert said is not None
    assert said.startswith(f"a trial needs about {format_bytes(2 * total)} of memory; this machine has")


@pytest.mark.usefixtures("no_data")
def test_a_plan_without_its_data_counts_what_the_tokenizer_says_and_the_run_refuses(tmp_path: Path) -> None:
    text = ARMS.replace("data: markov", "data: wikitext103").replace("{training.budget: {steps: 50}}", "%s")
    sizes = {}
    for tokenizer, vocabulary in (
        ("bpe:512", "512 (that of bpe:512)"),
        ("words", "50,257 (as published for the model)"),
    ):
        overrides = f'{{training.budget: {{steps: 50}}, data.tokenizer: "{tokenizer}"}}'
        planned = sw.plan(sweep(tmp_path, text % overrides))
        assert not planned.refused
        assert all(row.params and row.flops and row.steps == 50 for row in planned.rows)
        assert all(row.flops_evaluation is None for row in planned.rows)
        (note,) = (note for note in planned.notes if note.startswith("wikitext103 is not on this machine"))
        assert f"a vocabulary of {vocabulary}" in note
        sizes[tokenizer] = planned.rows[0].params
    assert (sizes["words"] or 0) > (sizes["bpe:512"] or 0)
    with pytest.raises(ConfigError, match="wikitext103: not found"):
        PreparedCorpora().get(expand(sweep(tmp_path, text % overrides)).arms[0].trial.data)


@pytest.mark.usefixtures("no_data")
def test_a_plan_of_a_model_whose_vocabulary_nobody_knows_has_a_table_without_its_counts(tmp_path: Path) -> None:
    text = ARMS.replace("data: markov", "data: wikitext103").replace("gpt2_family", "bk_family")
    planned = sw.plan(sweep(tmp_path, text.replace("steps: 50}", "steps: 50}, data.tokenizer: words")))
    assert (planned.trials, planned.flops, planned.refused) == (6, None, ())
    assert "training FLOPs open (not counted)" in shown(planned)


def shown(planned: SweepPlan, width: int = 200) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(plan_table(planned))
    return console.export_text()


def test_a_plan_has_units_in_its_columns_and_fits_80(tmp_path: Path) -> None:
    text = shown(sw.plan(sweep(tmp_path, ARMS + TUNE)), 80)
    table = text[: text.index("trials, ")]
    for words in ("parameters", "FLOPs/token", "FLOPs/step", "steps", "tokens", "training", "evaluation", "time per"):
        assert words in table
    assert "own" in table
    assert all(len(line) <= 80 for line in text.splitlines())


def test_a_plan_says_that_the_rate_is_untuned_only_where_it_is(tmp_path: Path) -> None:
    def said(text: str) -> list[str]:
        return [note for note in plan(tmp_path, text).notes if note in (ONE_RATE, OWN_RATES)]

    other = ARMS.replace(", own: {training.lr: 1.0e-2, model.d_ff: 64}", "")
    assert said(other) == [ONE_RATE]
    assert said(other + TUNE) == []
    assert said(other + TUNE.replace("training.lr", "optimizer.weight_decay")) == [ONE_RATE]
    assert said(other.replace("{model.d_ff: 128}", "{training.lr: 1.0e-2}")) == [], "the arms are learning rates"
    assert said(SEARCH) == []


def test_a_plan_says_which_difference_its_comparison_can_see_and_how_large_it_is_once_the_noise_was_measured(
    tmp_path: Path,
) -> None:
    asked = sweep(tmp_path, ARMS.replace("[3, 5]", "5"))
    (note,) = (note for note in sw.plan(asked, output=tmp_path).notes if note.startswith("validation/loss"))
    assert note.endswith("not known before two seeds of each arm have run")
    with Journal(made(tmp_path / asked.name) / "journal.sqlite") as journal:
        for number, (arm, seed, loss) in enumerate(
            [("a", 0, 2.0), ("a", 1, 2.1), ("b", 0, 1.9), ("b", 1, 2.04), ("own", 0, 1.0)]
        ):
            identity = f"{number:016d}"
            journal.add_trial(
                TrialRecord(trial_id=identity, number=number, arm=arm, seed=seed, role="replicate", config={})
            )
            attempt = journal.start_attempt(identity)
            journal.finish(identity, attempt, {"validation/loss": loss}, {})
    (note,) = (note for note in sw.plan(asked, output=tmp_path).notes if note.startswith("validation/loss"))
    sd = 0.04 / 2**0.5  # of the differences −0.10 and −0.06
    expected = minimum_detectable_effect(sd, n=5, power=0.8, alpha=0.05 / 2)
    assert f"about {expected:.3f} nats, since 2 differences" in note
    assert note.endswith(f"have a standard deviation of {sd:.3f} nats")


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_plan_tells_the_trials_that_have_ended_from_those_that_are_left(tmp_path: Path) -> None:
    asked = sweep(tmp_path, ARMS + TUNE)
    with Journal(made(tmp_path / asked.name) / "journal.sqlite") as journal:
        source = source_for(asked, expand(asked), journal)
        fingerprint = PreparedCorpora().fingerprint
        ended = 0
        while ended < 7:  # all six tuning trials of a and b, and one replicate
            proposal = source.propose()
            assert proposal is not None
            identity = identify(proposal.trial, fingerprint(proposal.trial.data))
            journal.add_trial(
                TrialRecord(
                    trial_id=identity, number=ended, arm=proposal.arm, seed=proposal.seed, role=proposal.role, config={}
                )
            )
            journal.finish(identity, journal.start_attempt(identity), {"validation/loss": 1.0 + ended}, {})
            record = journal.trial(identity)
            assert record is not None
            source.ended(proposal, record)
            ended += 1
        decided = journal.decisions("tuning")
        planned = sw.plan(asked, output=tmp_path)
        assert journal.decisions("tuning") == decided, "a plan writes nothing"
    assert (planned.trials, planned.done, planned.left.trials) == (12, 7, 5)
    assert (planned.row("a", "tuning").done, planned.row("b", "tuning").done) == (3, 3)
    assert planned.left.known_flops < planned.known_flops
    assert "7 of 12 trials have ended; 5 trials left" in shown(planned)
    assert "3 (3 done)" in shown(planned)
    assert sw.plan(asked, output=tmp_path / "elsewhere").done == 0


def test_a_plan_names_the_time_of_the_start_once_a_sweep_has_measured_it(
    tmp_path: Path, own_calibration: Calibration
) -> None:
    asked = sweep(tmp_path, ARMS)
    assert "comes on top (not measured on this machine yet)" in shown(sw.plan(asked))
    for seconds in (20.0, 25.0, 90.0):
        own_calibration.add_start(seconds)
    assert "comes on top: 25 s, as measured on this machine" in shown(sw.plan(asked))


def test_a_plan_divides_by_as_many_trials_at_once_as_the_command_allows(tmp_path: Path) -> None:
    asked = sweep(tmp_path, ARMS)
    assert sw.plan(asked, max_concurrent=1).slots == 1
    assert Demand.of(asked.resources, 1).max_concurrent == 1
    assert Demand.of(asked.resources).max_concurrent is None


@pytest.mark.usefixtures("no_gpu", "own_calibration")
def test_a_plan_for_gpus_that_are_not_there_says_where_the_sweep_can_run(tmp_path: Path) -> None:
    asked = sweep(tmp_path, ARMS + "resources: {gpus_per_trial: 1}\n")
    planned = sw.plan(asked)
    assert (planned.slots, planned.seconds, bool(planned.flops)) == (1, None, True)
    assert any(
        note.startswith(
            "a trial needs 1 GPU; this machine has 0 GPUs: run it with --address on a cluster that has them"
        )
        for note in planned.notes
    )
    assert {row.device for row in planned.rows} == {"cuda"}
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(plan_table(planned))
    assert "not calibrated for a GPU: run python -m stackwise_ray.doctor on a machine that has one" in (
        console.export_text()
    )


@pytest.mark.usefixtures("no_gpu")
def test_a_plan_names_the_gpu_of_another_machine_whose_speed_it_takes(
    tmp_path: Path, own_calibration: Calibration
) -> None:
    trial = expand(sweep(tmp_path, ARMS)).arms[0].trial
    key = calibration_key(trial, device="NVIDIA H200", threads=1, backend=None)
    own_calibration.add(key, Sample(flops_per_step=1e9, flops_per_s=1e12))
    said = "times on a GPU are those of another machine's NVIDIA H200"
    assert said in sw.plan(sweep(tmp_path, ARMS + "resources: {gpus_per_trial: 1}\n")).notes
    assert said not in sw.plan(sweep(tmp_path, ARMS)).notes


def test_a_plan_divides_by_the_trials_that_the_gpus_hold_and_not_by_cores_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stackwise_ray.planning.demand.usable_cores", lambda: 16)  # wherever the test runs
    monkeypatch.setenv("STACKWISE_GPUS", "1")
    text = ARMS.replace("  overrides: {", "  overrides: {training.device: cpu, ")
    for gpus, slots in (("0", 16), ("1", 1), ("0.5", 2)):
        planned = sw.plan(sweep(tmp_path, text + f"resources: {{gpus_per_trial: {gpus}}}\n"))
        assert planned.slots == slots
        assert {row.device for row in planned.rows} == {"cpu"}, "what trains on the CPU is timed on the CPU"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["training_regimes_gpu", "bert_depth_time_vs_classical_gpu"])
def test_the_full_sizes_are_planned_for_a_cluster_by_a_machine_without_a_gpu(name: str, module_cache: Path) -> None:
    here = ["data=markov", "data.tokenizer=bytes", "model.n_layers=2", "training.budget={tokens: 2e7}"]
    planned = sw.plan(sw.load_sweep(name, overrides=here), address="ray://cluster:10001")
    assert not planned.refused
    assert planned.seconds is None  # no GPU of the cluster was measured here
    assert all(row.flops and row.steps and row.disk_bytes for row in planned.rows)
    arms = [arm.name for arm in expand(sw.load_sweep(name.removesuffix("_gpu"))).arms]
    assert [row.arm for row in planned.rows if row.role == "replicate"] == arms


def test_a_search_whose_every_trial_breaks_the_limit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"limits.flops = 1 is below"):
        plan(tmp_path, SEARCH + "limits: {flops: 1}\n")


def test_a_trial_falls_under_its_own_row_and_a_point_under_the_searchs(tmp_path: Path) -> None:
    arms, search = plan(tmp_path, ARMS + TUNE), plan(tmp_path, SEARCH)
    assert arms.row("b", "tuning").trials == 3
    assert search.row("point-4", "search").trials == 5
    assert search.row("point-4", "replicate").trials == 4
    with pytest.raises(KeyError):
        arms.row("elsewhere", "replicate")


@pytest.mark.usefixtures("no_gpu")
def test_a_plan_for_a_share_of_a_gpu_does_not_take_the_speed_of_a_whole_one(
    tmp_path: Path, own_calibration: Calibration
) -> None:
    whole, share = (sweep(tmp_path, ARMS + f"resources: {{gpus_per_trial: {gpus}}}\n") for gpus in (1, 0.25))
    key = calibration_key(expand(whole).arms[0].trial, device="NVIDIA H200", threads=1, backend=None)
    own_calibration.add(key, Sample(flops_per_step=1e9, flops_per_s=1e12, memory_ratio=1.0))
    assert all(row.seconds is not None and row.peak_bytes is not None for row in sw.plan(whole).rows)
    assert all(row.seconds is None and row.peak_bytes is None for row in sw.plan(share).rows)


def test_a_plan_beside_a_damaged_journal_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(b"this is no database of SQLite" * 200)
    with pytest.raises(ConfigError, match="it may be damaged: restore it from a copy, or choose another --output"):
        KnownTrials.read(tmp_path)


def test_a_plan_of_a_search_names_its_rows_once_and_says_of_which_point_its_costs_are(tmp_path: Path) -> None:
    planned = plan(tmp_path, SEARCH)
    assert [row.name for row in planned.rows] == ["search", "winners"]
    said = (
        "search and winners: planned for one point, the middle of every range in search.space, and the middle value of "
        "every list; other points may cost more or less"
    )
    assert planned.notes.count(said) == 1
    (alone,) = plan(tmp_path, SEARCH.replace("winners: 2", "winners: 0")).rows
    assert alone.name == "search"


def test_the_plan_of_a_search_prints_nothing_of_optuna(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(SEARCH.replace("random", "tpe"))
    command = [sys.executable, "-W", "always", "-m", "stackwise_ray.sweep", str(file), "--plan"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "xperimental" not in done.stdout + done.stderr
    assert "optuna" not in done.stdout + done.stderr
    assert "9 trials" in done.stdout


def test_a_metric_of_the_test_split_is_refused_where_a_text_has_none(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "train.txt").write_text("a word and another\n" * 999)
    (tmp_path / "text" / "val.txt").write_text("a word or two\n" * 99)
    named = f"data: text_files\n  overrides: {{data.path: {tmp_path / 'text'}, data.seq_len: 32, "
    text = ARMS.replace("data: markov\n  overrides: {", named)
    assert text != ARMS
    said = plan(tmp_path, text + "objective: [{metric: validation/loss}]\n").notes
    assert f"{tmp_path / 'text'}: there is no test split, and nothing measures it" in said
    with pytest.raises(ConfigError, match=r"= test/loss is not reported by the arm \w+: its text has no test split"):
        plan(tmp_path, text + "objective: [{metric: test/loss}]\n")
