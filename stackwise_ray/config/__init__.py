"""Layer 1, no torch and no ray: what a trial and a sweep are, and how files and words become them.

Reading order: `trial` and `sweep` (the schemas), `yaml` and `validation` (strict reading, errors in our words),
`schema` and `editing` (dotted paths, edited copies), `presets` (named parts, composed by Hydra), `checks` and
`sweep_checks` (rules across fields), `domains`, `expressions`, `generators`, `fractions`, `naming` and `designs` (from
a sweep to its arms), `identity` (who a trial is), `overriding`, `files` and `loading` (the way in).
"""
