"""Glyphs: every character of matplotlib's fonts as picture, Unicode name and pen outline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge

from multimodal_ssl import hookimpl

if TYPE_CHECKING:
    import click

    from multimodal_ssl import PairingSource
    from multimodal_ssl.hookspecs import Register


def glyphs(
    *,
    split: Literal["train", "val", "test", "all"] = "train",
    fonts_per_character: Annotated[int, Ge(1)] | None = None,
    limit: Annotated[int, Ge(1)] | None = None,
    seed: Annotated[int, Ge(0)] = 0,
) -> PairingSource:
    """About 50,000 real samples that need no download; fonts and limit choose a subset, at random by the seed."""
    from mmssl_glyphs.source import Glyphs

    return Glyphs(split=split, fonts_per_character=fonts_per_character, limit=limit, seed=seed)


def quickstart_command() -> click.Command:
    """From nothing to cross-modal search, on glyphs."""
    from mmssl_glyphs.quickstart import quickstart

    return quickstart


@hookimpl
def register_commands(register: Register) -> None:
    register("quickstart", quickstart_command)


@hookimpl
def register_pairing_sources(register: Register) -> None:
    register("glyphs", glyphs, modalities=("image", "text", "series"))
