"""Model families as Hugging Face models: one file and one registration each, and the view of a rack they share.

    families/         gpt2, llama, bert, modernbert, bk: `ModelConfig` -> transformers config, rules, stack view
    family.py         what a family states (`ModelFamily`); build.py makes its models (`build_model`)
    bk/               the architecture of the bk family: its config, token mixers, channel mixers, decoding cache
    mixer_rules.py    which settings of a mixer fit together
    stack_view.py     finds embeddings, blocks, final norm and head of any model; stack.py: that view (`StackView`)
    growth/           what changes in training: blocks that enter as the identity, adapters, four bits, time as an
                      input, the forward pass that begins behind a frozen prefix, filling in masked tokens
    component.py      what a flag may select (`Component`); components/ has ours
    saved.py          saved models: their files, names, fingerprint, and loading them whole
    counting.py       parameter counts, here and at the published vocabulary
    sizes.py          the size ladder with its published counts
    unpacked.py       position ids that nobody passes are counted by the model: nothing is packed

Training, planning and the commands come here. Importing this package loads neither torch nor transformers:
`FAMILIES.names()` and `check_model` answer without them.
"""

from __future__ import annotations

from stackwise_ray.models.build import build_model, check_model
from stackwise_ray.models.family import FAMILIES, ModelFamily

__all__ = ["FAMILIES", "ModelFamily", "build_model", "check_model"]
