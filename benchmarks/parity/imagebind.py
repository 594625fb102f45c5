"""Compare our towers of ImageBind, number by number, with the official code that the package imagebind-packaged holds.

Into an environment of its own, so that nothing of it is found by anybody else::

    uv venv peer
    VIRTUAL_ENV=peer uv pip install --no-deps imagebind-packaged==0.1.2 peachdb-pytorchvideo==0.1.6 \\
        iopath fvcore einops yacs portalocker parameterized eva-decord
    PYTHONPATH=plugins:.:peer/lib/python3.11/site-packages python -P benchmarks/parity/imagebind.py [--huge]

-P keeps this file's folder off the path, or it would be imported for the package of its name. peachdb-pytorchvideo is
pytorchvideo as it stood in June 2023; the official code asks for a commit that is newer than release 0.1.5, whose clips
are spread differently, and we take the two for equal. The package lacks what the official code has learnt since: that
texts which are cut keep their end. Here none is cut.

Weights are random, the same for both. Of --huge one tower is in memory at a time: 4 GB and three minutes on one core.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import soundfile
import torch
import torchaudio
import torchvision
from PIL import Image
from torch import Tensor, nn

import mmssl_imagebind
from mmssl_imagebind.checkpoint import PARTS
from mmssl_imagebind.tower import Size, Tower
from multimodal_ssl import Catalog

sys.modules["torchvision.transforms.functional_tensor"] = torchvision.transforms._functional_tensor  # its old name
data = import_module("imagebind.data")
decord = import_module("decord")
peer = import_module("imagebind.models.imagebind_model")

CATALOG = Catalog.of(imagebind=mmssl_imagebind)
TINY = {name: Size(32, 2, 4, 24) for name in ("vision", "text", "audio", "depth", "thermal", "imu")}
HUGE = {
    "vision": Size(1280, 32, 16, 1024),
    "text": Size(1024, 24, 16, 1024),
    "audio": Size(768, 12, 12, 1024),
    "depth": Size(384, 12, 8, 1024),
    "thermal": Size(768, 12, 12, 1024),
    "imu": Size(512, 6, 8, 1024),
}
INPUTS = {  # name of the encoder -> tower, shape of a batch
    "image": ("vision", (2, 3, 224, 224)),
    "video": ("vision", (1, 2, 3, 2, 224, 224)),
    "text": ("text", (2, 77)),
    "audio": ("audio", (2, 3, 1, 128, 204)),
    "depth": ("depth", (2, 1, 224, 224)),
    "thermal": ("thermal", (2, 1, 224, 224)),
    "imu": ("imu", (2, 6, 2000)),
}


class Sound(NamedTuple):
    """What the modality of sounds gives."""

    samples: np.ndarray
    rate: int


@contextmanager
def on_meta() -> Iterator[None]:
    """Make modules without memory; how often a block is dropped the official code asks a tensor, which needs some."""
    linspace = torch.linspace
    torch.linspace = partial(linspace, device="cpu")  # type: ignore[assignment]  # a partial is called alike
    try:
        with torch.device("meta"):
            yield
    finally:
        torch.linspace = linspace


def tiny_official() -> Any:
    """Return the official model at the size TINY."""
    sizes = {
        f"{name}_{key}": value
        for name, size in TINY.items()
        for key, value in (("embed_dim", size.width), ("num_blocks", size.depth), ("num_heads", size.heads))
    }
    return peer.ImageBindModel(out_embed_dim=24, **sizes)


def shake(module: nn.Module) -> None:
    """Move all weights: what begins as 0 or 1 would hide what is before it."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)


def compare_towers(label: str, official: Any, sizes: dict[str, Size]) -> None:
    """Print how far the embeddings of each encoder's tower are apart; the official model gets our weights, by name."""
    tower, ours = "", None
    for name, (wanted, shape) in INPUTS.items():
        if wanted != tower:
            if ours is not None:
                ours.to("meta")
                official.to("meta")
            tower, ours = wanted, Tower(wanted, sizes[wanted]).eval()
            shake(ours)
            for part in PARTS:
                theirs = getattr(official, part)[tower]
                theirs.load_state_dict(getattr(ours, part)[tower].state_dict(), strict=True, assign=True)
        assert ours is not None
        inputs = torch.randint(1, 49000, shape) if name == "text" else torch.randn(shape)
        if name == "text":
            inputs[0, 30], inputs[0, 31:] = 49407, 0
        with torch.no_grad():
            expected = official({tower: inputs})[tower]
            features = ours(inputs.flatten(0, 1)).unflatten(0, shape[:2]).mean(1) if len(shape) > 4 else ours(inputs)
        for post in official.modality_postprocessors[tower].children():
            if "log_logit_scale" in post.state_dict():
                expected = expected / post(torch.ones(()))
        row(f"{label} {name}", features, expected)


def row(what: str, ours: Tensor, theirs: Tensor) -> None:
    """Print the largest difference, and the largest value it is to be seen beside."""
    assert ours.shape == theirs.shape, (what, ours.shape, theirs.shape)
    worst = (ours.double() - theirs.double()).abs().max().item()
    print(
        f"{what:38} {worst:9.2e} {theirs.abs().max().item():9.2e}  {'same bits' if torch.equal(ours, theirs) else ''}"
    )


