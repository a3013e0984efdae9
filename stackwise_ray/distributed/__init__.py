"""Layer 5: a sweep under Ray. No other package of stackwise_ray imports ray.

- the command: `driver`, with `ledger` (what runs and how it ended), `display` and `delivery` (MLflow)
- driver and worker: `messages`, plain records; `actor` runs a trial in one process, `workers` in several
- Ray: `session`, `session_directory`, `tuner`, `schedulers/` (early stopping)

Importing this package, the driver and the messages loads no ray.
"""
