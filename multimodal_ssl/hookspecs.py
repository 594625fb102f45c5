"""The whole plugin interface.

Every hook has one shape: it is given ``register`` and calls ``register("name", factory)``. A factory is a function, or
a class. What the core gives it is positional; its keyword-only parameters are the options that a config sets: they are
typed, because pydantic checks them and ``mmssl plugins`` prints them. Import heavy libraries inside the factory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pluggy

hookspec = pluggy.HookspecMarker("multimodal_ssl")
hookimpl = pluggy.HookimplMarker("multimodal_ssl")

Register = Callable[[str, Callable[..., Any]], None]


@hookspec
def register_modalities(register: Register) -> None:
    """Register modalities: ``factory() -> Modality``."""


@hookspec
def register_encoders(register: Register) -> None:
    """Register encoders: ``factory(*, options) -> Encoder``."""


@hookspec
def register_pairing_sources(register: Register) -> None:
    """Register pairing sources: ``factory(*, options) -> PairingSource``."""


@hookspec
def register_objectives(register: Register) -> None:
    """Register objectives: ``factory(pairs, *, options) -> Objective``, pairs being the modality pairs in training."""


@hookspec
def register_commands(register: Register) -> None:
    """Register commands of ``mmssl``: ``factory() -> click.Command``."""
