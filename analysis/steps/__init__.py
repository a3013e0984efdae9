"""The kinds of declared analysis, one module each, named by its key under `analysis:` in a search space.

A module registers one `analysis.report.reported_steps.ReportedStep` in `core.registries.ANALYSES` and needs no other
edit: search spaces are validated with its options, its check and the metrics that it reads, and the report shows its
findings. It loads without pandas and matplotlib, which `compute` and a figure import on first use.
"""
