"""The command line: one file a command, no logic. Nothing here imports torch before a command runs."""

from __future__ import annotations

import functools
import importlib
import sys

import click

from multimodal_ssl import __version__
from multimodal_ssl.errors import InputError
from multimodal_ssl.plugins import Catalog

COMMANDS = ("fit", "bench", "index", "search", "plugins")


class Commands(click.Group):
    """Our own commands and those that plugins register, each imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *_catalog().names("commands")]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in COMMANDS:
            command: click.Command = getattr(importlib.import_module(f"multimodal_ssl.cli.{name}"), name)
            return command
        catalog = _catalog()
        return catalog.create("commands", name, options={}) if name in catalog.names("commands") else None


@functools.cache
def _catalog() -> Catalog:
    return Catalog.discover()


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__)
def mmssl() -> None:
    """Learn one embedding space from messy pairs, find the pairs that are wrong, search across modalities.

    Begin with `mmssl quickstart`: it needs no data, no download and no GPU.
    """


def main() -> None:
    """Run the command line; what the user can put right is one line and exit code 2."""
    try:
        sys.exit(mmssl.main(prog_name="mmssl", standalone_mode=False))
    except InputError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except click.Abort:
        click.echo("stopped", err=True)
        sys.exit(130)
