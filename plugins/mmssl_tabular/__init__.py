"""Rows of tables: the modality and a transformer over columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Le

from multimodal_ssl import hookimpl

if TYPE_CHECKING:
    from multimodal_ssl import Encoder, Modality
    from multimodal_ssl.hookspecs import Register


def tabular() -> Modality:
    """Rows: name of a column -> number, category or nothing; from mappings, or JSON objects as paths or bytes."""
    from mmssl_tabular.modality import TABULAR

    return TABULAR


def tabular_transformer(
    *,
    categories: Sequence[str] = (),
    columns: Annotated[int, Ge(1)] = 64,
    vocabulary: Annotated[int, Ge(1)] = 1024,
    bins: Annotated[int, Ge(1)] = 16,
    width: Annotated[int, Ge(1)] = 64,
    depth: Annotated[int, Ge(1)] = 3,
    heads: Annotated[int, Ge(1)] = 4,
    drop: Annotated[float, Ge(0), Le(0.9)] = 0.1,
) -> Encoder:
    """A transformer over the columns of a row, one token each, to train from scratch; F is width.

    What columns there are, whether each holds numbers or categories, and which, it learns from the sources before
    training. Texts that are all numbers, as all cells of a CSV file are texts, are numbers.

    Args:
        categories: columns of numbers that are none, such as codes.
        columns: so many at most.
        vocabulary: so many categories at most, of all columns together; rarer ones are unknown, as are new ones.
        bins: quantiles between which a number is encoded.
        heads: of attention; they divide width.
        drop: share of the columns that are left out in training, as missing or as unknown categories.
    """
    from mmssl_tabular.transformer import TabularTransformer

    return TabularTransformer(
        categories=categories, columns=columns, vocabulary=vocabulary, bins=bins, width=width, depth=depth,
        heads=heads, drop=drop,
    )  # fmt: skip


@hookimpl
def register_modalities(register: Register) -> None:
    register("tabular", tabular)


@hookimpl
def register_encoders(register: Register) -> None:
    register("tabular-transformer", tabular_transformer, modalities=("tabular",))
