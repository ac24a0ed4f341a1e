"""`mailback completion`: the script that teaches a shell to complete commands and options. Emits no log events."""

from __future__ import annotations

from pathlib import Path

import click

from mailback.cli.options import config_option
from mailback.cli.out import say


@click.command()
@config_option
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(config: Path | None, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash:  mailback completion bash > ~/.local/share/bash-completion/completions/mailback
    zsh:   mailback completion zsh > "${fpath[1]}/_mailback"
    fish:  mailback completion fish > ~/.config/fish/completions/mailback.fish
    """
    from click.shell_completion import get_completion_class

    from mailback.cli.main import mailback

    del config
    maker = get_completion_class(shell)
    assert maker is not None
    say(maker(mailback, {}, "mailback", "_MAILBACK_COMPLETE").source())
