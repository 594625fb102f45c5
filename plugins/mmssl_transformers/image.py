"""Any transformers model that sees images, pooled to one vector."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from torch import Tensor, nn
from transformers import AutoImageProcessor
from transformers.image_processing_backends import TorchvisionBackend

from mmssl_pretrained.crop import random_box
from mmssl_pretrained.depth import Depth, find_depth
from mmssl_pretrained.describe import describe
from mmssl_pretrained.tokens import as_tokens, channels_first, width_of_tokens
from mmssl_pretrained.tower import hold_statistics
from mmssl_transformers.joint import part, project, projects, within
from mmssl_transformers.loading import load_tower, preparing, read, settings_of, settle
from mmssl_transformers.pooling import Pooling, choose, count_special, offered, pool_tokens
from multimodal_ssl import Encoder, InputError, Inputs

RAW = {"do_rescale": False, "do_normalize": False}
# To try a processor on: noise, one wide and one high.
PICTURES = [
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*at, 3), np.uint8)) for at in ((60, 90), (80, 50))
]


class HuggingFaceImage(Encoder):
    """The pooled features of an AutoModel for images, in float32 and before normalisation.

    A run keeps the trained weights, not the config and the preparation: to load it, what ``model`` names must still be
    there (a folder, or the hub's cache on this machine). BatchNorm keeps the statistics of pretraining.

    Args:
        model: a name on the hub or a local folder.
        pooling: the class token, the mean of the patches, the library's pooler_output, or the joint space of CLIP or
            SigLIP. None: the joint space; else the pooler_output, unless it is BERT's pooler, which few checkpoints
            have; else the class token; else the mean.
    """

    modality = "image"

    def __init__(self, *, model: str, pooling: Pooling | None) -> None:
        super().__init__()
        self.processor = read(
            "the image processor of ",
            model,
            lambda: AutoImageProcessor.from_pretrained(model, trust_remote_code=False),
            file="preprocessor_config.json",
        )
        tower, missing = load_tower(model, projected=pooling in (None, "projected"))
        joint = projects(tower, "image") and pooling in (None, "projected")
        self.tower: nn.Module = tower if joint else part(model, tower, "image")
        with preparing(model):
            self._size, self._late = _inspect(model, self.processor)
            inputs = self.collate([self.prepare(PICTURES[0])])
        self.pooling: Pooling = "projected"
        self._token_width = 0
        first: Tensor | None = None
        try:
            if not joint:
                outputs = self.tower(**self._normalise(inputs))
                _check_channels(model, self._hidden(outputs))
                self.pooling = choose(model, pooling, offered(self.tower, outputs, mean=True))
                first = self._pool(outputs, inputs)
                self._token_width = width_of_tokens(self._hidden(outputs))
            lacking = missing if joint else within(missing, tower, "image")
            features = settle(model, self.tower, lacking, lambda: self(inputs))
        except InputError:
            raise
        except (TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise InputError(
                f"{model} does not turn pixels into features ({textwrap.shorten(str(error), 200)}): "
                "hf-image takes models of images, and joint ones of images and texts"
            ) from error
        if first is not None and not torch.equal(features, first):
            raise InputError(
                f"{model} gives other features each time, as masked autoencoders do: it can't be used here"
            )
        self.width = features.shape[-1]

    def prepare(self, item: Any, rng: np.random.Generator | None = None) -> Inputs:
        """Turn an image into what the model's image processor makes of it; with an rng, of a random crop.

        Where that gives the same bits, pixels are handed over as uint8 and `forward` normalises them: what comes from
        a worker is a quarter of the floats.
        """
        image = item.convert("RGB")
        given: dict[str, bool] = dict(RAW) if self._late else {}
        if rng is not None:
            top, left, height, width = random_box(image.size, rng)
            box = (left, top, left + width, top + height)
            if self._size is None:  # the model takes any: let the processor choose
                image = image.crop(box)
            else:
                resample = self.processor.resample
                image = image.resize(self._size, Image.Resampling.BILINEAR if resample is None else resample, box)
                given |= {"do_resize": False, "do_center_crop": False}
        prepared = self.processor(images=[image], return_tensors="pt", **given)
        return {name: values[0] for name, values in prepared.items()}

    def forward(self, inputs: Inputs) -> Tensor:
        given = self._normalise(inputs)
        if self.pooling == "projected":
            return project(self.tower, "image", given)
        return self._pool(self.tower(**given), inputs)

    @property
    def token_width(self) -> int:
        return self._token_width

    def token_states(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        outputs = self.tower(**self._normalise(inputs))
        return as_tokens(self._hidden(outputs), inputs.get("pixel_attention_mask"))

    def _hidden(self, outputs: Any) -> Any:
        """Return the last hidden state, if there is one: tokens [B, T, F] or a map [B, F, H, W]."""
        trunk = dict(self.tower.named_children()).get("timm_model", self.tower)
        return channels_first(trunk, outputs.get("last_hidden_state"))

    def _pool(self, outputs: Any, inputs: Inputs) -> Tensor:
        if self.pooling == "pooled":
            features: Tensor = outputs.pooler_output.flatten(1)
            return features
        if self.pooling == "cls":
            token: Tensor = outputs.last_hidden_state[:, 0]
            return token
        return pool_tokens(self._hidden(outputs), count_special(self.tower), inputs.get("pixel_attention_mask"))

    def _normalise(self, inputs: Inputs) -> dict[str, Tensor]:
        """Return what the model takes."""
        return dict(inputs) | (
            {"pixel_values": _normalise(self.processor, inputs["pixel_values"])} if self._late else {}
        )

    def train(self, mode: bool = True) -> HuggingFaceImage:
        super().train(mode)
        hold_statistics(self)
        return self

    def describe(self) -> dict[str, Any]:
        preparation = json.loads(self.processor.to_json_string())
        return describe(transformers, **settings_of(self.tower), preparation=preparation, pooling=self.pooling)

    @cached_property
    def _depth(self) -> Depth:
        return find_depth(self.tower, self.forward, self.collate([self.prepare(PICTURES[0])]))

    def by_depth(self) -> Sequence[nn.Module]:
        return self._depth.layers(self.tower)


def _check_channels(model: str, hidden: Any) -> None:
    """Raise InputError for a map whose channels come last: it would be pooled over them."""
    if isinstance(hidden, Tensor) and hidden.ndim == 4 and hidden.shape[1] == hidden.shape[2] != hidden.shape[3]:
        raise InputError(
            f"{model} gives maps of shape {list(hidden.shape[1:])}, whose channels come last: hf-image takes models of "
            "transformers that give them first; timm-image takes both"
        )


def _inspect(model: str, processor: Any) -> tuple[tuple[int, int] | None, bool]:
    """Return which width and height a processor gives pictures, if it is always one, and whether to normalise later."""
    pixels = [processor(images=[one], return_tensors="pt")["pixel_values"][0] for one in PICTURES]
    if pixels[0].shape != pixels[1].shape:
        raise InputError(
            f"the image processor of {model} gives pictures of several sizes, {[list(one.shape) for one in pixels]}: "
            "set a size of height and width, or a centre crop, in its preprocessor_config.json"
        )
    if pixels[0].ndim != 3:
        return None, False
    height, width = pixels[0].shape[1:]
    return (width, height), _can_wait(processor, torch.stack(pixels))


def _can_wait(processor: Any, pixels: Tensor) -> bool:
    """Tell whether a processor that does not normalise, and normalises later, gives the pictures the same pixels."""
    if getattr(type(processor), "rescale_and_normalize", None) is not TorchvisionBackend.rescale_and_normalize:
        return False
    try:
        raw = torch.cat([processor(images=[one], return_tensors="pt", **RAW)["pixel_values"] for one in PICTURES])
    except TypeError:  # EfficientNet's normalises twice
        return False
    return raw.dtype == torch.uint8 and torch.equal(_normalise(processor, raw), pixels)


def _normalise(processor: Any, pixels: Tensor) -> Tensor:
    """Do the last step of a processor for pixels [B, 3, H, W] (uint8)."""
    settings = (processor.do_rescale, processor.rescale_factor, processor.do_normalize)
    normalised: Tensor = processor.rescale_and_normalize(pixels, *settings, processor.image_mean, processor.image_std)
    return normalised
