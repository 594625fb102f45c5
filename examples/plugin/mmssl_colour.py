"""Colours: a modality, an encoder, and 949 colours with the names that people gave them (xkcd's survey)."""

import io

import numpy as np
from matplotlib.colors import XKCD_COLORS, to_hex, to_rgb
from PIL import Image
from torch import nn, tensor

from multimodal_ssl import Encoder, MapSource, Modality, Preview, Sample, hookimpl


def load(value):
    return np.array(to_rgb(value), np.float32)  # of a name, "#rrggbb" or three numbers


def preview(item):
    Image.new("RGB", (64, 64), to_hex(item)).save(png := io.BytesIO(), "PNG")
    return Preview(png=png.getvalue())


class ColourEncoder(Encoder):
    def __init__(self, *, width: int = 128):
        super().__init__()
        self.modality, self.width = "colour", width
        self.layers = nn.Sequential(nn.Linear(3, width), nn.GELU(), nn.Linear(width, width), nn.GELU())

    def prepare(self, item, rng=None):
        return tensor(item if rng is None else item + rng.normal(0, 0.02, 3)).float()

    def forward(self, inputs):
        return self.layers(inputs * 2 - 1)


class NamedColours(MapSource):
    def __init__(self, *, test: bool = False):
        self.modalities = {"colour": "colour", "text": "text"}
        self.names = [name for i, name in enumerate(sorted(XKCD_COLORS)) if (i % 10 == 0) == test]

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        name = self.names[index]
        return Sample(name, {"colour": name, "text": name.removeprefix("xkcd:")})


@hookimpl
def register_modalities(register):
    register("colour", lambda: Modality("colour", np.ndarray, load, preview))


@hookimpl
def register_encoders(register):
    register("colour-encoder", ColourEncoder)


@hookimpl
def register_pairing_sources(register):
    register("named-colours", NamedColours)
