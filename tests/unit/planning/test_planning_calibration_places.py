"""Where the doctor measures: on the CPU as many trials at once as fit, and one per GPU, each pinned to its own."""

from __future__ import annotations

import pytest

from stackwise_ray.planning.calibration_runs import places


@pytest.mark.parametrize(
    ("gpus", "visible", "pinned"),
    [
        (1, None, ["0"]),
        (2, None, ["0", "1"]),
        (2, "2,3", ["2", "3"]),
        (1, "GPU-8932f937, GPU-72f5", ["GPU-8932f937"]),
    ],
)
def test_one_process_per_gpu_measures_and_is_pinned_to_it(gpus: int, visible: str | None, pinned: list[str]) -> None:
    found = places("cuda", 1, cores=16, gpus=gpus, visible=visible)
    assert [place.variables["CUDA_VISIBLE_DEVICES"] for place in found] == pinned
    assert {place.device for place in found} == {"cuda"}


def test_the_cpu_is_measured_on_the_cpu_also_where_there_are_gpus() -> None:
    found = places("cpu", 4, cores=16, gpus=8)
    assert [(place.device, dict(place.variables)) for place in found] == [("cpu", {})] * 4
    assert len(places("cpu", 1, cores=64, gpus=0)) == 8
    assert len(places("cpu", 4, cores=2, gpus=0)) == 1
