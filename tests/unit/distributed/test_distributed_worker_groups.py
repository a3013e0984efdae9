"""Which placement groups are given back and which are waited for, by tables as Ray's control service has them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray._raylet import ActorID
from ray.core.generated.gcs_pb2 import (  # type: ignore[attr-defined]  # made by protoc, without types
    ActorTableData,
    PlacementGroupTableData,
)

from stackwise_ray.distributed import worker_groups

JOB, OTHER_JOB = b"\1\0\0\0", b"\2\0\0\0"
ACTOR, OTHER_ACTOR, NOBODY = b"a" * 16, b"b" * 16, ActorID.nil().binary()
ME = b"m" * 28
CREATED, PENDING, REMOVED = (getattr(PlacementGroupTableData, name) for name in ("CREATED", "PENDING", "REMOVED"))


def group(name: str, state: int = CREATED, *, actor: bytes = ACTOR, dead: bool = False, job: bytes = JOB) -> bytes:
    table = PlacementGroupTableData(placement_group_id=name.encode() * 18, state=state, creator_job_id=job)
    table.creator_actor_id, table.creator_actor_dead = actor, dead
    text: bytes = table.SerializeToString()
    return text


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The table of groups, to be filled; `ACTOR` is of this process, `OTHER_ACTOR` of another one.

    The tables stand in for those of Ray's control service, in its own format: which of a dozen states a group is in
    cannot be brought about at will. `test_integration_logical_gpus` asks the real service.
    """
    table: list[bytes] = []
    actors = []
    for actor, owner in ((ACTOR, ME), (OTHER_ACTOR, b"o" * 28)):
        actors.append(ActorTableData(actor_id=actor))
        actors[-1].owner_address.worker_id = owner
    tables = SimpleNamespace(
        get_placement_group_table=lambda: table,
        get_actor_table=lambda job, state: [actor.SerializeToString() for actor in actors],
    )
    context = SimpleNamespace(get_job_id=JOB.hex, get_worker_id=ME.hex)
    monkeypatch.setattr(worker_groups, "state", SimpleNamespace(_connect_and_get_accessor=lambda: tables))
    monkeypatch.setattr("ray.get_runtime_context", lambda: context)
    return table


def test_only_groups_of_dead_actors_of_this_sweep_are_given_back(
    groups: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[Any] = []  # in place of the service, which knows none of these groups
    monkeypatch.setattr(worker_groups, "remove_placement_group", lambda group: removed.append(group.id.binary()[:1]))
    groups += [
        group("h", dead=True),
        group("w", PENDING, dead=True),
        group("r", REMOVED, dead=True),
        group("l"),
        group("d", actor=NOBODY, dead=True),
        group("j", dead=True, job=OTHER_JOB),
    ]
    assert worker_groups.remove_stranded_groups() == 2
    assert removed == [b"h", b"w"]


@pytest.mark.parametrize(
    ("asked", "waits"),
    [
        (group("x", PENDING), True),
        (group("x"), False),
        (group("x", REMOVED), False),
        (group("x", PENDING, actor=OTHER_ACTOR), False),
        (group("x", PENDING, job=OTHER_JOB), False),
    ],
)
def test_a_trial_waits_while_a_group_of_its_own_is_not_there(groups: list[bytes], asked: bytes, waits: bool) -> None:
    groups.append(asked)
    assert worker_groups.waits_for_resources() is waits
