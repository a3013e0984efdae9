"""A cache of a test's own, whose compiled kernels are those of the user's: making them takes a compiler seconds."""

from __future__ import annotations

from pathlib import Path

from stackwise_ray.core.cache_place import cache_directory


def own_cache(folder: Path) -> Path:
    """Makes the folder a cache that holds nothing but the kernels; libraries are kept under their sources' digest."""
    kernels = cache_directory() / "kernels"
    kernels.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kernels").symlink_to(kernels)
    return folder
