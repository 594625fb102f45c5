"""The configs for GPUs run to their end, on shards and with weights as small as they can be."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pytest
import soundfile
import torch
import transformers
import yaml
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

import mmssl_open_clip.loading
from multimodal_ssl import load_config
from multimodal_ssl.pipeline import bench, fit

from .plugins.hf_sounds import SIZES, save_model
from .plugins.open_clip_models import TINY

CONFIGS = Path(__file__).parents[1] / "configs"
ROWS = 8


def png(values: np.ndarray, kind: str = "png") -> bytes:
    """Return a picture of such numbers as the bytes of a file."""
    file = io.BytesIO()
    Image.fromarray(values).save(file, kind)
    return file.getvalue()


def sound(rng: np.random.Generator) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, rng.normal(0, 0.1, 16000), 16000, format="FLAC")
    return file.getvalue()


def series(rng: np.random.Generator) -> bytes:
    file = io.BytesIO()
    np.save(file, rng.normal(size=(6, 200)).astype(np.float32))
    return file.getvalue()


FILES: dict[str, Callable[[np.random.Generator], bytes]] = {
    "image": lambda rng: png(rng.integers(0, 256, (40, 50, 3), np.uint8), "jpeg"),
    "depth": lambda rng: png(rng.integers(500, 9000, (40, 50), np.uint16)),
    "thermal": lambda rng: png(rng.integers(0, 256, (40, 50), np.uint8)),
    "audio": sound,
    "motion": series,
    "text": lambda rng: " ".join(rng.choice(["red", "fox", "can", "shelf", "rain"], 4)).encode(),
}


def write_shards(path: Path, items: dict[str, str], rng: np.random.Generator) -> None:
    """Write a shard that has every item the config takes from it."""
    with tarfile.open(path, "w") as tar:
        for row in range(ROWS):
            for item, extension in items.items():
                body = FILES[item](rng)
                info = tarfile.TarInfo(f"{row:04}.{extension}")
                info.size = len(body)
                tar.addfile(info, io.BytesIO(body))


def clip(folder: Path, dim: int) -> list[str]:
    """Save a small model of open_clip and return what lets both of its towers begin from it."""
    config, weights = folder / f"{folder.name}-clip.json", folder / "weights.safetensors"
    config.write_text(json.dumps(TINY | {"embed_dim": dim}))
    model = open_clip.create_model(mmssl_open_clip.loading._register(str(config)))
    save_file(model.state_dict(), weights)
    return [f"encoders.{item}.model={config}" for item in ("image", "text")] + [f"encoders.image.pretrained={weights}"]


def words(folder: Path) -> str:
    """Save a small text model with its tokenizer and return its folder."""
    folder.mkdir()
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "red": 1, "fox": 2, "can": 3, "shelf": 4, "rain": 5}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(folder)
    transformers.BertModel(transformers.BertConfig(**SIZES, vocab_size=6)).save_pretrained(folder)
    return str(folder)


def small_weights(name: str, folder: Path, dim: int) -> list[str]:
    """Return overrides that put small weights in place of those a config takes from a hub."""
    torch.manual_seed(0)
    if name == "imagebind":
        towers = clip(folder, dim)
        (folder / "ast").mkdir()
        audio = save_model(folder / "ast", "ast")
        sizes = ["encoders.depth.size=32", "encoders.thermal.size=32", "encoders.motion.length=200"]
        return [
            *towers,
            f"encoders.text.pretrained={folder / 'weights.safetensors'}",
            f"encoders.audio.model={audio}",
            *sizes,
        ]
    if name == "clap":
        (folder / "ast").mkdir()
        audio, text = save_model(folder / "ast", "ast"), words(folder / "bert")
        return [f"encoders.audio.model={audio}", f"encoders.text.model={text}", "encoders.text.length=16"]
    return clip(folder, dim) if name == "lit" else clip(folder, dim)[:2]


@pytest.mark.parametrize("name", ["imagebind", "clap", "lit", "siglip"])
def test_configs_for_gpus_run_to_their_end(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMSSL_CACHE", str(tmp_path / "cache"))
    config, rng = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()), np.random.default_rng(0)
    steps = 2 * len(config["sources"])  # each has its turn
    changes = [
        f"run={tmp_path / 'run'}",
        f"train.steps={steps}",
        "train.batch=4",
        "train.workers=0",
        "train.log_every=1",
    ]
    changes += small_weights(name, tmp_path, config["binder"]["dim"])
    for kind in ("sources", "evaluation"):
        for number, source in enumerate(config[kind]):
            write_shards(tmp_path / f"{kind}-{number}.tar", source["items"], rng)
            changes.append(f"{kind}.{number}.path={tmp_path / f'{kind}-{number}.tar'}")
    directions = bench(tmp_path / "run", binder=fit(load_config(CONFIGS / f"{name}.yaml", changes)))

    losses = [json.loads(line)["loss"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert np.isfinite(losses).all()
    assert len(losses) == steps
    held_out = tuple(config["evaluation"][0]["items"])
    assert {(one.query, one.gallery) for one in directions} == {held_out, held_out[::-1]}
