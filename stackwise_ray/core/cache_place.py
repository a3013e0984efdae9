"""Where what can be made again is kept. In a module of its own, which the completion of a shell loads at each TAB."""

from __future__ import annotations

import os
from pathlib import Path


def cache_directory() -> Path:
    """Where what can be made again is kept: $STACKWISE_CACHE, else $XDG_CACHE_HOME/stackwise_ray, else ~/.cache/…"""
    if own := os.environ.get("STACKWISE_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "stackwise_ray"
