"""`stackwise sweep | train | evaluate | doctor`, also as `python -m stackwise_ray`, and `stackwise-analysis`.

The console scripts of the package. A console script does not put the working folder on the path, and
`stackwise-analysis` loads the package `analysis` from the folder beside this one. What a command does is in the module
of its name.
"""

from __future__ import annotations

import typer

from stackwise_ray import doctor, evaluate, sweep, train
from stackwise_ray.core.beside import analysis_module

app = typer.Typer(
    name="stackwise",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Turn a claim about a model, a training regime or a trick into a measured, paired answer.",
)
for _module in (sweep, train, evaluate, doctor):
    (_command,) = _module.app.registered_commands
    assert _command.callback is not None
    app.command(_module.__name__.rpartition(".")[2], epilog=_command.epilog)(_command.callback)


def main() -> None:
    """Run the command `stackwise`."""
    app(prog_name="stackwise")


def analysis_main() -> None:
    """Run the command `stackwise-analysis`: the same as `python -m analysis`."""
    analysis_module("__main__").main(prog_name="stackwise-analysis")


if __name__ == "__main__":
    main()
