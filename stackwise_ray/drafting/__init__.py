"""From a claim to a search-space file that fits a time: what `stackwise new` writes.

interview.py  questions at a terminal, which options can answer
contests.py   arms from one word: another model, a shape, a learning rate, a regime, a flag, a value
writing.py    the file as a text
sizing.py     the budget with which the plan takes no longer than it may
"""
