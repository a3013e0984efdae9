"""What bash, zsh and fish load to complete our commands, and where it is put.

Each script gives the words to the command itself, with `answering.VARIABLE` set, and shows what it prints.
"""

from __future__ import annotations

import os
from pathlib import Path

from stackwise_ray.core.errors import ConfigError, did_you_mean

_BASH = """_stackwise_complete() {
    local found directions
    mapfile -t found < <(_STACKWISE_COMPLETE=bash _STACKWISE_LINE="${COMP_LINE:0:COMP_POINT}" \\
        _STACKWISE_BREAKS="$COMP_WORDBREAKS" "$1")
    directions="${found[0]}"
    COMPREPLY=("${found[@]:1}")
    [[ $directions == *nospace* ]] && compopt -o nospace
    [[ $directions == *filenames* ]] && compopt -o filenames
    return 0
}
complete -F _stackwise_complete stackwise stackwise-analysis
"""

_ZSH = """#compdef stackwise stackwise-analysis
_stackwise_complete() {
    local line word text
    local -a done done_shown open open_shown
    while IFS= read -r line; do
        word="${line%%$'\\t'*}" text="${line#*$'\\t'}"
        [[ -n $text ]] && text="$word  -- $text" || text="$word"
        if [[ $word == *[=./,\\[] ]]; then
            open+=("$word") open_shown+=("$text")
        else
            done+=("$word") done_shown+=("$text")
        fi
    done < <(_STACKWISE_COMPLETE=zsh "${(Q)words[1]}" "${(@Q)words[2,CURRENT]}")
    (( $#done )) && compadd -U -l -d done_shown -a done
    (( $#open )) && compadd -U -l -S '' -d open_shown -a open
    return 0
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _stackwise_complete "$@"
else
    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
    compdef _stackwise_complete stackwise stackwise-analysis
fi
"""

_FISH = """function __stackwise_complete
    set -l before (commandline -opc)
    set -l current (commandline -ct | string unescape)
    _STACKWISE_COMPLETE=fish $before[1] $before[2..-1] "$current"
end
complete -c stackwise -f -a '(__stackwise_complete)'
complete -c stackwise-analysis -f -a '(__stackwise_complete)'
"""

SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
"""Shell to what it loads."""


def script_for(shell: str | None) -> tuple[str, str]:
    """A shell that we have a script for, and the script.

    Args:
        shell: Its name; None: the one that started this process, as the variable ``SHELL`` has it.

    Raises:
        ConfigError: There is no script for it.
    """
    name = shell or Path(os.environ.get("SHELL", "")).name
    if name not in SCRIPTS:
        what = f"= {name} is a shell" if name else "names no shell, and the variable SHELL is not set: a shell"
        raise ConfigError(f"{what} without completion here; {did_you_mean(name, SCRIPTS)}", path="--shell")
    return name, SCRIPTS[name]


def install(shell: str | None) -> Path:
    """Put the script where the shell finds it, and return the file that the shell reads at its start.

    bash and zsh: a file of our own, and a line in ``~/.bashrc`` or ``~/.zshrc`` that loads it, which is added once.
    fish: a file in its folder of completions.
    """
    name, script = script_for(shell)
    settings = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    if name == "fish":
        file = settings / "fish" / "completions" / "stackwise.fish"
        _write(file, script)
        _write(file.with_name("stackwise-analysis.fish"), script)
        return file
    file = settings / "stackwise_ray" / f"completion.{name}"
    _write(file, script)
    start = (Path(os.environ.get("ZDOTDIR") or Path.home()) if name == "zsh" else Path.home()) / f".{name}rc"
    line = f'source "{file}"'
    before = start.read_text(encoding="utf-8") if start.is_file() else ""
    if line not in before.splitlines():
        gap = "" if not before or before.endswith("\n") else "\n"
        with open(start, "a", encoding="utf-8") as stream:
            stream.write(f"{gap}{line}\n")
    return start


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
