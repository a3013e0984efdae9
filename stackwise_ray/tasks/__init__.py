"""Evaluation tasks: what a trained model can be scored on by name, and what is stated of each.

`task` is the seam (what a task states and does, and what it gives back), `perplexity` a kind that several tasks share,
`evaluating` runs tasks and keeps their results. A task is one module here, `<name>_task.py`, and one registration.
"""

from __future__ import annotations
