"""The command line: one file a command, no logic. Nothing here imports torch before a command runs."""

from __future__ import annotations

import functools
import importlib
import sys

import click

from multimodal_ssl import __version__
from multimodal_ssl.errors import InputError
from multimodal_ssl.plugins import Catalog

COMMANDS = ("inspect", "audit", "fit", "bench", "blend", "index", "migrate", "search", "plugins")


class Commands(click.Group):
    """Our own commands and those that plugins register, each imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *(name for name in _catalog().names("commands") if name not in COMMANDS)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in COMMANDS:
            command: click.Command = getattr(importlib.import_module(f"multimodal_ssl.cli.{name}"), name)
            return command
        if name not in _catalog().names("commands"):
            return None
        try:
            made: click.Command = _catalog().create("commands", name, options={})
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's plugin may fail in any way, and alone
            return _broken(name, " ".join(f"{type(error).__name__}: {error}".split()))
        return made


def _broken(name: str, why: str) -> click.Command:
    def tell() -> None:
        raise InputError(f"the command {name!r} is broken ({why}): mend or uninstall its plugin")

    anything = {"ignore_unknown_options": True, "allow_extra_args": True}
    return click.Command(name, callback=tell, help=f"Broken: {why}", context_settings=anything)


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
    except OSError as error:  # no space, no permission, not a folder
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    except click.Abort:
        again = sys.argv[1:] if "--resume" in sys.argv else [*sys.argv[1:], "--resume"]
        advice = f"; `mmssl {' '.join(again)}` goes on from the last checkpoint" if "fit" in sys.argv[1:2] else ""
        click.echo(f"stopped{advice}", err=True)
        sys.exit(130)
