from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import mmssl_audio
from mmssl_audio.conv import LogMelEncoder
from mmssl_audio.mel import BANDS, HIDDEN, SPANS, LogMel, disturb, hide
from mmssl_audio.modality import AUDIO, Audio
from mmssl_audio.transformer import SpectrogramTransformer
from multimodal_ssl import Catalog, InputError
from multimodal_ssl.testing import check_encoder

from ..toys import refusal
from .sounds import pitch, sine, sound
from .tokens import check_padding_mask


def small(*, augment: bool = True) -> LogMelEncoder:
    return LogMelEncoder(rate=8000, seconds=0.5, mels=32, width=16, augment=augment)


def transformer(
    *, seconds: float = 0.5, bands: int | None = 8, heads: int = 2, augment: bool = True
) -> SpectrogramTransformer:
    torch.manual_seed(0)
    return SpectrogramTransformer(
        rate=8000, seconds=seconds, mels=32, bands=bands, frames=8, width=32, depth=1, heads=heads, augment=augment
    )


ENCODERS = pytest.mark.parametrize("make", [small, transformer])
Make = Callable[..., LogMelEncoder | SpectrogramTransformer]


@pytest.mark.parametrize("rate", [8000, 11025, 22254, 44100, 44101, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_sine_of_any_rate_sounds_as_one_of_the_target_rate(rate: int, channels: int) -> None:
    log_mel = LogMel(rate=16000, seconds=0.5, mels=64)
    item = Audio(np.tile(sine(1000, rate=rate), (channels, 1)), rate)
    wave = log_mel.place(item)
    assert wave.shape == (8000,)
    assert pitch(wave, 16000) == pytest.approx(1000, abs=2)
    found, reference = log_mel.spectrogram(wave), log_mel.spectrogram(sine(1000))
    loud = reference[:, 5:-5] > reference.max() - 5  # natural logarithm: 20 dB
    torch.testing.assert_close(found[:, 5:-5][loud], reference[:, 5:-5][loud], atol=0.05, rtol=0)


def test_channels_are_averaged() -> None:
    log_mel = LogMel(rate=16000, seconds=0.5, mels=64)
    left, right = sine(500), sine(2000)
    np.testing.assert_allclose(log_mel.place(Audio(np.stack([left, right]), 16000)), (left + right) / 2, atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_a_long_sound_is_cropped_to_its_middle(rate: int) -> None:
    parts = [sine(frequency, rate=rate, seconds=1.0) for frequency in (500, 1000, 2000)]
    log_mel = LogMel(rate=16000, seconds=1.0, mels=64)
    whole, middle = Audio(np.concatenate(parts)[np.newaxis], rate), Audio(parts[1][np.newaxis], rate)
    np.testing.assert_allclose(log_mel.place(whole)[100:-100], log_mel.place(middle)[100:-100], atol=0.02)
    assert np.array_equal(log_mel.excerpt(whole), log_mel.place(whole))


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_a_short_sound_is_put_in_the_middle(rate: int) -> None:
    window = LogMel(rate=16000, seconds=1.0, mels=64).place(sound(440, rate=rate, seconds=0.5))
    np.testing.assert_allclose(window[4100:11900], sine(440)[100:-100], atol=1e-3)
    assert not window[:4000].any()
    assert not window[12001:].any()


def test_with_an_rng_a_sound_is_whole_somewhere_in_the_window() -> None:
    log_mel, item = LogMel(rate=16000, seconds=1.0, mels=64), sound(440, seconds=0.5)
    windows = [log_mel.place(item, np.random.default_rng(seed)) for seed in range(20)]
    starts = {int(np.flatnonzero(window)[0]) for window in windows}
    assert len(starts) > 15
    assert max(starts) - min(starts) > 4000
    for window in windows:
        np.testing.assert_array_equal(window[window != 0], sine(440)[sine(440) != 0])


def test_with_an_rng_a_long_sound_is_cropped_anywhere() -> None:
    log_mel = LogMel(rate=16000, seconds=0.5, mels=64)
    ramp = Audio(np.linspace(0, 1, 32000, dtype=np.float32)[np.newaxis], 16000)
    windows = [log_mel.place(ramp, np.random.default_rng(seed)) for seed in range(40)]
    for window in windows:
        assert window[-1] - window[0] == pytest.approx(7999 / 31999, abs=1e-3)
    begins = [window[0] for window in windows]
    assert min(begins) < 0.1
    assert max(begins) > 0.6


def test_a_shift_pushes_no_more_than_its_share_out_of_the_window() -> None:
    log_mel, item = LogMel(rate=16000, seconds=0.5, mels=64), Audio(np.ones((1, 8000), np.float32), 16000)
    kept = [int(log_mel.place(item, np.random.default_rng(seed), shift=0.1).sum()) for seed in range(40)]
    assert min(kept) >= 7199
    assert min(kept) < 7400
    assert len(set(kept)) > 20


@pytest.mark.parametrize(("rate", "mels"), [(8000, 64), (16000, 64), (16000, 128), (44100, 128)])
def test_every_mel_band_hears_something(rate: int, mels: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torchaudio warns of empty filters
        log_mel = LogMel(rate=rate, seconds=0.5, mels=mels)
    click = np.zeros(rate // 2, np.float32)
    click[rate // 4] = 1
    spectrogram = log_mel.spectrogram(click)
    assert spectrogram.shape == (mels, 51)
    assert (spectrogram.amax(1) > spectrogram.amin()).all()


@pytest.mark.parametrize("frequency", [300, 1000, 3000])
def test_a_sine_is_loudest_in_its_mel_band(frequency: int) -> None:
    spectrogram = LogMel(rate=16000, seconds=0.5, mels=64).spectrogram(sine(frequency))
    edges = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 66)
    nearest = np.abs(edges[1:-1] - 2595 * np.log10(1 + frequency / 700)).argmin()
    assert spectrogram[:, 25].argmax() == nearest


def test_twice_the_level_is_log_four_more_energy() -> None:
    log_mel = LogMel(rate=16000, seconds=0.5, mels=64)
    quiet, loud = log_mel.spectrogram(sine(1000, level=0.2)), log_mel.spectrogram(sine(1000, level=0.4))
    torch.testing.assert_close((loud - quiet)[:, 25].max(), torch.tensor(4.0).log(), atol=1e-3, rtol=0)


def test_the_disturbance_of_a_wave_is_gain_and_noise_within_bounds() -> None:
    wave = sine(1000, seconds=1.0)
    gains, ratios = [], []
    for seed in range(30):
        found = disturb(wave, np.random.default_rng(seed))
        gain = float(found @ wave / (wave @ wave))
        gains.append(20 * np.log10(gain))
        ratios.append(10 * np.log10(np.var(gain * wave) / np.var(found - gain * wave)))
    assert -6.1 < min(gains) < -3
    assert 3 < max(gains) < 6.1
    assert 14.5 < min(ratios) < 25
    assert 40 < max(ratios) < 50.5


def test_hiding_leaves_the_rest_as_it_was() -> None:
    spectrogram = torch.randn(64, 100, generator=torch.Generator().manual_seed(0))
    shares = []
    for seed in range(30):
        hidden = hide(spectrogram, np.random.default_rng(seed))
        changed = hidden != spectrogram
        assert (hidden[changed] == spectrogram.mean()).all()
        bands, spans = changed.all(1), changed.all(0)
        assert torch.equal(changed, bands[:, None] | spans[None, :]), "whole bands and whole spans"
        assert bands.sum() <= BANDS * HIDDEN * 64
        assert spans.sum() <= SPANS * HIDDEN * 100
        shares.append(changed.float().mean().item())
    assert max(shares) > 0.2


@ENCODERS
def test_the_encoders_conform(make: Make) -> None:
    stereo = Audio(np.stack([sine(300, rate=44100), sine(900, rate=44100)]), 44100)
    check_encoder(make(), [sound(440), sound(1500, rate=8000, seconds=2.0), stereo, sound(700, seconds=0.01)])


@ENCODERS
@pytest.mark.parametrize("augment", [True, False])
def test_all_chance_comes_from_the_rng(make: Make, augment: bool) -> None:
    encoder, item = make(augment=augment), sound(440, seconds=0.3)
    torch.manual_seed(1)
    first, state = encoder.prepare(item, np.random.default_rng(5)), torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(first, encoder.prepare(item, np.random.default_rng(5)))
    assert not torch.equal(first, encoder.prepare(item, np.random.default_rng(6)))
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())


@ENCODERS
def test_augmentation_can_be_switched_off(make: Make) -> None:
    full = sound(440, seconds=0.5)  # leaves no choice of a place
    rng = np.random.default_rng
    assert torch.equal(make(augment=False).prepare(full), make(augment=False).prepare(full, rng(0)))
    assert not torch.equal(make().prepare(full), make().prepare(full, rng(0)))


@ENCODERS
def test_adapt_makes_every_band_of_mean_zero_and_deviation_one(make: Make) -> None:
    encoder = make()
    rng = np.random.default_rng(0)
    items = [Audio(0.1 * rng.standard_normal((1, 4000), np.float32) * level, 8000) for level in (0.2, 1, 3)]
    encoder.adapt(iter(items))
    frames = torch.cat([(encoder.prepare(item) - encoder.mean) / encoder.std for item in items], dim=1)
    torch.testing.assert_close(frames.mean(1), torch.zeros(32), atol=1e-3, rtol=0)
    torch.testing.assert_close(frames.std(1), torch.ones(32), atol=1e-2, rtol=0)


def test_padding_has_no_part_in_what_adapt_learns() -> None:
    long, short = small(), LogMelEncoder(rate=8000, seconds=5.0, mels=32, width=16, augment=True)
    for encoder in (long, short):
        encoder.adapt([sound(440, rate=8000), sound(900, rate=8000)])
    torch.testing.assert_close(long.mean, short.mean)


@ENCODERS
def test_the_network_sees_what_adapt_has_normalised(make: Make, generator: torch.Generator) -> None:
    encoder, spectrogram = make().eval(), torch.randn(2, 32, 51, generator=generator)
    with torch.no_grad():
        reference = encoder(spectrogram)
        encoder.mean.copy_(torch.randn(32, 1, generator=generator))
        encoder.std.copy_(torch.rand(32, 1, generator=generator) + 0.5)
        torch.testing.assert_close(encoder(spectrogram * encoder.std + encoder.mean), reference)


@ENCODERS
def test_adapting_to_nothing_changes_nothing(make: Make) -> None:
    encoder = make()
    encoder.adapt([])
    assert torch.equal(encoder.std, torch.ones(32, 1))


@ENCODERS
def test_preparation_needs_nothing_of_the_device_that_the_encoder_is_on(make: Make) -> None:
    encoder, item = make(), sound(440)
    before = encoder.prepare(item)
    assert torch.equal(encoder.to("meta").prepare(item), before)


@ENCODERS
def test_a_few_steps_tell_rising_from_falling_sounds(make: Make) -> None:
    torch.manual_seed(0)
    encoder, rng = make(augment=False), np.random.default_rng(0)
    head = torch.nn.Linear(encoder.width, 2)
    time = np.arange(4000) / 8000
    items = [
        AUDIO.load(Audio(np.sin(2 * np.pi * (start + (1600 if index % 2 else -1600) * time) * time)[np.newaxis], 8000))
        for index, start in enumerate(rng.uniform(1600, 2000, 48))
    ]
    encoder.adapt(items)
    inputs, label = encoder.collate([encoder.prepare(item) for item in items]), torch.arange(48) % 2
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=3e-3)
    for _ in range(12):
        loss = F.cross_entropy(head(encoder(inputs[:32])), label[:32])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    assert (head(encoder(inputs[32:])).argmax(1) == label[32:]).float().mean() > 0.9


@pytest.mark.parametrize(("seconds", "tokens"), [(0.5, 4 * 7), (0.63, 4 * 8), (0.64, 4 * 9), (1.0, 4 * 13)])
def test_a_token_is_a_patch_and_the_last_frames_are_filled_up(seconds: float, tokens: int) -> None:
    encoder = transformer(seconds=seconds).eval()
    inputs = torch.stack([encoder.prepare(sound(440, rate=8000)), encoder.prepare(sound(900, rate=8000, seconds=2.0))])
    assert inputs.shape[2] == encoder.log_mel.frames
    found, mask = encoder.embed(inputs)
    assert found.shape == (2, tokens, 32)
    assert mask.all()
    inputs[0, 8:16, 16:24] += 1  # the second row of patches, the third of them
    changed = (encoder.embed(inputs)[0] - found).abs().amax(2) > 1e-6
    assert changed.nonzero().tolist() == [[0, tokens // 4 + 2]]
    assert transformer(seconds=seconds, bands=None).embed(inputs)[0].shape == (2, tokens // 4, 32)


def test_hidden_patches_are_not_seen(generator: torch.Generator) -> None:
    encoder = transformer().train()
    check_padding_mask(encoder, encoder.blocks, 32, generator)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"bands": 5}, "mels 32 must be a multiple of bands 5"), ({"heads": 3}, "width 32 of heads 3")],
)
def test_patches_and_heads_that_do_not_fit_are_told(options: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        transformer(**options)  # type: ignore[arg-type]  # of each its own type


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 16001}, "multiple of 25"),
        ({"rate": 0}, "multiple of 25"),
        ({"rate": 50}, "at least 100, not 50"),
        ({"seconds": 0.0}, "seconds must be at least"),
        ({"mels": 0}, "mels must be positive"),
        ({"width": 20}, "multiple of 16"),
    ],
)
def test_options_that_can_not_be_are_refused(options: dict[str, float], message: str) -> None:
    known: dict[str, Any] = {"rate": 8000, "seconds": 0.5, "mels": 32, "width": 16, "augment": True}
    with pytest.raises(InputError, match=message):
        LogMelEncoder(**{**known, **options})


@pytest.mark.parametrize("name", ["log-mel-conv", "spectrogram-transformer"])
@pytest.mark.parametrize(("option", "value"), [("rate", 75), ("mels", 0), ("width", 0)])
def test_options_of_the_factories_that_can_not_be_are_refused_by_name(name: str, option: str, value: int) -> None:
    message = refusal(lambda: Catalog.of(audio=mmssl_audio).create("encoders", name, options={option: value}))
    assert f"{option}: " in message
    assert "greater than or equal to" in message


@pytest.mark.parametrize("name", ["log-mel-conv", "spectrogram-transformer", "torchaudio-bundle"])
@pytest.mark.parametrize("seconds", [math.nan, math.inf, 1e12])
def test_seconds_are_a_number_and_no_more_than_a_day(name: str, seconds: float) -> None:
    options = {"seconds": seconds} | ({"model": "WAV2VEC2_BASE"} if name == "torchaudio-bundle" else {})
    message = refusal(lambda: Catalog.of(audio=mmssl_audio).create("encoders", name, options=options))
    assert f"seconds: Input should be less than or equal to 86400 (given: {seconds})" in message
