"""mmssl plugins"""

from __future__ import annotations

import click


@click.command()
@click.argument("name", required=False)
def plugins(name: str | None) -> None:
    """List what the installed plugins register, or the options of one name.

    \b
    Example:
      mmssl plugins
      mmssl plugins small-vit
    """
    from multimodal_ssl.cli import COMMANDS
    from multimodal_ssl.cli.tables import print_options, print_plugins
    from multimodal_ssl.plugins import Catalog

    catalog = Catalog.discover()
    if name:
        print_options(catalog, name)
    else:
        print_plugins(catalog, COMMANDS)
