"""What the plugins of pretrained models say of weights that are none: the same, and never to trust a pickle."""

import errno
import json
import pickle
from pathlib import Path

import pytest
import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import mmssl_audio
import mmssl_imagebind
import mmssl_open_clip
import mmssl_timm
import mmssl_transformers
from mmssl_pretrained.weights import explain
from multimodal_ssl import Catalog, InputError

from . import test_hf_image, test_hugging_face

CATALOG = Catalog.of(
    audio=mmssl_audio, imagebind=mmssl_imagebind, open_clip=mmssl_open_clip, timm=mmssl_timm, hf=mmssl_transformers
)
READERS = {
    "open-clip-image": lambda path: {"model": "ViT-B-32", "pretrained": path},
    "timm-image": lambda path: {"model": "resnet10t", "pretrained": path},
    "torchaudio-bundle": lambda path: {"model": "WAV2VEC2_BASE", "weights": path, "seconds": 1.0},
    "imagebind-imu": lambda path: {"checkpoint": path},
}


class Small(torch.nn.Module):
    def forward(self, x):
        return x


def archive(path):
    torch.save({"a": torch.zeros(3000)}, path)
    path.write_bytes(path.read_bytes()[:5000])


BROKEN = {
    "empty.pt": lambda path: path.write_bytes(b""),
    "pointer.pt": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 3\n"),
    "cut.pt": archive,
    "more.pt": lambda path: torch.save({"a": Path("a")}, path),
    "script.pt": lambda path: torch.jit.script(Small()).save(path),
    "empty.safetensors": lambda path: path.write_bytes(b""),
    "pointer.safetensors": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
}


@pytest.mark.filterwarnings("ignore:.*TorchScript archive", "ignore:.*torch.jit")
@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("reader", READERS)
def test_files_that_hold_no_tensors_are_told_in_one_line_without_torchs_advice(reader, name, tmp_path, monkeypatch):
    monkeypatch.setattr("open_clip.factory.CLIP", lambda **_: torch.nn.Linear(1, 1))  # it is made first
    BROKEN[name](tmp_path / name)
    with pytest.raises(InputError, match=f"{name}.*damaged, or a pointer .*git lfs pull, or .*more than") as caught:
        CATALOG.create("encoders", reader, options=READERS[reader](str(tmp_path / name)))
    assert "weights_only" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_errors_are_told_in_words(tmp_path):
    assert explain(OSError("no route")) == "no route"
    assert explain(AssertionError()) == "AssertionError"
    assert explain(KeyError("depth")) == "it lacks 'depth'"
    for error in (EOFError(), pickle.UnpicklingError("weights_only"), SafetensorError(), OSError(errno.EINVAL, "")):
        assert explain(error).startswith(f"{type(error).__name__}: a file is damaged")
    path = tmp_path / "model.pt"
    torch.save({"model": [1]}, path)
    assert explain(AttributeError("items"), str(path)) == "under 'model' it holds 'list', not tensors by name"
    torch.save({"model": {"a": torch.zeros(1)}}, path)
    assert explain(AttributeError("items"), str(path)) == "items"


def test_a_folder_that_is_no_model_of_timm_is_told(tmp_path):
    test_hf_image.save_model(tmp_path, "vit")
    with pytest.raises(InputError, match=r"can't load local-dir:.* \(its config.json names no architecture"):
        CATALOG.create("encoders", "timm-image", options={"model": f"local-dir:{tmp_path}"})


def spoil(path):
    weights = load_file(path)
    save_file(
        {name: one * torch.nan if name.endswith("weight") else one for name, one in weights.items()},
        path,
        {"format": "pt"},
    )


@pytest.mark.parametrize("kind", ["vit", "dinov2", "clip"])
@pytest.mark.parametrize("part", ["weights", "preparation"])
def test_features_of_images_that_are_not_finite_are_told_as_such(kind, part, tmp_path):
    test_hf_image.save_model(tmp_path, kind)
    if part == "weights":
        spoil(tmp_path / "model.safetensors")
    else:
        path = tmp_path / "preprocessor_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"image_std": [0, 0, 0]}))
    with pytest.raises(InputError, match="gives features that are not finite: its weights hold NaN"):
        CATALOG.create("encoders", "hf-image", options={"model": str(tmp_path)})


def test_features_of_others_that_are_not_finite_are_told_as_such(tmp_path):
    test_hugging_face.save_bert(tmp_path)
    spoil(tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="not finite"):
        CATALOG.create("encoders", "hf-text", options={"model": str(tmp_path)})
    path = tmp_path / "resnet.safetensors"
    save_file(timm.create_model("resnet10t").state_dict(), path)
    spoil(path)
    with pytest.raises(InputError, match="not finite"):
        CATALOG.create("encoders", "timm-image", options={"model": "resnet10t", "pretrained": str(path)})
