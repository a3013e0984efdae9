"""The placement groups of trials with several workers: those that wait for resources, and those without an owner.

Called by `distributed.workers` while a trial's workers start. Ray Train reserves the resources of all workers in one
group. If a start fails after the reservation, it does not free the group. Ray itself keeps a group until the whole job
has ended, even if the actor that asked for it is dead. So a trial that waits looks for such groups. Ray's public tables
do not name the creator of a group, so this module reads the raw ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ray
from ray._private.state import state
from ray._raylet import ActorID, PlacementGroupID
from ray.core.generated.gcs_pb2 import (  # type: ignore[attr-defined]  # made by protoc, without types
    ActorTableData,
    PlacementGroupTableData,
)
from ray.util.placement_group import PlacementGroup, remove_placement_group

_REMOVED, _CREATED = PlacementGroupTableData.REMOVED, PlacementGroupTableData.CREATED
_NOBODY: bytes = ActorID.nil().binary()


def remove_stranded_groups() -> int:
    """Remove the placement groups of dead actors of this sweep, and return their number.

    Groups that the driver made (Ray Tune makes one per trial) have no actor. Ray calls this dead, too, but they stay.
    """
    stranded = [group for group in _groups() if group.creator_actor_dead and group.creator_actor_id != _NOBODY]
    for group in stranded:
        remove_placement_group(PlacementGroup(PlacementGroupID(group.placement_group_id)))
    return len(stranded)


def waits_for_resources() -> bool:
    """Whether a group that an actor of this process has asked for is not there yet."""
    me = bytes.fromhex(ray.get_runtime_context().get_worker_id())
    actors = map(ActorTableData.FromString, state._connect_and_get_accessor().get_actor_table(None, "ALIVE"))
    mine = {actor.actor_id for actor in actors if actor.owner_address.worker_id == me}
    return any(group.state != _CREATED and group.creator_actor_id in mine for group in _groups())


def _groups() -> Iterator[Any]:
    """The groups of this job that are not removed."""
    job = bytes.fromhex(ray.get_runtime_context().get_job_id())
    for text in state._connect_and_get_accessor().get_placement_group_table():
        group = PlacementGroupTableData.FromString(text)
        if group.state != _REMOVED and group.creator_job_id == job:
            yield group
