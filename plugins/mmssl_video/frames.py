"""Any image encoder on pictures of a video, and what becomes of them over time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from mmssl_video.decoding import Pictures
from multimodal_ssl import Encoder, InputError, Inputs, TokenEncoder
from multimodal_ssl.layers import Transformer


class FramesEncoder(TokenEncoder):
    """Features of single pictures, their mean or a transformer over time (the late fusion of ViViT, Arnab et al. 2021).

    A picture is a token. All those of a video are augmented alike: each is prepared with an rng of the same seed.

    Args:
        image: makes the features of a picture; F is its width.
        frames: so many pictures are taken from a video, evenly.
        pooling: ``mean`` does not see their order; ``transformer``, which begins as that, has a position for each.
        depth: blocks of that transformer.
        heads: of its attention.
    """

    modality = "video"

    def __init__(
        self, *, image: Encoder, frames: int, pooling: Literal["mean", "transformer"], depth: int, heads: int
    ) -> None:
        super().__init__()
        if image.modality != "image":
            raise InputError(f"frames: its option image must be an encoder of images, not of {image.modality!r}")
        if pooling == "transformer" and image.width % heads:
            raise InputError(f"frames: width {image.width} of the image encoder must be a multiple of heads {heads}")
        self.image, self.frames, self.width = image, frames, image.width
        self.adapt_to = max(1, image.adapt_to // frames)
        self.time = None if pooling == "mean" else Time(frames, image.width, depth=depth, heads=heads)

    def adapt(self, items: Iterable[Pictures]) -> None:
        """Let the image encoder learn from single pictures."""
        self.image.adapt(picture for item in items for picture in self._pictures(item))

    def prepare(self, item: Pictures, rng: np.random.Generator | None = None) -> Inputs:
        """Return what the image encoder takes of each picture, [T, ...]."""
        seed = None if rng is None else int(rng.integers(2**63))
        return self.image.collate(
            [
                self.image.prepare(picture, None if seed is None else np.random.default_rng(seed))
                for picture in self._pictures(item)
            ]
        )

    def collate(self, prepared: Sequence[Inputs]) -> Inputs:
        """Return what the image encoder takes of each picture of each video, [B, T, ...]."""
        together = self.image.collate([one for clip in prepared for one in self._split(clip)])
        return _reshape(together, lambda one: one.view(-1, self.frames, *one.shape[1:]))

    def tally(self, inputs: Inputs) -> Mapping[str, int]:
        return self.image.tally(_reshape(inputs, lambda one: one.flatten(0, 1)))

    def embed(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        features: Tensor = self.image(_reshape(inputs, lambda one: one.flatten(0, 1)))
        tokens = features.view(-1, self.frames, self.width)
        tokens = tokens if self.time is None else tokens + self.time.positions
        return tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)

    def contextualise(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return tokens if self.time is None else self.time(tokens, mask)

    def by_depth(self) -> Sequence[nn.Module]:
        """Return the layers of the image encoder, then all that happens over time as one."""
        blocks = self.image.by_depth() or [self.image]
        return [*blocks, *([] if self.time is None else [self.time])]

    def describe(self) -> Mapping[str, Any]:
        """Tell what those of the image encoder depend on."""
        return self.image.describe()

    def _pictures(self, item: Pictures) -> list[Image.Image]:
        places = ((np.arange(self.frames) + 0.5) * len(item) / self.frames).astype(int)
        return [Image.fromarray(item[place]) for place in places]

    def _split(self, clip: Inputs) -> list[Inputs]:
        return [_reshape(clip, itemgetter(at)) for at in range(self.frames)]


class Time(nn.Module):
    """Features of pictures [B, T, F] and, added to them, those of a pre-norm transformer over time.

    What is added begins at 0: at first a video is the mean of its pictures, in the space that a pretrained image
    encoder has. (The code of CLIP4Clip, Luo et al. 2022, adds it likewise, but not from 0.)
    """

    def __init__(self, frames: int, width: int, *, depth: int, heads: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(frames, width))
        self.blocks, self.added = Transformer(width, depth=depth, heads=heads), nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.added.weight)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return tokens + tokens.norm(dim=-1, keepdim=True) * self.added(self.blocks(tokens, mask))


def _reshape(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    """Change each tensor of what an encoder takes."""
    return change(inputs) if isinstance(inputs, Tensor) else {name: change(one) for name, one in inputs.items()}
