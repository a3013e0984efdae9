"""A flag of your own: an edit of the trial, with a claim that a sweep can measure (about 20 seconds).

    python examples/08_your_own_flag.py

The same file is a plugin for every command, and what it registers is checked like our own flags:

    python -m stackwise_ray.sweep my.yaml --plugin examples/08_your_own_flag.py
    python -m stackwise_ray.doctor --no-calibrate --plugin examples/08_your_own_flag.py
"""

import tempfile
from pathlib import Path

from stackwise_ray.flags import FLAGS, Flag, Measure

FLAGS.register("long_warmup")(
    Flag(
        name="long_warmup",
        summary="Raises the learning rate over the first fifth of the run.",
        claim="A lower loss at a learning rate that is too high to start with.",
        measured_by=(Measure(metric="validation/loss", form="difference"),),
        needs=lambda trial: None,  # or what the trial lacks for this flag, in a sentence
        edits=lambda trial: {"training.schedule.warmup": 0.2},
    )
)

if __name__ == "__main__":
    import stackwise_ray as sw

    words = ["model=decoder/gpt2_family/tiny", "data=markov", "data.seq_len=64", "data.validation_tokens=4096"]
    words += ["training.budget={steps: 40}", "training.batch_tokens=512", "training.lr=0.03"]
    words += ["data.markov.n_tokens=50000", "data.final_evaluation=fixed", "training.evaluations=1"]
    for flags in ("[]", "[long_warmup]"):
        with tempfile.TemporaryDirectory() as folder:
            metrics = sw.train(sw.load_trial([*words, f"flags={flags}"]), output=Path(folder)).metrics
        print(f"flags = {flags:14} validation loss {metrics['validation/loss']:.3f} nats per token")
