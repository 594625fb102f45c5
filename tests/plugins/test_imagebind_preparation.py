"""What ImageBind's towers are given of raw items, beside torchvision and torchaudio."""

import math

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torchaudio import functional as sound
from torchaudio.compliance import kaldi
from torchvision import transforms

import mmssl_imagebind
from multimodal_ssl import Catalog, InputError

from .imagebind_checkpoints import SIZE, Sound

CATALOG = Catalog.of(imagebind=mmssl_imagebind)
CLIP = transforms.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def encoder(name, **options):
    return CATALOG.create("encoders", f"imagebind-{name}", options=SIZE._asdict() | options).eval()


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("shape", [(300, 501, 3), (401, 224, 3), (90, 100)])
def test_pictures_are_those_of_torchvision_bit_for_bit(shape):
    picture, one, seen = Image.fromarray(noise(*shape)), encoder("image"), []
    one.tower.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    one(one.collate([one.prepare(picture)]))
    resize = transforms.Resize(224, transforms.InterpolationMode.BICUBIC)
    expected = transforms.Compose([resize, transforms.CenterCrop(224), transforms.ToTensor(), CLIP])
    assert torch.equal(seen[0][0], expected(picture.convert("RGB")))


def test_texts_are_those_of_clip_and_cut_ones_are_counted():
    one, tokenizer = encoder("text"), open_clip.SimpleTokenizer()
    texts = ["", "A red  fox &amp; CAFÉ", "word " * 75, "word " * 76, "word " * 200]
    inputs = one.collate([one.prepare(text) for text in texts])
    assert torch.equal(inputs["tokens"], tokenizer(texts))
    assert one.tally(inputs) == {"truncated": 2}


@pytest.mark.parametrize(("rate", "seconds", "channels"), [(16000, 9.3, 1), (44100, 6.5, 2), (22050, 1.1, 1)])
def test_sounds_are_those_of_torchaudio_bit_for_bit(rate, seconds, channels):
    samples = np.random.default_rng(1).normal(0.1, 0.2, (channels, int(rate * seconds))).astype(np.float32)
    found = encoder("audio").prepare(Sound(samples, rate))
    wave = torch.from_numpy(samples)
    wave = wave.clone() if rate == 16000 else sound.resample(wave, rate, 16000)
    room = max(0, wave.shape[1] - 32000)
    assert found.shape == (3, 1, 128, 204)
    for place, view in enumerate(found):
        start = room * place // 2
        clip = wave[:, start : start + 32000]
        clip -= clip.mean()
        mels = kaldi.fbank(clip[:1], num_mel_bins=128, window_type="hanning", dither=0.0, sample_frequency=16000)
        whole = torch.zeros(204, 128)
        whole[: len(mels)] = mels
        assert torch.equal(view[0], (whole.T - -4.268) / 9.138)


def test_a_sound_is_left_as_it_was_and_may_be_short_or_of_a_strange_rate():
    for length, rate in ((5, 16000), (40000, 44101), (32000, 16000)):
        samples = np.full((1, length), 0.5, np.float32)
        assert torch.isfinite(encoder("audio").prepare(Sound(samples, rate))).all()
        assert (samples == 0.5).all()


