"""Features computed once: vectors as a modality, the cache of frozen encoders' features, and sources that read it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Gt

from multimodal_ssl.hookspecs import Register, hookimpl

if TYPE_CHECKING:
    from multimodal_ssl.types import Encoder, Modality


def vector() -> Modality:
    """Vectors that were computed elsewhere: .npy files, arrays or lists of numbers, [F], or [V, F] for V views."""
    from multimodal_ssl.features.vectors import VECTOR

    return VECTOR


def vector_encoder(*, width: Annotated[int, Gt(0)]) -> Encoder:
    """Vectors as features, as they are; of several views of an item training draws one.

    Args:
        width: F, numbers in a vector.
    """
    from multimodal_ssl.features.vectors import Vectors

    return Vectors(width)


@hookimpl
def register_modalities(register: Register) -> None:
    register("vector", vector)


@hookimpl
def register_encoders(register: Register) -> None:
    register("vector", vector_encoder, modalities=("vector",))
