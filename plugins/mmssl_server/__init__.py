"""The server: search, items and metrics of an index over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multimodal_ssl import hookimpl

if TYPE_CHECKING:
    import click

    from multimodal_ssl.hookspecs import Register


def serve_command() -> click.Command:
    """Serve an index over HTTP."""
    from mmssl_server.command import serve

    return serve


@hookimpl
def register_commands(register: Register) -> None:
    register("serve", serve_command)
