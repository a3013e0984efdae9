"""Completion in bash, zsh and fish: what can follow on a command line of `stackwise` or `stackwise-analysis`.

    shell_scripts.py     what a shell loads, and where it is installed
    answering.py         what a shell's TAB asks, answered
    candidates.py        from a table and the words so far to what can follow
    file_names.py        files and folders as candidates
    table_cache.py       the table, kept in the user's cache; made again when a file that it was made of has changed
    table_collecting.py  the table, made from the commands, the schema and the registries

A TAB runs a process, and a person waits for it: only the last module imports anything beyond the standard library's
lightest modules, and it runs at first use and after a change.

typer's own completion is not used, for two reasons. It imports the whole program at each TAB (half a second). And in
bash, which cuts words at `=`, it does not see that a value belongs to the path before it.
"""
