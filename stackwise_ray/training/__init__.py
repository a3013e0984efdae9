"""Layer 3: one loop that carries out a plan of stages, with what it needs around it.

- what trains when: `regimes/` with `growth_options` and `growth_rules`, `stages`, `stage`, `stage_adapters`, `noise`,
  `budget`, `clock`
- what it minimises: `objectives/`, `consistency`, `component_hooks`, `stabilisers`
- where it begins: `initial`
- the loop: `assembly`, `loop`, `step`, `parallel/`, `compiled`, `prefix_cache`, `pending`, `progress`, `measure`
- what it scores: `evaluation`, `modes`, `component_scorer`, `scoring`, `final`, `evaluation_report`
- what it keeps: `state`, `checkpoints`, `trial_folder`

`stackwise_ray.running` runs whole trials with it. Importing this package loads no torch.
"""
