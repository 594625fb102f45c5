"""An encoder of some depth, tuned as a config says, for tests of tuning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from multimodal_ssl import Encoder
from multimodal_ssl.config import parse_config
from multimodal_ssl.encoder_config import EncoderConfig
from multimodal_ssl.tuning import add_lora, tune

from .toys import toy_config


class Deep(Encoder):
    """A stem and four blocks with dropout and batch statistics, as pretrained ones have."""

    modality, width = "number", 8

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(2, 8)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Tanh()) for _ in range(4)])
        self.norm = nn.LayerNorm(8)

    def by_depth(self) -> Sequence[nn.Module]:
        return [*self.blocks[:-1], nn.ModuleList([self.blocks[-1], self.norm])]

    def prepare(self, item: float, rng: np.random.Generator | None = None) -> Tensor:
        return torch.tensor([np.sin(item), np.cos(item)], dtype=torch.float32)

    def forward(self, inputs: Tensor) -> Tensor:
        x = self.stem(inputs)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


def tuned(**options: Any) -> Deep:
    torch.manual_seed(0)
    encoder = Deep()
    config = EncoderConfig(name="deep", **options)
    if config.lora:
        add_lora("a", encoder, config.lora)
    tune("a", encoder, config)
    return encoder


def learning(encoder: nn.Module) -> set[str]:
    return {name for name, one in encoder.named_parameters() if one.requires_grad}


def run_config(run: Path, *, seed: int = 0, **options: Any):
    values = toy_config(run, "ab").model_dump(mode="json")
    values["encoders"]["a"] = {"name": "waves", **options}
    return parse_config({**values, "seed": seed})
