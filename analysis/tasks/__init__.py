"""Scores over many tasks: ranks, aggregates, hierarchical intervals."""
