"""Series: arrays of numbers over time, with gaps and of any length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge

from multimodal_ssl import hookimpl

if TYPE_CHECKING:
    from multimodal_ssl import Encoder, Modality
    from multimodal_ssl.hookspecs import Register


def series() -> Modality:
    """Float arrays [C, T] (channels, time), missing values being NaN; from arrays, lists or .npy files."""
    from mmssl_series.modality import SERIES

    return SERIES


def series_conv(
    *,
    channels: Annotated[int, Ge(1)],
    width: Annotated[int, Ge(1)] = 64,
    depth: Annotated[int, Ge(1)] = 3,
    length: Annotated[int, Ge(1)] = 128,
    augment: bool = True,
) -> Encoder:
    """A residual network over time; longer series are resampled to length, shorter ones padded; F is 4 * width."""
    from mmssl_series.conv import SeriesConv

    return SeriesConv(channels=channels, width=width, depth=depth, length=length, augment=augment)


def series_transformer(
    *,
    channels: Annotated[int, Ge(1)],
    patch: Annotated[int, Ge(1)] = 8,
    width: Annotated[int, Ge(1)] = 128,
    depth: Annotated[int, Ge(1)] = 3,
    heads: Annotated[int, Ge(1)] = 4,
    length: Annotated[int, Ge(1)] = 128,
    augment: bool = True,
) -> Encoder:
    """A transformer over patches of time; longer series are resampled to length, shorter ones padded."""
    from mmssl_series.transformer import SeriesTransformer

    return SeriesTransformer(
        channels=channels, patch=patch, width=width, depth=depth, heads=heads, length=length, augment=augment
    )


@hookimpl
def register_modalities(register: Register) -> None:
    register("series", series)


@hookimpl
def register_encoders(register: Register) -> None:
    register("series-conv", series_conv, modalities=("series",))
    register("series-transformer", series_transformer, modalities=("series",))
