"""What an experiment costs before it runs: parameters, counted FLOPs, steps, memory (a few seconds, trains nothing).

python examples/05_what_would_it_cost.py
"""

from rich.console import Console

import stackwise_ray as sw
from stackwise_ray.planning.plan_display import plan_table

plan = sw.plan(sw.load_sweep("ablation"))  # a bare name is a shipped file
Console(width=110).print(plan_table(plan))

trial = sw.load_trial(["model=decoder/gpt2_family/tiny", "data=markov"])
model = sw.build_model(trial, vocab_size=260)
input_ids = model.dummy_inputs["input_ids"] % 260
print(sw.count_flops(model, input_ids))  # one training step of this batch
