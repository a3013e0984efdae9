"""Train on text of your own, with a byte-pair vocabulary learnt from it (about 20 seconds).

    python examples/03_your_own_text.py [FOLDER_OR_GLOB]

Without an argument it reads the modules a to e of the Python that runs it. A document is never cut between splits, so a
handful of files is refused: give some dozens.
"""

import json
import sys
import tempfile
from pathlib import Path

import stackwise_ray as sw

path = sys.argv[1] if len(sys.argv) > 1 else str(Path(json.__file__).parents[1] / "[a-e]*.py")
trial = sw.load_trial(
    [
        "model=decoder/llama_family/tiny",
        "data=text_files",
        f"data.path={path}",
        "data.tokenizer=bpe:512",  # trained on the training split alone
        "data.seq_len=64",
        "data.validation_tokens=4096",
        "training.budget={steps: 40}",
        "training.batch_tokens=1024",
    ]
)
with tempfile.TemporaryDirectory() as folder:
    metrics = sw.train(trial, output=folder).metrics

# A vocabulary of another size counts other tokens: compare across tokenizers by byte or by word.
for unit in ("token", "byte", "word"):
    print(f"test perplexity per {unit:6} {metrics[f'test/perplexity_{unit}']:.3f}")
