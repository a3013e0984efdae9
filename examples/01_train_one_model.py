"""Train one small model on a generated source and look at what was measured (about 20 seconds).

    python examples/01_train_one_model.py

No Ray, no tracking: one trial in one folder. The source has a known entropy rate, so the loss has a floor.
"""

import tempfile

import stackwise_ray as sw

trial = sw.load_trial(
    [
        "model=decoder/gpt2_family/tiny",  # a preset of the group "model"
        "data=markov",
        "data.markov.n_tokens=200000",
        "training.budget={tokens: 1e5}",  # exactly one of flops, tokens, steps, wall_seconds
        "training.batch_tokens=2048",
        "data.final_evaluation=fixed",
    ]
)
with tempfile.TemporaryDirectory() as folder:
    result = sw.train(trial, output=folder)

for name in (
    "validation/loss",
    "validation/oracle_loss",
    "flops/total",
    "memory/peak_bytes",
    "throughput/tokens_per_s",
):
    print(f"{name:24} {result.metrics[name]:,.6g}")
