"""Sound: the modality, encoders of log-mel spectrograms, and the pretrained models of torchaudio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge

from mmssl_pretrained.options import Seconds
from multimodal_ssl import hookimpl

if TYPE_CHECKING:
    from multimodal_ssl import Encoder, Modality
    from multimodal_ssl.hookspecs import Register


def audio() -> Modality:
    """Sounds of any rate and channel count: WAV, FLAC, OGG, MP3, from paths, bytes or Audio(samples, rate)."""
    from mmssl_audio.modality import AUDIO

    return AUDIO


def log_mel_conv(
    *,
    rate: Annotated[int, Ge(100)] = 16000,
    seconds: Seconds = 2.0,
    mels: Annotated[int, Ge(1)] = 64,
    width: Annotated[int, Ge(1)] = 32,
    augment: bool = True,
) -> Encoder:
    """A residual network on log-mel spectrograms of so many seconds, to train from scratch; F is 8 * width."""
    from mmssl_audio.conv import LogMelEncoder

    return LogMelEncoder(rate=rate, seconds=seconds, mels=mels, width=width, augment=augment)


def spectrogram_transformer(
    *,
    rate: Annotated[int, Ge(100)] = 16000,
    seconds: Seconds = 2.0,
    mels: Annotated[int, Ge(1)] = 64,
    bands: Annotated[int, Ge(1)] | None = None,
    frames: Annotated[int, Ge(1)] = 4,
    width: Annotated[int, Ge(1)] = 128,
    depth: Annotated[int, Ge(1)] = 4,
    heads: Annotated[int, Ge(1)] = 4,
    augment: bool = True,
) -> Encoder:
    """A transformer over patches of log-mel spectrograms of so many seconds, to train from scratch; F is width.

    Args:
        rate: samples per second that sounds are resampled to.
        seconds: longer sounds are cropped, shorter ones padded with silence.
        mels: number of mel bands.
        bands: mel bands of a token, which divide mels; all of them, if not given. Squares, such as 16 bands and 16
            frames, need more data to learn from.
        frames: frames of 10 ms of a token.
        heads: of attention; they divide width.
        augment: in training shift, disturb and hide parts of sounds.
    """
    from mmssl_audio.transformer import SpectrogramTransformer

    return SpectrogramTransformer(
        rate=rate, seconds=seconds, mels=mels, bands=bands, frames=frames, width=width, depth=depth, heads=heads,
        augment=augment,
    )  # fmt: skip


def torchaudio_bundle(
    *,
    model: str,
    weights: str | None = None,
    config: dict[str, Any] | None = None,
    layer: int | None = None,
    seconds: Seconds = 10.0,
) -> Encoder:
    """A pretrained wav2vec 2.0, HuBERT or WavLM of torchaudio, at the rate that it was trained on.

    Args:
        model: a bundle of torchaudio.pipelines, such as WAV2VEC2_BASE, HUBERT_LARGE or WAVLM_BASE_PLUS.
        weights: the path of a state dict of the model; None takes the bundle's from torch's cache or the network.
        config: other sizes than the bundle's, by the names of torchaudio.models.wav2vec2_model; it needs weights.
        layer: the features are those after so many layers; None is after all.
        seconds: longer sounds are cropped to their middle or, to augment, to any part.
    """
    from mmssl_audio.bundle import TorchaudioBundle

    return TorchaudioBundle(model=model, weights=weights, config=config, layer=layer, seconds=seconds)


@hookimpl
def register_modalities(register: Register) -> None:
    register("audio", audio)


@hookimpl
def register_encoders(register: Register) -> None:
    register("log-mel-conv", log_mel_conv, modalities=("audio",))
    register("spectrogram-transformer", spectrogram_transformer, modalities=("audio",))
    register("torchaudio-bundle", torchaudio_bundle, modalities=("audio",))
