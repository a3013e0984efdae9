"""Layer 1, no torch and no ray: what a trial and a sweep are, and how files and words become them.

Rooms: `trial` (schema of a trial, its rules, paths and edits), `space` (schema of a search space, its rules, from a
sweep to its arms), `reading` (YAML, presets, extending files). Beside them `identity` (who a trial is), `overriding`
(words of a command line) and `loading` (the way in).
"""
