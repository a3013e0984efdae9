"""Verdicts that hold whenever one looks."""
