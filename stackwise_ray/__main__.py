"""`stackwise sweep | train | evaluate | doctor`, also as `python -m stackwise_ray`, and `stackwise-analysis`.

The console scripts of the package. A console script does not put the working folder on the path, and
`stackwise-analysis` loads the package `analysis` from the folder beside this one. What a command does is in the module
of its name.
"""

from __future__ import annotations

import typer

from stackwise_ray.core.beside import analysis_module
from stackwise_ray.doctor import app as doctor
from stackwise_ray.evaluate import app as evaluate
from stackwise_ray.sweep import app as sweep
from stackwise_ray.train import app as train

app = typer.Typer(
    name="stackwise",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Turn a claim about a model, a training regime or a trick into a measured, paired answer.",
)
for _name, _app in {"sweep": sweep, "train": train, "evaluate": evaluate, "doctor": doctor}.items():
    (_command,) = _app.registered_commands
    assert _command.callback is not None
    app.command(_name, epilog=_command.epilog)(_command.callback)


def main() -> None:
    """Run the command `stackwise`."""
    app(prog_name="stackwise")


def analysis_main() -> None:
    """Run the command `stackwise-analysis`: the same as `python -m analysis`."""
    analysis_module("__main__").main(prog_name="stackwise-analysis")


if __name__ == "__main__":
    main()
