"""One file per training regime: its options, its rules, and the plan of stages that it makes of a trial.

The entry is a `training.stages.Regime`. What several regimes share is in `training.growth_options` and
`training.growth_rules`. Nothing here loads torch: a trial is validated with these files.
"""
