"""``runpod-comfy completion``: what a shell runs to offer verbs, options, variables, templates, jobs and endpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.shell_completion import get_completion_class

from runpod_comfy.cli import COMPLETE_VARIABLE
from runpod_comfy.cli.options import Choice
from runpod_comfy.cli.verbs import COMMAND_NAME, HELP_OPTIONS, Verb

if TYPE_CHECKING:
    from click.shell_completion import ShellComplete

__all__ = ["command"]


@click.command(
    cls=Verb,
    name="completion",
    context_settings=HELP_OPTIONS,
    epilog="""\b
Examples:
  runpod-comfy completion bash > runpod-comfy.bash
  runpod-comfy completion zsh
  runpod-comfy completion fish

\b
bash:  echo 'eval "$(runpod-comfy completion bash)"' >> ~/.bashrc       (bash 4.4 or newer)
zsh:   echo 'eval "$(runpod-comfy completion zsh)"' >> ~/.zshrc         (after compinit)
fish:  runpod-comfy completion fish > ~/.config/fish/completions/runpod-comfy.fish

Templates, the variables of the template in the line and their choices, profiles, endpoints and jobs are offered too;
no server is asked for them.""",
)
@click.argument("shell", type=Choice(["bash", "zsh", "fish"]))
def command(*, shell: str) -> int:
    """Write the script that makes SHELL complete this command's words."""
    found = get_completion_class(shell)
    assert found is not None  # noqa: S101 - click has all three
    # The script needs no command, and asking for one would import every verb.
    script: ShellComplete = found(click.Command(COMMAND_NAME), {}, COMMAND_NAME, COMPLETE_VARIABLE)
    click.echo(script.source())
    return 0
