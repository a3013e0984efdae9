"""Answers from runs: comparisons with intervals and scaling laws with a certificate."""
