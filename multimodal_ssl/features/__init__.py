"""Features computed once: vectors and tokens as modalities, the cache of frozen encoders, and sources that read it."""

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


def tokens() -> Modality:
    """Tokens that were computed elsewhere: .npy files or arrays [T, F], or a list of such arrays for several views."""
    from multimodal_ssl.features.token_vectors import TOKENS

    return TOKENS


def tokens_encoder(*, width: Annotated[int, Gt(0)]) -> Encoder:
    """Tokens as they are, for ``head: transformer``, or their mean; of several views of an item training draws one.

    Args:
        width: F, numbers in a token.
    """
    from multimodal_ssl.features.token_vectors import Tokens

    return Tokens(width)


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
    register("tokens", tokens)


@hookimpl
def register_encoders(register: Register) -> None:
    register("vector", vector_encoder, modalities=("vector",))
    register("tokens", tokens_encoder, modalities=("tokens",))
