"""Paired comparisons with one deciding test, intervals, effect sizes and power."""
