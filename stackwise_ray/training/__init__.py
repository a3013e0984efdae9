"""Layer 3: one loop that carries a plan of stages, with what it needs around it.

`run` (the loop, a generator of metric records), `plan` (FLOPs, steps and bytes without weights), `stages` and
`regimes` (what trains when), `adapters` (and on which trunk), `noise` (on which masks), `cost_model` (what growing
costs by formula), `budget` (how many steps), `objectives` (batches and losses), `prefix_cache` (what a frozen prefix
gives, kept), `compiled` (a stage's pass as one graph), `assembly`, `evaluation`, `checkpoints`,
`outputs`. Importing this package loads no torch.
"""
