"""The scaling laws, one module each: `--law power` is in `power_law`.

A module registers one `analysis.scaling.laws.Law` in `core.registries.LAWS` and needs no other edit: `fit` and the
`scaling_law` step find it by its name, and the contract of laws checks its gradient against finite differences.
"""
