"""Sound: the modality and a log-mel convolutional encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multimodal_ssl import hookimpl

if TYPE_CHECKING:
    from multimodal_ssl import Encoder, Modality
    from multimodal_ssl.hookspecs import Register


def audio() -> Modality:
    """Sounds of any rate and channel count: WAV, FLAC, OGG, MP3, from paths, bytes or Audio(samples, rate)."""
    from mmssl_audio.modality import AUDIO

    return AUDIO


def log_mel_conv(
    *, rate: int = 16000, seconds: float = 2.0, mels: int = 64, width: int = 32, augment: bool = True
) -> Encoder:
    """A residual network on log-mel spectrograms of so many seconds, to train from scratch; F is 8 * width."""
    from mmssl_audio.conv import LogMelEncoder

    return LogMelEncoder(rate=rate, seconds=seconds, mels=mels, width=width, augment=augment)


@hookimpl
def register_modalities(register: Register) -> None:
    register("audio", audio)


@hookimpl
def register_encoders(register: Register) -> None:
    register("log-mel-conv", log_mel_conv)
