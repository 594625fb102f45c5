"""What a person says of a scene: every factor is named, in one of many ways."""

from __future__ import annotations

from collections.abc import Mapping

from mmssl_scenes.scene import Scene

WORDS: Mapping[str, tuple[str, ...]] = {
    "sphere": ("sphere", "ball", "globe"),
    "cube": ("cube", "box", "block"),
    "cylinder": ("cylinder", "drum", "can"),
    "cone": ("cone", "pylon"),
    "ring": ("ring", "torus", "tyre"),
    "diamond": ("diamond", "octahedron"),
    "red": ("red", "scarlet"),
    "orange": ("orange",),
    "yellow": ("yellow",),
    "green": ("green",),
    "turquoise": ("turquoise", "teal"),
    "blue": ("blue",),
    "purple": ("purple", "violet"),
    "white": ("white",),
    "small": ("small", "little", "tiny"),
    "medium": ("medium-sized", "middling"),
    "large": ("large", "big", "huge"),
    "near": ("close by", "near the camera", "in the foreground"),
    "midway": ("halfway back", "at a middle distance"),
    "far": ("far off", "at the back", "in the distance"),
    "left": ("on the left", "to the left"),
    "centre": ("in the centre", "in the middle"),
    "right": ("on the right", "to the right"),
    "cold": ("cold", "chilled", "icy"),
    "warm": ("warm", "lukewarm"),
    "hot": ("hot", "heated"),
    "leftwards": ("leftwards", "off to the west"),
    "rightwards": ("rightwards", "off to the east"),
    "towards": ("towards us", "nearer"),
    "away": ("away from us", "away"),
    "slow": ("slowly", "at leisure"),
    "fast": ("fast", "quickly", "in a hurry"),
}
"""Value of a factor -> what it is called."""
TEMPLATES = (
    "a {warmth} {size} {colour} {shape} {place}, {distance}, rolls {direction} {speed}",
    "{distance} and {place}, a {size} {colour} {shape} moves {direction} {speed}; it is {warmth}",
    "{place} there is a {size} {shape}, {colour} and {warmth}, {distance}, rolling {direction} {speed}",
    "rolling {direction} {speed}: a {colour} {shape}, {size}, {warmth}, {place}, {distance}",
    "a {size} {shape} {distance} goes {direction} {speed} {place}, {colour} and {warmth}",
)


def describe(scene: Scene) -> str:
    """Return a sentence that names all factors."""
    rng = scene.rng("text")
    named = {factor: WORDS[value][rng.integers(len(WORDS[value]))] for factor, value in scene.factors._asdict().items()}
    return TEMPLATES[rng.integers(len(TEMPLATES))].format(**named)
