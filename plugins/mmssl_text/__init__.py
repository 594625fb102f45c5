"""Texts: the modality and a transformer with its own vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Le

from multimodal_ssl import hookimpl

if TYPE_CHECKING:
    from multimodal_ssl import Encoder, Modality
    from multimodal_ssl.hookspecs import Register


def text() -> Modality:
    """Words, from a string, UTF-8 bytes or the path of a text file (a pathlib.Path)."""
    from mmssl_text.modality import TEXT

    return TEXT


def small_text(
    *,
    width: Annotated[int, Ge(1)] = 192,
    depth: Annotated[int, Ge(1)] = 3,
    heads: Annotated[int, Ge(1)] = 3,
    vocabulary: int = 4096,
    length: Annotated[int, Ge(1)] = 32,
    drop: Annotated[float, Ge(0), Le(0.9)] = 0.1,
) -> Encoder:
    """A small transformer whose BPE vocabulary is learnt from the training texts; drop: share of tokens left out."""
    from mmssl_text.transformer import TextTransformer

    return TextTransformer(width=width, depth=depth, heads=heads, vocabulary=vocabulary, length=length, drop=drop)


@hookimpl
def register_modalities(register: Register) -> None:
    register("text", text)


@hookimpl
def register_encoders(register: Register) -> None:
    register("small-text", small_text, modalities=("text",))
