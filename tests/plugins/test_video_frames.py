"""The encoder ``frames``: image encoders on pictures of a video."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

import mmssl_image
import mmssl_video
from mmssl_video.frames import FramesEncoder
from multimodal_ssl import Catalog, Encoder, MapSource, Sample, hookimpl, objectives
from multimodal_ssl.config import parse_config
from multimodal_ssl.encoder_config import EncoderConfig
from multimodal_ssl.hookspecs import Register
from multimodal_ssl.pipeline import fit, load
from multimodal_ssl.testing import check_encoder
from multimodal_ssl.tuning import tune

from ..toys import refusal

CONV = {"name": "small-conv", "size": 24, "channels": 1, "width": 16}
VIT = {"name": "small-vit", "size": 24, "channels": 3, "width": 16, "depth": 2, "heads": 2}


class Clips(MapSource):
    """A square that goes to the right, or, where the number is odd, to the left; beside its first picture."""

    modalities = {"clip": "video", "picture": "image"}

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Sample:
        clip = moving(index)
        return Sample(str(index), {"clip": clip, "picture": clip[0]})


class Source:
    @hookimpl
    def register_pairing_sources(self, register: Register) -> None:
        register("clips", Clips)


CATALOG = Catalog.of(video=mmssl_video, image=mmssl_image, objectives=objectives, clips=Source())


def moving(index: int, count: int = 4) -> NDArray[np.uint8]:
    clip = np.zeros((count, 24, 24, 3), np.uint8)
    row = np.random.default_rng(index).integers(2, 14)
    for at in range(count):
        clip[at, row : row + 6, 5 * at : 5 * at + 6] = 255
    return clip[::-1].copy() if index % 2 else clip


def build(image: dict[str, Any] = CONV, **options: Any) -> FramesEncoder:
    torch.manual_seed(0)
    made = CATALOG.create("encoders", "frames", options={"image": image, "frames": 4, "heads": 2, **options})
    assert isinstance(made, FramesEncoder)
    return made


def features(encoder: Encoder, *items: Any) -> Tensor:
    with torch.no_grad():
        return encoder.eval()(encoder.collate([encoder.prepare(item) for item in items]))


@pytest.mark.parametrize("image", [CONV, VIT])
@pytest.mark.parametrize("pooling", ["mean", "transformer"])
def test_the_encoder_conforms(image: dict[str, Any], pooling: str) -> None:
    check_encoder(build(image, pooling=pooling), [moving(0), moving(1), moving(2, 1), moving(3, 9)])


def test_the_mean_is_that_of_what_the_image_encoder_makes_of_each_picture() -> None:
    encoder, clip = build(), moving(0, 8)
    alone = features(encoder.image, *(Image.fromarray(clip[at]) for at in (1, 3, 5, 7)))
    torch.testing.assert_close(features(encoder, clip)[0], alone.mean(0))


def learnt(encoder: FramesEncoder) -> FramesEncoder:
    """Return an encoder as if what happens over time had been learnt."""
    assert encoder.time is not None
    generator = torch.Generator().manual_seed(0)
    nn.init.normal_(encoder.time.added.weight, std=0.1, generator=generator)
    nn.init.normal_(encoder.time.positions, generator=generator)
    return encoder


def test_the_transformer_begins_as_the_mean() -> None:
    clips = moving(0), moving(1)
    assert torch.equal(features(build(pooling="transformer"), *clips), features(build(pooling="mean"), *clips))


def test_the_order_of_time_counts_for_the_transformer_and_not_for_the_mean() -> None:
    for encoder, differs in ((build(), False), (learnt(build(pooling="transformer")), True)):
        ahead, back = features(encoder, moving(0), moving(0)[::-1].copy())
        assert ((ahead - back).abs().max() > 1e-3) == differs


def test_all_pictures_of_a_video_are_augmented_alike_and_videos_each_in_its_way() -> None:
    still = np.repeat(moving(0)[:1], 4, 0)
    first, second = (build().prepare(still, np.random.default_rng(seed)) for seed in (1, 2))
    assert all(torch.equal(one, first[0]) for one in first)
    assert not torch.equal(first, build().prepare(still))
    assert not torch.equal(first, second)


class Words(Encoder):
    """Takes pictures as dicts of lengths that differ, learns from all it is given, and counts."""

    modality, width, adapt_to = "image", 4, 10

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.seen = nn.Linear(1, 4), 0

    def adapt(self, items: Any) -> None:
        self.seen = sum(isinstance(one, Image.Image) for one in items)

    def prepare(self, item: Image.Image, rng: np.random.Generator | None = None) -> dict[str, Tensor]:
        return {"words": torch.full((item.width,), item.width / 10), "long": torch.tensor(item.width > 5)}

    def collate(self, prepared: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        words = pad_sequence([one["words"] for one in prepared], batch_first=True)
        return {"words": words, "long": torch.stack([one["long"] for one in prepared])}

    def tally(self, inputs: dict[str, Tensor]) -> dict[str, int]:
        return {"long": int(inputs["long"].sum())}

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.layer(inputs["words"].sum(1, keepdim=True))


def test_an_image_encoder_may_pad_count_and_learn() -> None:
    encoder = FramesEncoder(image=Words(), frames=4, pooling="mean", depth=1, heads=1)
    clips = [np.zeros((5, 3, width, 3), np.uint8) for width in (4, 9)]
    check_encoder(encoder, clips)
    assert encoder.adapt_to == 2
    assert encoder.image.seen == 8
    assert encoder.tally(encoder.collate([encoder.prepare(clip) for clip in clips])) == {"long": 4}


def test_layers_are_those_of_the_image_encoder_and_then_what_happens_over_time() -> None:
    vit = build(VIT, pooling="transformer")
    assert vit.by_depth()[0] is vit.image.by_depth()[0]
    assert len(vit.by_depth()) == 3
    assert vit.by_depth()[-1] is vit.time
    assert len(build(VIT).by_depth()) == 2
    plain = FramesEncoder(image=Words(), frames=4, pooling="mean", depth=1, heads=1)
    assert plain.by_depth() == [plain.image]


def test_one_unfrozen_layer_is_what_happens_over_time() -> None:
    encoder = build(VIT, pooling="transformer")
    tune("clip", encoder, EncoderConfig(name="frames", unfreeze=1))
    learns = {name.split(".")[0] for name, one in encoder.named_parameters() if one.requires_grad}
    assert learns == {"time"}


def test_what_the_image_encoder_depends_on_is_told() -> None:
    encoder = build()
    encoder.image.describe = lambda: {"its": "preprocessor"}
    assert encoder.describe() == {"its": "preprocessor"}


def test_hidden_pictures_are_not_seen(generator: torch.Generator) -> None:
    encoder = learnt(FramesEncoder(image=Words(), frames=6, pooling="transformer", depth=2, heads=2)).train()
    tokens, mask = torch.randn(2, 6, 4, generator=generator), torch.arange(6) < torch.tensor([[6], [2]])
    found = encoder.contextualise(tokens, mask)
    other = encoder.contextualise(tokens.masked_fill(~mask.unsqueeze(-1), 9.0), mask)
    torch.testing.assert_close(found[mask], other[mask])
    alone = encoder.contextualise(tokens[1:, :2], mask[1:, :2])
    torch.testing.assert_close(found[1:, :2], alone, rtol=1e-5, atol=1e-5)


def test_what_is_no_image_encoder_or_does_not_fit_is_told() -> None:
    nested = {"name": "frames", "image": CONV}
    assert "must be an encoder of images, not of 'video'" in refusal(lambda: build(nested))
    assert "width 64 of the image encoder" in refusal(lambda: build(pooling="transformer", heads=3))
    assert "small-vit" in refusal(lambda: build({**VIT, "size": 25}))


def test_a_run_with_an_encoder_within_an_encoder_is_saved_and_loaded(tmp_path: Path) -> None:
    encoders = {"clip": {"name": "frames", "image": CONV, "frames": 2, "pooling": "transformer"}, "picture": CONV}
    config = parse_config(
        {
            "run": str(tmp_path / "run"),
            "sources": ["clips"],
            "encoders": encoders,
            "binder": {"dim": 8},
            "train": {"steps": 3, "batch": 6, "workers": 0, "threads": 1, "precision": "fp32"},
        }
    )
    binder = fit(config, catalog=CATALOG)
    again = load(tmp_path / "run", catalog=CATALOG)
    clips = [moving(index) for index in range(3)]
    np.testing.assert_array_equal(again.encode("clip", clips), binder.encode("clip", clips))
    assert again.fingerprint() == binder.fingerprint()


def test_a_few_steps_tell_what_goes_to_the_right_from_what_goes_to_the_left() -> None:
    encoder = build({**CONV, "augment": False}, pooling="transformer", depth=1).train()
    head = nn.Linear(encoder.width, 2)
    inputs, label = encoder.collate([encoder.prepare(moving(index)) for index in range(48)]), torch.arange(48) % 2
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=1e-3)
    for _ in range(50):
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(head(encoder(inputs[:32])), label[:32]))
        optimizer.step()
    assert (head(encoder(inputs[32:])).argmax(1) == label[32:]).float().mean() > 0.9
