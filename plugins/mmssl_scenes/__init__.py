"""Scenes: solids that several sensors observe at once, rendered with known truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Le

from multimodal_ssl import hookimpl

if TYPE_CHECKING:
    from multimodal_ssl import PairingSource
    from multimodal_ssl.hookspecs import Register


def scenes(
    *,
    split: Literal["train", "val", "test", "all"] = "train",
    renderings: Annotated[int, Ge(1)] = 1,
    limit: Annotated[int, Ge(1)] | None = None,
    seed: Annotated[int, Ge(0)] = 0,
    size: Annotated[int, Ge(16)] = 64,
    missing: Annotated[float, Ge(0), Le(1)] | dict[str, Annotated[float, Ge(0), Le(1)]] = 0.0,
    noise: Annotated[float, Ge(0)] = 1.0,
) -> PairingSource:
    """One solid a scene, as image, text, audio, depth, thermal and motion tell it; 31,104 combinations of what it is.

    Args:
        split: of the combinations; those of one split are in no other.
        renderings: how many scenes show each combination, as one group.
        limit: at most so many scenes, chosen at random by the seed.
        seed: of all that is random; scenes of different seeds look different.
        size: pixels of a picture or map, each way.
        missing: share of the scenes that lack an item, of all items alike or by name, e.g. {audio: 0.5}.
        noise: of the sensors, relative to their own; 0 is none.
    """
    from mmssl_scenes.source import Scenes

    return Scenes(
        split=split, renderings=renderings, limit=limit, seed=seed, size=size, missing=missing, noise=noise
    )  # fmt: skip


@hookimpl
def register_pairing_sources(register: Register) -> None:
    register("scenes", scenes, modalities=("image", "text", "audio", "depth", "thermal", "series"))
