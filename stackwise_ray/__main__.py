"""`stackwise new | sweep | train | evaluate | doctor`, also as `python -m stackwise_ray`.

What a command does is in the module of its name; `launch` is where the installed command begins.
"""

from __future__ import annotations

from typing import Annotated

import typer

from stackwise_ray.completion.shell_scripts import install, script_for
from stackwise_ray.core.invocation import as_started
from stackwise_ray.doctor import app as doctor
from stackwise_ray.evaluate import app as evaluate
from stackwise_ray.new import app as new
from stackwise_ray.sweep import app as sweep
from stackwise_ray.terminal import HydraOption, exit_codes, make_console, say
from stackwise_ray.train import app as train

COMMANDS = {"new": new, "sweep": sweep, "train": train, "evaluate": evaluate, "doctor": doctor}

app = typer.Typer(
    name="stackwise",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for _name, _app in COMMANDS.items():
    (_command,) = _app.registered_commands
    assert _command.callback is not None
    app.command(_name, epilog=_command.epilog)(_command.callback)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    install_completion: Annotated[
        bool, typer.Option("--install-completion", help="Make the shell complete these commands, from its next start.")
    ] = False,
    show_completion: Annotated[
        bool, typer.Option("--show-completion", help="Print what the shell would load for that.")
    ] = False,
    shell: Annotated[
        str | None, typer.Option(help="The shell that is meant: bash, zsh or fish. Default: the one in use.")
    ] = None,
    hydra: HydraOption = None,
) -> None:
    """Turn a claim about a model, a training regime or a trick into a measured, paired answer."""
    with exit_codes(resumable=False):
        if show_completion:
            print(script_for(shell)[1], end="")
        elif install_completion:
            say(
                make_console(),
                f"completion is installed in {install(shell)}; the next shell that you start has it",
            )
        elif context.invoked_subcommand is None:
            print(context.get_help())


def main() -> None:
    """Run the program under the name that it was started by."""
    app(prog_name=as_started("").rstrip(" ."))


if __name__ == "__main__":
    main()
