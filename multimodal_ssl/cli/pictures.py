"""The path of a picture to draw, as an option of a command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


class Picture(click.Path):
    """A file to draw into; another ending than .png is a mistake that is told before the work."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, dir_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if Path(value).suffix.lower() != ".png":
            self.fail(f"{value} is to be a PNG: give a name that ends in .png", param, ctx)
        return super().convert(value, param, ctx)
