"""Ask a question as a search space, run it on Ray, read the verdict (about a minute).

    python examples/02_compare_two_arms.py

The file beside this one, 02_compare_two_arms.yaml, is the whole experiment. The command does the same:

    python -m stackwise_ray.sweep examples/02_compare_two_arms.yaml
"""

import tempfile
from pathlib import Path

import analysis
import stackwise_ray as sw

sweep = sw.load_sweep(Path(__file__).with_suffix(".yaml"))
print(f"{sweep.question}")
with tempfile.TemporaryDirectory() as folder:
    result = sw.run(sweep, output=folder)
    table = result.table
    print(table[["arm", "seed", "loss", "flops", "tokens"]].to_string(index=False))
    print(analysis.compare(table, "validation/loss", baseline="deep", margin=0.02))
