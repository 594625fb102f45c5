"""The whole plugin interface.

Every hook has one shape: it is given ``register`` and calls ``register("name", factory)``. A factory is a function, or
a class. What the core gives it is positional; its keyword-only parameters are the options that a config sets: they are
typed, because pydantic checks them and ``mmssl plugins`` prints them. Import heavy libraries inside the factory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeAlias

import pluggy

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, ValidationInfo
    from pydantic_core import CoreSchema

    from multimodal_ssl.types import Encoder, Objective, PairingSource

hookspec = pluggy.HookspecMarker("multimodal_ssl")
hookimpl = pluggy.HookimplMarker("multimodal_ssl")


class Register(Protocol):
    """Takes a name, its factory, and the modalities that an encoder takes or a source gives, where they are known."""

    def __call__(self, name: str, factory: Callable[..., Any], *, modalities: Sequence[str] = ()) -> None: ...


Pairs: TypeAlias = Sequence[tuple[str, str]]
"""The pairs of modalities in training."""


@dataclass(frozen=True)
class Part:
    """Marks an option that is itself something registered; the catalog, as pydantic's context, opens it.

    Attributes:
        kind: of which it is, e.g. ``pairing_sources``.
    """

    kind: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        def open_part(value: Any, info: ValidationInfo) -> Any:
            if not isinstance(value, str | Mapping):
                from multimodal_ssl import types

                made: dict[str, Any] = {
                    "pairing_sources": types.PairingSource,
                    "encoders": types.Encoder,
                    "objectives": Callable,
                }
                if not isinstance(value, made[self.kind]):
                    noun = self.kind.removesuffix("s").replace("_", " ")
                    raise ValueError(f"the {noun} is given by its name, or by its name and options")
                return value
            assert info.context is not None, "a catalog checks the options of what it creates"
            return info.context(self.kind, value)

        return core_schema.with_info_plain_validator_function(open_part)


if TYPE_CHECKING:
    AnySource: TypeAlias = PairingSource
    AnyEncoder: TypeAlias = Encoder
    AnyObjective: TypeAlias = Callable[[Pairs], Objective]
else:
    AnySource = Annotated[Any, Part("pairing_sources")]
    AnyEncoder = Annotated[Any, Part("encoders")]
    AnyObjective = Annotated[Any, Part("objectives")]
"""The types of options that are registered things themselves: a config gives the name of one, or its name and options.

An objective comes as what makes it of pairs of modalities.
"""


@hookspec
def register_modalities(register: Register) -> None:
    """Register modalities: ``factory() -> Modality``."""


@hookspec
def register_encoders(register: Register) -> None:
    """Register encoders: ``factory(*, options) -> Encoder``.

    ``modalities`` of one tells before it is made whether it is for some items.
    """


@hookspec
def register_pairing_sources(register: Register) -> None:
    """Register pairing sources: ``factory(*, options) -> PairingSource``.

    An option of the type `AnySource` is a source itself, and so with `AnyEncoder` and `AnyObjective`: what a config
    gives is opened before the factory is called.
    """


@hookspec
def register_objectives(register: Register) -> None:
    """Register objectives: ``factory(pairs, *, options) -> Objective``, pairs being the modality pairs in training."""


@hookspec
def register_commands(register: Register) -> None:
    """Register commands of ``mmssl``: ``factory() -> click.Command``."""
