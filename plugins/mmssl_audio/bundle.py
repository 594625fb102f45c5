"""The pretrained models of torchaudio: wav2vec 2.0, HuBERT, WavLM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchaudio
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torchaudio import pipelines
from torchaudio.models import wav2vec2_model, wavlm_model

from mmssl_audio.modality import Audio
from mmssl_pretrained.depth import Depth, find_depth
from mmssl_pretrained.describe import describe
from mmssl_pretrained.tower import bake, freeze_unused
from mmssl_pretrained.waves import Waves, by_length, least_samples
from mmssl_pretrained.weights import UNLOADABLE, explain
from multimodal_ssl import Encoder, InputError, Inputs
from multimodal_ssl.errors import nearest

MODELS = {"Wav2Vec2": wav2vec2_model, "WavLM": wavlm_model}
CONVOLUTIONS = [(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512, 2, 2)] * 2  # torchaudio's default


class TorchaudioBundle(Encoder):
    """The mean over the real frames of one layer of a torchaudio bundle, in float32.

    Models with GroupNorm over time (the base ones) and WavLM hear the padding: there sounds of one length go through
    the model together, and batches are fast if most sounds are as long as ``seconds``.

    A run keeps the trained weights; which architecture they are of, ``model`` and ``config`` say.

    Args:
        model: a bundle of torchaudio.pipelines; what it was fine-tuned to put out (letters) is left away.
        weights: the path of a state dict of the model; None takes the bundle's from torch's cache or the network.
        config: other sizes than the bundle's, by the names of torchaudio.models.wav2vec2_model; it needs weights.
        layer: the features are those after so many layers; None is after all.
        seconds: longer sounds are cropped to their middle or, with an rng, to any part.
    """

    modality = "audio"

    def __init__(
        self, *, model: str, weights: str | None, config: Mapping[str, Any] | None, layer: int | None, seconds: float
    ) -> None:
        super().__init__()
        bundle = _bundle(model)
        if config and weights is None:
            raise InputError(f"config={dict(config)}: {model} has other sizes; give the path of weights of your own")
        known = bundle._params
        for key in config or {}:
            if key not in known:
                raise InputError(f"config: {model} has no {key!r}: {nearest(key, known)}")
        parameters = known | dict(config or {}) | {"aux_num_out": None}
        self.tower = _load(model, bundle, parameters, weights)
        layers = self.tower.encoder.transformer.layers
        if layer is not None:
            if not 1 <= layer <= len(layers):
                raise InputError(f"layer={layer}: {model} has layers 1 to {len(layers)}")
            self.tower.encoder.transformer.layers = layers[:layer]
        convolutions = parameters["extractor_conv_layer_config"] or CONVOLUTIONS
        least = least_samples((kernel, stride) for _, kernel, stride in convolutions)
        self.waves = Waves(rate=int(bundle.sample_rate), seconds=seconds, least=least)
        self._normalises = bundle._normalize_waveform
        self._masks = bundle._model_type == "Wav2Vec2" and parameters["extractor_mode"] == "layer_norm"
        self.width = parameters["encoder_embed_dim"]
        inputs = self.collate([torch.linspace(-1, 1, 2 * least)])
        freeze_unused(self.tower, lambda: self(inputs))
        bake(self.tower)

    def prepare(self, item: Audio, rng: np.random.Generator | None = None) -> Tensor:
        """Return the sound in mono [T] at the bundle's rate, of mean 0 and variance 1 if the bundle asks for that."""
        wave = torch.from_numpy(self.waves(item, rng)).unsqueeze(0)
        return (F.layer_norm(wave, wave.shape) if self._normalises else wave)[0]

    def collate(self, prepared: Sequence[Inputs]) -> Inputs:
        """Pad waves with silence to the longest, [B, T], and tell their lengths [B]."""
        return {
            "waves": pad_sequence(list(prepared), batch_first=True),
            "lengths": torch.tensor([len(one) for one in prepared]),
        }

    def forward(self, inputs: Inputs) -> Tensor:
        waves, lengths = inputs["waves"], inputs["lengths"]
        if not self._masks or bool((lengths == lengths[0]).all()):
            return by_length(lengths, lambda rows, length: self._last(waves[rows, :length])[0].mean(1))
        hidden, frames = self._last(waves, lengths)
        real = torch.arange(hidden.shape[1], device=hidden.device) < frames.unsqueeze(1)
        return (hidden * real.unsqueeze(-1)).sum(1) / frames.unsqueeze(1)

    def _last(self, waves: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the last layer's output [B, T, F] and how many of its frames are real [B]."""
        hidden, frames = self.tower.extract_features(waves, lengths)
        return hidden[-1], frames

    def describe(self) -> dict[str, Any]:
        return describe(torchaudio)  # of which are the rate, the norm and the sizes

    @cached_property
    def _depth(self) -> Depth:
        return find_depth(self.tower, self.forward, self.collate([torch.linspace(-1, 1, 2 * self.waves.least)]))

    def by_depth(self) -> Sequence[nn.Module]:
        return self._depth.layers(self.tower)


def _bundle(model: str) -> Any:
    """Return a bundle by its name."""
    bundles = {name: one for name, one in vars(pipelines).items() if isinstance(one, pipelines.Wav2Vec2Bundle)}
    if model not in bundles:
        raise InputError(f"torchaudio has no bundle {model!r}: {nearest(model, bundles)}")
    return bundles[model]


def _load(model: str, bundle: Any, parameters: Mapping[str, Any], weights: str | None) -> Any:
    """Return the model in eval mode; raise InputError if the weights can't be had or are not its own."""
    try:
        if weights is None:
            state = bundle._get_state_dict(None)
        elif Path(weights).suffix == ".safetensors":
            state = load_file(weights)
        else:
            state = torch.load(weights, map_location="cpu", weights_only=True)
        tower = MODELS[bundle._model_type](**parameters)
        tower.load_state_dict({name: one for name, one in state.items() if not name.startswith("aux.")})
    except UNLOADABLE as error:
        what = model if weights is None else f"{weights} for {model}"
        raise InputError(
            f"torchaudio can't load {what} ({explain(error, weights)}); without the network, give the path "
            "of a state dict of this model as `weights`"
        ) from error
    return tower.eval()