@pytest.mark.parametrize(
    ("shape", "rate"), [((260, 60, 80, 3), 20.0), ((31, 300, 224, 3), 30.0), ((11, 240, 240, 3), 2)]
)
def test_videos_are_five_clips_of_two_pictures_in_three_crops(shape, rate):
    item = noise(*shape)
    found = encoder("video", rate=rate).prepare(item)
    assert found.shape == (15, 3, 2, 224, 224)
    latest, (height, width) = max(0, len(item) / rate - 2), shape[1:3]
    h, w = (224, int(width / height * 224)) if height <= width else (int(height / width * 224), 224)
    for view, pixels in enumerate(found):
        start = latest * (view // 3) / 4
        inside = [place for place in range(len(item)) if start - 1e-9 <= place / rate < start + 2 - 1e-9]
        for frame, place in enumerate((inside[0], inside[-1])):
            picture = torch.from_numpy(item[place]).permute(2, 0, 1) / 255
            whole = CLIP(F.interpolate(picture[None], (h, w), mode="bilinear"))[0]
            top, left = (math.ceil((side - 224) / 2 * (view % 3)) for side in (h, w))
            torch.testing.assert_close(pixels[:, frame], whole[:, top : top + 224, left : left + 224])


def test_a_video_of_unknown_rate_is_taken_for_one_of_ten_seconds():
    for length in (1, 2, 5, 10, 33, 100):
        item = noise(length, 8, 8, 3)
        assert torch.equal(encoder("video").prepare(item), encoder("video", rate=length / 10).prepare(item))


def test_depth_becomes_disparity_and_what_is_missing_the_mean():
    item = np.full((240, 320), 2.0, np.float32)
    item[:, 200:] = np.nan
    found = encoder("depth", focal=500, baseline=0.1, mean=10, std=5).prepare(item)
    assert found.shape == (1, 224, 224)
    assert found[0, :, 0] == pytest.approx((500 * 0.1 / 2 - 10) / 5)  # a disparity of 25 pixels
    assert found[0, :, -1] == pytest.approx(0)
    near, far = (encoder("depth").prepare(np.full((9, 9), one, np.float32)).mean() for one in (1.0, 5.0))
    assert near > 0 > far


def test_thermal_maps_are_scaled_to_their_own_range_or_to_one_that_is_given():
    item = np.tile(np.linspace(10, 30, 224, dtype=np.float32), (224, 1))
    item[0] = np.nan
    own = encoder("thermal").prepare(item)
    torch.testing.assert_close(own[0, 1:], torch.linspace(0, 1, 224).expand(223, -1), atol=1e-5, rtol=0)
    assert (own[0, 0] == 0).all()
    given = encoder("thermal", low=20, high=40).prepare(item)
    torch.testing.assert_close(given[0, 1:], (torch.linspace(10, 30, 224).clamp(20) - 20).expand(223, -1) / 20)
    assert torch.isfinite(encoder("thermal").prepare(np.ones((30, 40), np.float32))).all()


def test_measurements_are_the_middle_two_thousand_steps_and_zeros_after_a_short_series():
    item = np.random.default_rng(0).standard_normal((6, 2501)).astype(np.float32)
    assert np.array_equal(encoder("imu").prepare(item).numpy(), item[:, 250:2250])
    short = encoder("imu").prepare(item[:, :100]).numpy()
    assert np.array_equal(short[:, :100], item[:, :100])
    assert not short[:, 100:].any()
    with pytest.raises(ValueError, match="6 channels, not of shape"):
        encoder("imu").prepare(item[:3])


def test_measurements_are_resampled_and_gaps_are_bridged():
    time = np.arange(500) / 100  # five seconds
    item = np.stack([np.sin(2 * np.pi * f * time) for f in (1, 2, 3, 1, 2, 3)]).astype(np.float32)
    item[0, 100:110] = np.nan
    item[5] = np.nan
    found = encoder("imu", rate=100).prepare(item).numpy()
    expected = np.sin(2 * np.pi * np.arange(2000) / 400 * 2)
    assert np.abs(found[1] - expected)[:1990].max() < 0.01
    assert np.isfinite(found).all()
    assert found[0, 400 : 4 * 109].max() < 0.65
    assert not found[5].any()


@pytest.mark.parametrize("name", ["image", "video", "audio", "depth", "thermal", "imu"])
def test_training_sees_a_part_that_is_drawn_from_the_rng_alone(name):
    items = {
        "image": Image.fromarray(noise(300, 400, 3)),
        "video": noise(40, 30, 40, 3),
        "audio": Sound(np.random.default_rng(0).normal(0, 0.1, (1, 90000)).astype(np.float32), 16000),
        "imu": np.random.default_rng(0).standard_normal((6, 3000)).astype(np.float32),
    }
    item = items.get(name, np.random.default_rng(0).uniform(1, 2, (300, 400)).astype(np.float32))
    one = encoder(name)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first, same, other = (one.prepare(item, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)
    whole = one.prepare(item)
    assert first.shape == ((1, *whole.shape[1:]) if name in ("video", "audio") else whole.shape)


def test_options_that_can_not_be_are_refused():
    for name, options in {
        "video": {"rate": 0},
        "imu": {"rate": -1},
        "depth": {"focal": 0},
        "thermal": {"low": 3, "high": 2},
    }.items():
        with pytest.raises(InputError, match=f"imagebind-{name}: "):
            encoder(name, **options)
