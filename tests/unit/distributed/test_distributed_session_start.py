"""A Ray that does not start on this machine is one message."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from stackwise_ray.core.errors import RayStartError
from stackwise_ray.distributed import session
from stackwise_ray.planning.demand import Demand
from stackwise_ray.terminal import EXIT_FAILED, exit_codes


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray itself is real; the folder that it is given for its session cannot be made."""
    monkeypatch.setattr(session, "private_directory", lambda: Path("/proc/none/ray"))  # Ray fails for real


def test_a_ray_that_does_not_start_says_so_and_what_to_do() -> None:
    words = r"did not start on this machine.*run the same command again.*doctor"
    with pytest.raises(RayStartError, match=words), session.ray_session(Demand()):
        pass


def test_a_command_ends_with_that_message_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended, exit_codes(), session.ray_session(Demand()):
        pass
    assert ended.value.exit_code == EXIT_FAILED
    shown = capsys.readouterr().err
    assert shown.startswith("error: Ray did not start")
    assert "Traceback" not in shown
