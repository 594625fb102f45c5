"""The pairing source of scenes; each item is rendered when it is used, in a worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mmssl_scenes.maps import measure_depth, measure_heat
from mmssl_scenes.motion import feel
from mmssl_scenes.picture import photograph
from mmssl_scenes.scene import COMBINATIONS, Scene, draw_scene, splits
from mmssl_scenes.sound import record
from mmssl_scenes.words import describe
from multimodal_ssl import InputError, LazyItem, Manifest, MapSource, Sample

MODALITIES = {
    "image": "image", "text": "text", "audio": "audio", "depth": "depth", "thermal": "thermal", "motion": "series",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Observation(LazyItem):
    """What one sensor makes of a scene."""

    sensor: str
    scene: Scene
    size: int
    noise: float

    def read(self) -> Any:
        match self.sensor:
            case "image":
                return photograph(self.scene, self.size, self.noise)
            case "depth":
                return measure_depth(self.scene, self.size, self.noise)
            case "thermal":
                return measure_heat(self.scene, self.size, self.noise)
            case "audio":
                return record(self.scene, self.noise)
            case _:
                return feel(self.scene, self.noise)


class Scenes(MapSource):
    """Scenes of all combinations of a split, by combination and then by rendering; see `mmssl_scenes.scenes`."""

    modalities = MODALITIES

    def __init__(
        self,
        *,
        split: Literal["train", "val", "test", "all"],
        renderings: int,
        limit: int | None,
        seed: int,
        size: int,
        missing: float | Mapping[str, float],
        noise: float,
    ) -> None:
        self.renderings, self.seed, self.size, self.noise = renderings, seed, size, noise
        chosen = np.array([split in ("all", one) for one in splits()])
        rows = np.flatnonzero(np.repeat(chosen, renderings))  # combination * renderings + rendering
        self.rows = np.sort(rows if limit is None else np.random.default_rng(seed).permutation(rows)[:limit])
        self.present = self._presence(missing)[self.rows]

    def _presence(self, missing: float | Mapping[str, float]) -> NDArray[np.bool_]:
        """Return which items all scenes of all splits have [N, M]: what is chosen of them does not matter."""
        shares = missing if isinstance(missing, Mapping) else dict.fromkeys(MODALITIES, missing)
        if unknown := shares.keys() - MODALITIES.keys():
            raise InputError(f"missing: there is no {', '.join(sorted(unknown))}; items are {', '.join(MODALITIES)}")
        draws = np.random.default_rng((self.seed, 1)).random((self.renderings, len(COMBINATIONS), len(MODALITIES)))
        # The one that is the last to go stays.
        spared = draws - np.array([shares.get(name, 0.0) for name in MODALITIES])
        present = (spared >= 0) | (spared == spared.max(-1, keepdims=True))
        return present.transpose(1, 0, 2).reshape(-1, len(MODALITIES))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        number, rendering = divmod(int(self.rows[index]), self.renderings)
        scene = draw_scene(self.seed, number, rendering)
        items: dict[str, Any] = {}
        for name, here in zip(MODALITIES, self.present[index].tolist(), strict=True):
            if here:
                items[name] = describe(scene) if name == "text" else Observation(name, scene, self.size, self.noise)
        group = "-".join(scene.factors)
        return Sample(f"{group}/{rendering}", items, group=group, metadata=scene.factors._asdict())

    def manifest(self) -> Manifest:
        return Manifest(self.present, self.rows // self.renderings)
