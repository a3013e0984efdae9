"""How the values of a metric and their differences are written."""

from __future__ import annotations

import pytest

from stackwise_ray.core.metric_catalogue import find_metric, format_difference, format_metric, format_size, metric_paths


@pytest.mark.parametrize("path", metric_paths())
def test_a_difference_is_written_in_the_form_of_its_metric(path: str) -> None:
    metric = find_metric(path)
    assert metric is not None
    shown = format_difference(path, -5460.0, (-6000.0, 4000.0))
    assert shown.startswith("−")
    if metric.form in ("count", "bytes", "seconds"):
        value, low, high = (format_metric(path, size) for size in (5460.0, 6000.0, 4000.0))
        assert shown == f"−{value} [−{low}, +{high}]"
        assert format_difference(path, 5460.0) == f"+{value} [no interval]"
        assert format_size(path, 5460.0) == value
    assert ("pp" in shown) is (metric.form == "share")


@pytest.mark.parametrize("path", ["validation/loss", "loss", "my/metric", None])
def test_a_difference_of_plain_numbers_has_as_many_digits_as_its_interval_supports(path: str | None) -> None:
    assert format_difference(path, 0.66312, (0.64112, 0.68412)) == "+0.663 [+0.641, +0.684]"
    assert format_difference(path, -1.0) == "−1.00 [no interval]"
