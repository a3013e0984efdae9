"""What a run measures: FLOPs, memory, losses.

    flops.py         FlopCounter, count_flops, optimizer_flops: the one FLOP convention of plan and run
    flop_rules.py    which operations cost what: formulas, and the explicit list of free ones
    memory.py        live tensors, saved activations, process and device peaks
    losses.py        summed cross-entropy

The training loop and the planner come here. Nothing here knows of a model family.
"""
