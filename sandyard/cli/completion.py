"""`sandyard completion`: the line a shell needs to complete our commands."""

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of SHELL, for `eval "$(sandyard completion bash)"` in its start-up file."""
    completer = get_completion_class(shell)
    if completer is None:
        raise click.ClickException(f"no completion for {shell}")
    root = context.find_root().command
    click.echo(completer(root, {}, "sandyard", "_SANDYARD_COMPLETE").source())
