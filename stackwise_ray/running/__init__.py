"""Whole trials, from their config to their finished folder: `run` for a sweep's workers, `single` for one by itself.

Here planning and training meet: a run takes the planner's steps, micro-batches and costs, and trains by them.
"""
