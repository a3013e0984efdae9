"""The garbage collector waits while large libraries load, and is afterwards what it was."""

from __future__ import annotations

import gc

import pytest

from stackwise_ray.core.large_imports import uncollected


@pytest.mark.parametrize("collects", [True, False])
def test_the_collector_waits_and_is_then_what_it_was_also_where_an_import_fails(collects: bool) -> None:
    (gc.enable if collects else gc.disable)()
    try:
        with uncollected():
            assert not gc.isenabled()
        assert gc.isenabled() == collects
        with pytest.raises(ImportError), uncollected():
            raise ImportError("not installed")
        assert gc.isenabled() == collects
    finally:
        gc.enable()
