"""The whole plugin interface.

Every hook has one shape: it is given ``register`` and calls ``register("name", factory)``. A factory is a function, or
a class. What the core gives it is positional; its keyword-only parameters are the options that a config sets: they are
typed, because pydantic checks them and ``mmssl plugins`` prints them. Import heavy libraries inside the factory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import pluggy

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, ValidationInfo
    from pydantic_core import CoreSchema

    from multimodal_ssl.types import PairingSource

hookspec = pluggy.HookspecMarker("multimodal_ssl")
hookimpl = pluggy.HookimplMarker("multimodal_ssl")

Register = Callable[[str, Callable[..., Any]], None]


class _Opened:
    """Tells pydantic to open a source where its name and options are given; the catalog gives the way as context."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        def open_source(value: Any, info: ValidationInfo) -> Any:
            if isinstance(value, str | Mapping):
                assert info.context is not None, "a catalog checks the options of sources"
                return info.context(value)
            from multimodal_ssl.types import PairingSource

            if not isinstance(value, PairingSource):
                raise ValueError("a source is given by its name, or by its name and options")
            return value

        return core_schema.with_info_plain_validator_function(open_source)


if TYPE_CHECKING:
    AnySource: TypeAlias = PairingSource
else:
    AnySource = Annotated[Any, _Opened()]
"""The type of an option that is itself a pairing source: a config gives its name, or its name and its options."""


@hookspec
def register_modalities(register: Register) -> None:
    """Register modalities: ``factory() -> Modality``."""


@hookspec
def register_encoders(register: Register) -> None:
    """Register encoders: ``factory(*, options) -> Encoder``."""


@hookspec
def register_pairing_sources(register: Register) -> None:
    """Register pairing sources: ``factory(*, options) -> PairingSource``.

    An option of the type `AnySource` is a source itself: what a config gives is opened before the factory is called.
    """


@hookspec
def register_objectives(register: Register) -> None:
    """Register objectives: ``factory(pairs, *, options) -> Objective``, pairs being the modality pairs in training."""


@hookspec
def register_commands(register: Register) -> None:
    """Register commands of ``mmssl``: ``factory() -> click.Command``."""
