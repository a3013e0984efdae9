"""Model families as Hugging Face models: one file and one registration each, and a common view of their parts.

    families/         gpt2, llama, bert, modernbert, bk: `ModelConfig` -> transformers config, rules, stack view
    family.py         what a family states (`ModelFamily`), and the registry
    build.py          how a model is built from it (`build_model`, `check_model`)
    stack.py          the parts of a model whatever its family calls them (`StackView`)
    stack_view.py     that view of any model; activation checkpointing per block
    unpacked.py       models where values cannot be read: on the meta device and on fake tensors
    grouped_heads.py  grouped-query attention in float32 on a GPU by a fused kernel
    component.py      the protocol of what flags select in a model; components/ has one file per component
    growth/           blocks that enter as the identity (insertion), low-rank adapters (adapters), matrices in four bits
                      (quantised), time as an input (time_input), forward passes that begin at a block (prefix),
                      filling in masked tokens (sampling)
    saved.py          saved models: their files, names, fingerprint, and loading them whole
    counting.py       parameter counts, here and at the published vocabulary
    sizes.py          the size ladder with its published counts
    bk/               the architecture of the bk family; mixer_rules.py says which of its settings go together

Training, planning and the commands come here. Importing this package loads neither torch nor transformers:
`FAMILIES.names()` and `check_model` answer without them.
"""

from __future__ import annotations

from stackwise_ray.models.build import build_model, check_model
from stackwise_ray.models.family import FAMILIES, ModelFamily

__all__ = ["FAMILIES", "ModelFamily", "build_model", "check_model"]
