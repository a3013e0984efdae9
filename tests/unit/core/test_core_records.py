"""The row of a trial in the one table."""

from __future__ import annotations

from stackwise_ray.core.records import MACHINE_COLUMNS, TABLE_COLUMNS, TrialRecord, table_row


def test_what_a_trials_machine_was_stands_in_its_row_and_what_is_unknown_is_absent() -> None:
    facts = {name: f"its {name}" for name in MACHINE_COLUMNS if name != "driver"}
    found = table_row(
        TrialRecord(trial_id="t", number=0, arm="a", seed=0, role="replicate", config={}, environment=facts)
    )
    assert {name: found[name] for name in facts} == facts
    assert "driver" not in found
    assert set(MACHINE_COLUMNS) < set(TABLE_COLUMNS)