def encoder(name: str, size: Size, **options: Any) -> Any:
    """Return one of our encoders."""
    return CATALOG.create("encoders", f"imagebind-{name}", options={**size._asdict(), **options}).eval()


def compare_preparation(folder: Path) -> None:
    """Print how far what the towers are given is apart, for files of several shapes."""
    rng = np.random.default_rng(0)
    ours = encoder("image", TINY["vision"])
    for height, width in ((300, 500), (501, 333), (100, 90), (224, 224)):
        path = folder / "picture.png"
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(path)
        given: list[Tensor] = []
        handle = ours.tower.register_forward_pre_hook(lambda _, inputs, given=given: given.append(inputs[0]))
        ours(ours.collate([ours.prepare(Image.open(path))]))
        handle.remove()
        row(f"picture {width} x {height}", given[0], data.load_and_transform_vision_data([path], "cpu"))

    texts = ["A dog.", " two  &amp;amp; a half CAFÉS — déjà vu!", "word " * 75, "1234'll 🙂 \n x"]
    tokens = torch.stack([encoder("text", TINY["text"]).prepare(text)["tokens"] for text in texts])
    row("texts", tokens, data.load_and_transform_text(texts, "cpu"))

    torchaudio.load = lambda path: (torch.from_numpy(soundfile.read(path, dtype="float32", always_2d=True)[0].T), rate)
    for rate, seconds, channels in ((16000, 9.37, 1), (44100, 3.01, 2), (48000, 7.7, 1), (22050, 1.2, 1), (8000, 2, 2)):
        path = folder / "sound.wav"
        soundfile.write(path, 0.1 * rng.standard_normal((int(rate * seconds), channels)) + 0.05, rate, "FLOAT")
        samples = soundfile.read(path, dtype="float32", always_2d=True)[0].T.copy()
        mine = encoder("audio", TINY["audio"]).prepare(Sound(samples, rate))
        row(f"sound {rate} Hz {seconds} s {channels} ch", mine, data.load_and_transform_audio_data([path], "cpu")[0])

    for height, width, rate, frames in ((240, 320, 25, 333), (500, 288, 30, 90), (240, 320, 24, 30)):
        path = folder / f"film{height}.mp4"
        write_video(path, height, width, rate, frames, rng)
        reader = decord.VideoReader(str(path))
        pictures = reader.get_batch(range(len(reader)))
        item = pictures.numpy() if isinstance(pictures, Tensor) else pictures.asnumpy()
        mine = encoder("video", TINY["vision"], rate=reader.get_avg_fps()).prepare(item)
        what = f"video {width} x {height} {rate} Hz {frames / rate:.1f} s"
        row(what, mine, data.load_and_transform_video_data([str(path)], "cpu")[0])


def write_video(path: Path, height: int, width: int, rate: int, frames: int, rng: np.random.Generator) -> None:
    """Write a film whose every picture differs."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for place in range(frames):
            small = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)).resize((width, height))
            frame = av.VideoFrame.from_ndarray(np.asarray(small) // 2 + place % 100, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def compare_files(folder: Path) -> None:
    """Print how far encoders that read the official model's own file are from it."""
    official = tiny_official().eval()
    shake(official)
    path = folder / "tiny.pth"
    torch.save(official.state_dict(), path)
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (300, 400, 3), np.uint8))
    picture.save(folder / "picture.png")
    with torch.no_grad():
        ours = encoder("image", TINY["vision"], checkpoint=str(path))
        theirs = official({"vision": data.load_and_transform_vision_data([folder / "picture.png"], "cpu")})["vision"]
        row("file to embedding, image", ours(ours.collate([ours.prepare(picture)])), theirs)
        ours = encoder("text", TINY["text"], checkpoint=str(path))
        theirs = official({"text": data.load_and_transform_text(["a red fox"], "cpu")})["text"]
        scale = official.modality_postprocessors["text"][1].log_logit_scale.exp()
        row("file to embedding, text", ours(ours.collate([ours.prepare("a red fox")])), theirs / scale)


def compare_names() -> None:
    """Print whether the huge models have the same names and shapes."""
    with on_meta():
        theirs = {key: tuple(one.shape) for key, one in peer.imagebind_huge().state_dict().items()}
        mine: dict[str, tuple[int, ...]] = {}
        for name, size in HUGE.items():
            mine |= {key: tuple(one.shape) for key, one in Tower(name, size).state_dict().items()}
    count = sum(int(np.prod(shape)) for shape in theirs.values())
    print(
        f"names and shapes of imagebind_huge: {len(theirs)}, {count:,} numbers, {'same' if mine == theirs else 'NOT'}"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--huge", action="store_true", help="compare towers of the official size, too")
    huge = parser.parse_args().huge
    torch.manual_seed(0)
    versions = ", ".join(
        f"{name} {version(name)}" for name in ("imagebind-packaged", "torch", "torchaudio", "torchvision")
    )
    print(f"{versions}; {torch.get_num_threads()} thread, CPU")
    compare_names()
    print(f"{'':38} {'largest':>9} {'largest':>9}\n{'':38} {'diff':>9} {'value':>9}")
    with tempfile.TemporaryDirectory() as folder:
        compare_preparation(Path(folder))
        compare_files(Path(folder))
    compare_towers("tiny", tiny_official().eval(), TINY)
    if huge:
        with on_meta():
            official = peer.imagebind_huge().eval()
        compare_towers("huge", official, HUGE)


if __name__ == "__main__":
    main()
