"""A comparison as a journal has it: of arm b with arm a, in everything else as a file declares it that says little."""

from __future__ import annotations

from stackwise_ray.core.comparison_records import ResolvedComparison

COMPARISON = ResolvedComparison(
    metric="validation/loss",
    direction="minimize",
    assumed=False,
    baseline="a",
    target=None,
    hypothesis="different",
    side="both",
    margin=None,
    equal="flops",
    tolerance=0.01,
    alpha=0.05,
    correction="holm",
    test="t",
    family=("b",),
    step="compare",
    declared=True,
)
