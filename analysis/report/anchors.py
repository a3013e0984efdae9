"""Names of places in a report's page: where a number's link leads. Called by the modules that compose the page."""

from __future__ import annotations

import re

from ..table.sweep_directory import Sweep
from .page import ALL_RUNS


def arm_anchor(sweep: Sweep, arm: str) -> str:
    """Anchor of the table of an arm's runs; of the search's where the sweep is one."""
    return role_anchor("search") if sweep.is_search else f"{ALL_RUNS}-of-{_escaped(arm)}"


def role_anchor(role: str) -> str:
    """Anchor of the table of all tuning or all search trials."""
    return f"{ALL_RUNS}-{role}"


def run_anchor(trial_id: str, arm: str) -> str:
    """Anchor of one run in the table of one arm: a run may stand under two."""
    return f"run-{_escaped(trial_id)}-{_escaped(arm)}"


def _escaped(text: str) -> str:
    """Letters, digits and dots as they are, everything else by its number: different texts stay different.

    >>> _escaped("lr=1e-3 wide")
    'lr_61_1e_45_3_32_wide'
    """
    return re.sub(r"[^0-9A-Za-z.]", lambda found: f"_{ord(found.group())}_", text)
