"""Any transformers model that hears sounds, pooled to one vector."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoFeatureExtractor, ClapFeatureExtractor

from mmssl_pretrained.depth import Depth, find_depth
from mmssl_pretrained.describe import describe
from mmssl_pretrained.tokens import as_tokens, width_of_tokens
from mmssl_pretrained.tower import bake, hold_statistics
from mmssl_pretrained.waves import Waves, by_length, least_samples
from mmssl_transformers.clap import fuse
from mmssl_transformers.joint import part, project, projects, within
from mmssl_transformers.loading import load_tower, preparing, read, settings_of, settle
from mmssl_transformers.pooling import Pooling, choose, offered, pool_tokens
from multimodal_ssl import Encoder, InputError, Inputs

WINDOW = 0.025  # seconds, of a spectrogram's frame


class HuggingFaceAudio(Encoder):
    """The pooled features of an AutoModel for sounds, in float32.

    Where a network hears the padding in spite of its mask (wav2vec 2.0 and HuBERT with GroupNorm over time, such as
    their base models, and data2vec), sounds of one length go through it together: batches are fast if most sounds are
    as long as ``seconds``. LayerDrop and the
    library's own masking in training are off: they draw from global generators, and leave weights without gradient.

    A run keeps the trained weights, not the config and the preparation: to load it, what ``model`` names must still be
    there (a folder, or the hub's cache on this machine). BatchNorm keeps the statistics of pretraining.

    Args:
        model: a name on the hub or a local folder; of an encoder-decoder such as Whisper, the encoder is taken.
        pooling: the mean of the real frames, the class token, the library's pooler_output, or CLAP's joint space. None:
            the joint space; else the pooler_output; else the mean.
        seconds: longer sounds are cropped to so much: their middle or, to augment, any part. None leaves sounds as they
            are: Whisper and AST hear the beginning of longer ones, and CLAP the middle.
    """

    modality = "audio"

    def __init__(self, *, model: str, pooling: Pooling | None, seconds: float | None) -> None:
        super().__init__()
        self.extractor = read(
            "the feature extractor of ",
            model,
            lambda: AutoFeatureExtractor.from_pretrained(model, trust_remote_code=False),
            file="preprocessor_config.json",
        )
        tower, missing = load_tower(model, projected=pooling in (None, "projected"))
        joint = projects(tower, "audio") and pooling in (None, "projected")
        self.tower: nn.Module = tower if joint else part(model, tower, "audio")
        config = part(model, tower, "audio").config
        _calm(self.tower, config)
        window = _window(self.extractor)
        if window is None and seconds is None:
            raise InputError(f"{model} takes sounds of any length, and memory does not: set seconds, e.g. 10")
        self._fuses = False
        if isinstance(self.extractor, ClapFeatureExtractor):
            self._fuses = self.extractor.truncation == "fusion"
            if window is not None and not self._fuses:  # it would take a random part of a longer sound
                seconds = min(window, seconds or window)
        rate = self.extractor.sampling_rate
        self._hears_padding = False
        with preparing(model):
            self.waves = Waves(
                rate=rate, seconds=seconds, least=_least(config, rate), window=None if self._fuses else window
            )
            inputs = self.collate([self._extract(_noise(rate), None)])
        self.pooling: Pooling = "projected"
        self._token_width = 0
        try:
            if not joint:
                outputs = self.tower(**inputs)
                ways = offered(self.tower, outputs, mean="attention_mask" in inputs)
                self.pooling = choose(model, pooling, ways)
                if "attention_mask" in inputs or window is not None:  # else nobody knows which frames are real
                    self._token_width = width_of_tokens(outputs.get("last_hidden_state"))
            lacking = missing if joint else within(missing, tower, "audio")
            features = settle(model, self.tower, lacking, lambda: self(inputs))
        except InputError:
            raise
        except (TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise InputError(
                f"{model} does not turn sounds into features ({textwrap.shorten(str(error), 200)}): "
                "hf-audio takes models of sounds, and joint ones of sounds and texts"
            ) from error
        self._hears_padding = self._is_changed_by_padding(_noise(rate))
        bake(self.tower)
        self.width = features.shape[-1]

    def prepare(self, item: Any, rng: np.random.Generator | None = None) -> Inputs:
        """Turn a sound into what the model's feature extractor makes of it in mono; with an rng, of a random part."""
        wave = self.waves(item, rng)
        inputs = self._extract(wave, rng)
        # The one frame that w2v-BERT's extractor makes of 30 ms is divided by a variance of nothing.
        if not all(bool(one.isfinite().all()) for one in inputs.values()):
            raise ValueError(
                f"of {len(wave) / self.waves.rate:.3f} s of sound the model's feature extractor makes numbers that are "
                "not finite: it is too short, or has such numbers itself"
            )
        return inputs

    def _extract(self, wave: np.ndarray, rng: np.random.Generator | None) -> dict[str, Tensor]:
        if self._fuses and (fused := fuse(self.extractor, wave, rng)):
            return fused
        prepared = self.extractor(
            wave, sampling_rate=self.extractor.sampling_rate, return_tensors="pt", return_attention_mask=True
        )
        return {name: values[0] for name, values in prepared.items()}

    def collate(self, prepared: Sequence[Inputs]) -> Inputs:
        """Pad to the longest."""
        return {name: pad_sequence([one[name] for one in prepared], batch_first=True) for name in prepared[0]}

    def forward(self, inputs: Inputs) -> Tensor:
        return self._without_padding(self._features, inputs)

    @property
    def token_width(self) -> int:
        return self._token_width

    def token_states(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        hidden = self._without_padding(lambda given: self.tower(**given).last_hidden_state, inputs)
        mask = inputs.get("attention_mask")
        return as_tokens(hidden, None if mask is None else self._real(hidden.shape[1], mask))

    def _without_padding(self, run: Callable[[Inputs], Tensor], inputs: Inputs) -> Tensor:
        """Return what `run` gives, of sounds of one length at a time where the model hears the padding."""
        if not self._hears_padding:
            return run(inputs)
        real = {name: values for name, values in inputs.items() if name != "attention_mask"}
        return by_length(
            inputs["attention_mask"].sum(1),
            lambda rows, length: run({name: values[rows, :length] for name, values in real.items()}),
        )

    def _features(self, inputs: Inputs) -> Tensor:
        if self.pooling == "projected":
            return project(self.tower, "audio", inputs)
        outputs = self.tower(**inputs)
        if self.pooling == "pooled":
            features: Tensor = outputs.pooler_output
            return features
        hidden: Tensor = outputs.last_hidden_state
        if self.pooling == "cls":
            return hidden[:, 0]
        mask = inputs.get("attention_mask")
        return pool_tokens(hidden, 0, None if mask is None else self._real(hidden.shape[1], mask))

    def _real(self, frames: int, mask: Tensor) -> Tensor:
        """Return which frames are real [B, frames], of a mask of samples or of the extractor's frames."""
        if mask.shape[1] == frames:
            return mask
        if mask.shape[1] == 2 * frames:  # Whisper's second convolution
            return mask[:, ::2]
        model: Any = self.tower
        real: Tensor = model._get_feature_vector_attention_mask(frames, mask)  # all of the wav2vec family have it
        return real

    @torch.no_grad()
    def _is_changed_by_padding(self, wave: np.ndarray) -> bool:
        """Tell whether a sound has other features beside a longer one."""
        long, short = self._extract(wave, None), self._extract(wave[: len(wave) // 2], None)
        alone, together = self(self.collate([short])), self(self.collate([short, long]))[:1]
        return not torch.allclose(alone, together, rtol=0, atol=1e-4 * float(alone.std()))

    def train(self, mode: bool = True) -> HuggingFaceAudio:
        super().train(mode)
        hold_statistics(self)
        return self

    def describe(self) -> dict[str, Any]:
        preparation = json.loads(self.extractor.to_json_string())
        return describe(transformers, **settings_of(self.tower), preparation=preparation, pooling=self.pooling)

    @cached_property
    def _depth(self) -> Depth:
        return find_depth(self.tower, self.forward, self.collate([self._extract(_noise(self.waves.rate), None)]))

    def by_depth(self) -> Sequence[nn.Module]:
        return self._depth.layers(self.tower)


def _noise(samples: int) -> np.ndarray:
    """Return white noise, to try a model on."""
    return np.random.default_rng(0).standard_normal(samples).astype(np.float32) / 10


def _window(extractor: Any) -> float | None:
    """Return how many seconds a feature extractor takes at most; None if any number."""
    match type(extractor).__name__:
        case "ClapFeatureExtractor":
            return float(extractor.max_length_s)
        case "WhisperFeatureExtractor":
            return float(extractor.chunk_length)
        case "ASTFeatureExtractor":
            return extractor.max_length * 0.01  # frames of 10 ms
        case _:
            return None


def _least(config: Any, rate: int) -> int:
    """Return of how many samples a model makes one frame: what its convolutions need, or else 25 ms."""
    kernels, strides = getattr(config, "conv_kernel", ()), getattr(config, "conv_stride", ())
    return least_samples(zip(kernels, strides, strict=True)) if kernels else math.ceil(WINDOW * rate)


def _calm(tower: nn.Module, config: Any) -> None:
    """Switch off what a model of sounds draws in training beside dropout: whole layers, and masks."""
    config.layerdrop, config.apply_spec_augment = 0.0, False
    for module in tower.modules():
        if "layerdrop" in vars(module):
            vars(module)["layerdrop"] = 0.0
