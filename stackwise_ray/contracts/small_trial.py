"""The small trials that contracts are checked on: seconds of work, nothing from the network."""

from __future__ import annotations

from stackwise_ray.config.loading import load_trial
from stackwise_ray.config.trial import TrialConfig

WORDS = (
    "model=decoder/gpt2_family/tiny",
    "model.n_layers=2",
    "model.d_model=16",
    "model.n_heads=2",
    "model.d_ff=32",
    "data=markov",
    "data.seq_len=16",
    "data.validation_tokens=256",
    "data.final_evaluation=fixed",
    "data.markov={order: 1, n_symbols: 4, n_tokens: 4000}",
    "training.budget={steps: 6}",
    "training.batch_tokens=128",
    "training.evaluations=2",
    "training.device=cpu",
)


def small_trial(*words: str, model: str = WORDS[0]) -> TrialConfig:
    """Six steps of two GPT-2 blocks on a generated source.

    Args:
        words: Further words of the command `train`, after those of the small trial.
        model: Another preset to begin with, e.g. ``model=encoder/bert_family/tiny``.

    Raises:
        ConfigError: The trial is refused.
    """
    return load_trial([model, *WORDS[1:], *words])
