"""Transformer heads over the tokens of pretrained encoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

import mmssl_audio
import mmssl_image
import mmssl_timm
import mmssl_transformers
from mmssl_audio.modality import Audio
from multimodal_ssl import Catalog, MapSource, Sample, features, hookimpl, objectives
from multimodal_ssl.binder import Binder
from multimodal_ssl.config import parse_config
from multimodal_ssl.data import Supply
from multimodal_ssl.features.cache import cached
from multimodal_ssl.hookspecs import Register
from multimodal_ssl.pipeline import fit

from ..toys import Numbers, learnt, refusal
from . import hf_sounds

SWIN = {"embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2), "img_size": 56}


class Tones(MapSource):
    """Pictures of noise, each with a tone of its own, every second of which is longer."""

    def __init__(self) -> None:
        self.modalities = {"image": "image", "audio": "audio"}

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        picture = rng.integers(0, 256, (7, 7, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        tone = np.sin((0.05 + 0.1 * index) * np.arange(2000 + 1000 * (index % 2)), dtype=np.float32)
        return Sample(str(index), {"image": picture, "audio": Audio(tone[None], 16000)})

    def manifest(self) -> Any:
        return Numbers(len(self)).manifest()


class Source:
    @hookimpl
    def register_pairing_sources(self, register: Register) -> None:
        register("tones", Tones)


CATALOG = Catalog.of(
    audio=mmssl_audio, features=features, image=mmssl_image, objectives=objectives, source=Source(), timm=mmssl_timm,
    transformers=mmssl_transformers,
)  # fmt: skip


def test_heads_over_frozen_encoders_learn_from_the_cache(tmp_path: Path) -> None:
    sounds = hf_sounds.save_model(tmp_path / "sounds", "wav2vec2")  # which hears the padding
    torch.manual_seed(0)
    swin = timm.create_model("swin_tiny_patch4_window7_224", num_classes=5, **SWIN)
    data = {"input_size": (3, 56, 56)}
    timm.models.save_for_hf(swin, tmp_path / "swin", safe_serialization=True, data_config=data)
    frozen = {"frozen": True, "cache": 1, "head": "transformer"}
    config = parse_config(
        {
            "run": str(tmp_path / "run"), "sources": ["tones"], "cache": str(tmp_path / "cache"), "binder": {"dim": 8},
            "encoders": {
                "image": {"name": "timm-image", "model": f"local-dir:{tmp_path / 'swin'}", **frozen},
                "audio": {"name": "hf-audio", "model": str(sounds), "seconds": 1, **frozen},
            },
            "train": {
                "steps": 60, "batch": 12, "lr": 3e-3, "workers": 0, "threads": 1, "precision": "fp32", "log_every": 1,
            },
        }
    )  # fmt: skip
    binder = fit(config, catalog=CATALOG)
    losses = [one["loss"] for one in learnt(tmp_path / "run") if "loss" in one]
    assert np.mean(losses[-5:]) < 0.8 * np.log(12)  # of which chance is the whole
    source = Tones()
    taking, (supply,) = cached(
        binder, [Supply(source, ("image", "audio"))], {"image": 1, "audio": 1}, folder=config.cache
    )
    for name in ("image", "audio"):
        items = [supply.source[row].items[name] for row in range(4)]
        counts = [len(one[0]) for one in items]
        assert counts == [49] * 4 if name == "image" else counts[0] == counts[2] < counts[1] == counts[3]
        found = taking.encode(name, items)
        np.testing.assert_allclose(found, binder.encode(name, [source[row].items[name] for row in range(4)]), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [("timm-image", {"model": "crossvit_tiny_240", "pretrained": False}), ("hf-audio", {"model": "clap"})],
)
def test_encoders_without_tokens_refuse_such_a_head(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    if options["model"] == "clap":  # its joint space
        options = {"model": str(hf_sounds.save_model(tmp_path, "clap"))}
    encoder = CATALOG.create("encoders", name, options=options)
    one = {"a": CATALOG.modality(encoder.modality)}
    told = refusal(lambda: Binder({"a": encoder}, one, dim=4, heads={"a": "transformer"}))
    assert told == "encoders.a: head: transformer, but it gives no tokens: take linear, mlp or adapter"
