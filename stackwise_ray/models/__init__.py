"""Model families as Hugging Face models: one file and one registration each, and the view of a rack they share.

    families/         gpt2, llama, bert, modernbert, bk: `ModelConfig` -> transformers config, rules, stack view
    family.py         what a family states (`ModelFamily`) and how a model is built from it (`build_model`)
    stack_view.py     embeddings, blocks, final norm and head of any model; activation checkpointing per block
    growth.py         blocks that are not there yet, that enter as the identity; a head of its own
    saved.py          saved models: their files, names, fingerprint, and loading them whole
    adapters.py       low-rank adapters on the matrices of blocks (peft); quantised.py keeps those matrices in four bits
    time_input.py     an input that tells the share of masked positions, and its embedding
    prefix.py         what goes into a block, and a forward pass that begins there
    sampling.py       filling in masked tokens: one sweep through depth, or rounds
    counting.py       parameter counts, here and at the published vocabulary
    sizes.py          the size ladder with its published counts
    bk.py             the architecture of the bk family; bk_config.py (its config), bk_mixers.py and bk_channels.py (of
                      tokens and of channels), bk_cache.py (decoding), bk_rules.py (which settings fit together)

Training, planning and the commands come here. Importing this package loads neither torch nor transformers:
`FAMILIES.names()` and `check_model` answer without them.
"""

from __future__ import annotations

from stackwise_ray.models.build import build_model, check_model
from stackwise_ray.models.family import FAMILIES, ModelFamily

__all__ = ["FAMILIES", "ModelFamily", "build_model", "check_model"]
