"""The towers of ImageBind: their names and shapes, their mathematics, and the files that they are read from."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F

import mmssl_imagebind
from mmssl_imagebind.tower import KINDS, Size, Tower
from multimodal_ssl import Catalog
from multimodal_ssl.plugins import options_of
from multimodal_ssl.testing import check_encoder

from .imagebind_checkpoints import HUGE, KEYS, SIZE, Sound, checkpoint, named

CATALOG = Catalog.of(imagebind=mmssl_imagebind)
TOWERS = {
    "image": "vision",
    "video": "vision",
    "text": "text",
    "audio": "audio",
    "depth": "depth",
    "thermal": "thermal",
    "imu": "imu",
}


def encoder(name, **options):
    """Return an encoder of the tiny size."""
    return CATALOG.create("encoders", f"imagebind-{name}", options=SIZE._asdict() | options)


def items(name):
    """Return three raw items, different in shape where they may be."""
    rng = np.random.default_rng(0)
    if name == "image":
        shapes = ((40, 60, 3), (32, 32), (300, 240, 3))
        return [Image.fromarray(rng.integers(0, 256, shape, np.uint8)) for shape in shapes]
    if name == "video":
        shapes = ((7, 40, 60, 3), (1, 64, 32, 3), (30, 24, 24, 3))
        return [rng.integers(0, 256, shape, np.uint8) for shape in shapes]
    if name == "text":
        return ["a red fox", "two tin cans on a shelf", "word " * 90]
    if name == "audio":
        lengths = ((1, 70000, 16000), (2, 30000, 22050), (1, 100, 8000))
        return [Sound(rng.uniform(-1, 1, (c, n)).astype(np.float32), rate) for c, n, rate in lengths]
    if name == "imu":
        return [rng.standard_normal((6, steps)).astype(np.float32) for steps in (2000, 3001, 50)]
    maps = [rng.uniform(0.5, 5, shape).astype(np.float32) for shape in ((40, 60), (224, 224), (300, 240))]
    maps[0][:10, :10] = np.nan
    return maps


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Return the path of a checkpoint of the tiny size, all six towers in it."""
    file = tmp_path_factory.mktemp("checkpoints") / "tiny.pth"
    torch.save(checkpoint(SIZE), file)
    return str(file)


def test_the_names_and_shapes_of_imagebind_huge_are_ours():
    with torch.device("meta"):
        state = {}
        for name in KINDS:
            state |= Tower(name, HUGE[name]).state_dict()
    found = {key: tuple(one.shape) for key, one in state.items()}
    expected = {key: shape for name in KINDS for key, shape in named(name, HUGE[name]).items()}
    assert found == expected
    assert len(found) == KEYS
    assert sum(int(np.prod(shape)) for shape in found.values()) == 1_200_786_990


def test_options_are_those_of_imagebind_huge():
    for name, tower in TOWERS.items():
        defaults = options_of(CATALOG.get("encoders", f"imagebind-{name}").factory)
        assert HUGE[tower] == Size(*(defaults[one].default for one in Size._fields))


@pytest.mark.parametrize("name", TOWERS)
def test_encoders_conform(name, path):
    one = encoder(name, checkpoint=path)
    assert one.width == SIZE.output
    check_encoder(one, items(name))
    check_encoder(encoder(name), items(name))


@pytest.mark.parametrize("kind", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", TOWERS)
def test_each_encoder_holds_the_weights_of_its_own_tower_and_no_others(name, kind, path, tmp_path):
    weights = torch.load(path, weights_only=True)
    if kind == ".safetensors":
        path = str(tmp_path / "tiny.safetensors")
        save_file(weights, path)
    found = encoder(name, checkpoint=path).tower.state_dict()
    assert found.keys() == named(TOWERS[name], SIZE).keys()
    assert all(torch.equal(found[key], weights[key]) for key in found)


@pytest.mark.parametrize("name", TOWERS)
def test_features_are_what_the_paper_says_written_out(name, path):
    one = encoder(name, checkpoint=path).eval()
    inputs = one.collate([one.prepare(item) for item in items(name)])
    with torch.no_grad():
        features = one(inputs)
        expected = reference(name, torch.load(path, weights_only=True), inputs)
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-6)


@torch.no_grad()
def test_what_follows_the_end_of_a_text_is_not_seen(path):
    for one in (encoder("text").eval(), encoder("text", checkpoint=path).eval()):
        inputs = one.collate([one.prepare("a red fox")])
        before, end = one(inputs), int(inputs["tokens"].argmax())
        inputs["tokens"][0, end + 1 :] = 17
        torch.testing.assert_close(one(inputs), before)
        inputs["tokens"][0, end - 1] = 17
        assert not torch.allclose(one(inputs), before, atol=1e-4)


def reference(name, weights, inputs):
    """Return the features of prepared inputs, with nothing but products of matrices and sums."""
    tower = TOWERS[name]
    own = {
        key.split(".", 2)[0] + "." + key.split(".", 2)[2]: one for key, one in weights.items() if f".{tower}." in key
    }
    before = {key.removeprefix("modality_preprocessors."): one for key, one in own.items()}
    if name == "image":
        mean, std = (
            torch.tensor([0.48145466, 0.4578275, 0.40821073]),
            torch.tensor([0.26862954, 0.26130258, 0.27577711]),
        )
        inputs = ((inputs / 255 - mean[:, None, None]) / std[:, None, None]).unsqueeze(2).repeat(1, 1, 2, 1, 1)
    if name == "text":
        inputs = inputs["tokens"]
        tokens = before["token_embedding.weight"][inputs] + before["pos_embed"]
    else:
        views = inputs.flatten(0, 1) if name in ("video", "audio") else inputs
        tokens = patches(name, views, before)
        tokens = torch.cat([before["cls_token"].repeat(len(tokens), 1, 1), tokens], 1)
        tokens = tokens + before["pos_embed" if name == "imu" else "pos_embedding_helper.pos_embed"]
    if tower == "vision":
        tokens = norm(tokens, own, "modality_trunks.pre_transformer_layer.0")
    for place in range(SIZE.depth):
        tokens = block(tokens, own, f"modality_trunks.blocks.{place}", causal=name == "text")
    last = tokens[torch.arange(len(tokens)), inputs.argmax(1)] if name == "text" else tokens[:, 0]
    if name == "text":
        vectors = norm(last, own, "modality_heads.proj.0") @ own["modality_heads.proj.1.weight"].T
    else:
        vectors = norm(last, own, "modality_heads.0") @ own[f"modality_heads.{3 if name == 'imu' else 2}.weight"].T
    units = vectors / vectors.norm(dim=1, keepdim=True)
    return units.unflatten(0, inputs.shape[:2]).mean(1) if name in ("video", "audio") else units


def patches(name, views, before):
    """Return the projected patches of each view, one by one."""
    if name == "imu":
        rows = [views[:, :, start : start + 8].flatten(1) for start in range(0, 2000, 8)]
        return norm(torch.stack(rows, 1) @ before["imu_stem.proj.weight"].T, before, "imu_stem.norm_layer", 1e-5)
    size, stride = (14, 14) if name in ("image", "video") else (16, 10 if name == "audio" else 16)
    stem = "depth_stem" if name == "depth" else "rgbt_stem"
    weight = before[f"{stem}.proj.1.weight" if size == 14 else f"{stem}.proj.weight"].flatten(1)
    rows = [
        views[..., y : y + size, x : x + size].flatten(1) @ weight.T
        for y in range(0, views.shape[-2] - size + 1, stride)
        for x in range(0, views.shape[-1] - size + 1, stride)
    ]
    tokens = torch.stack(rows, 1)
    return tokens if size == 14 else norm(tokens, before, f"{stem}.norm_layer", 1e-5)


def norm(x, weights, name, epsilon=1e-6):
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + epsilon).sqrt()
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def block(tokens, weights, name, *, causal):
    """Pre-norm attention, in which a learnt key and value stand beside those of the tokens, and a perceptron."""
    seen, count = norm(tokens, weights, f"{name}.norm_1"), tokens.shape[1]
    q, k, v = (seen @ weights[f"{name}.attn.in_proj_weight"].T + weights[f"{name}.attn.in_proj_bias"]).chunk(3, -1)
    if f"{name}.attn.bias_k" in weights:
        k, v = (
            torch.cat([one, weights[f"{name}.attn.bias_{letter}"].repeat(len(one), 1, 1)], 1)
            for one, letter in ((k, "k"), (v, "v"))
        )
    hidden = torch.ones(count, count).triu(1).bool()
    outputs = []
    for part in torch.arange(SIZE.width).chunk(SIZE.heads):
        logits = q[..., part] @ k[..., part].transpose(1, 2) / len(part) ** 0.5
        logits = logits.masked_fill(hidden, -torch.inf) if causal else logits
        outputs.append(logits.softmax(-1) @ v[..., part])
    attended = torch.cat(outputs, -1) @ weights[f"{name}.attn.out_proj.weight"].T
    tokens = tokens + attended + weights[f"{name}.attn.out_proj.bias"]
    inner = norm(tokens, weights, f"{name}.norm_2") @ weights[f"{name}.mlp.fc1.weight"].T
    inner = F.gelu(inner + weights[f"{name}.mlp.fc1.bias"])
    return tokens + inner @ weights[f"{name}.mlp.fc2.weight"].T + weights[f"{name}.mlp.fc2.bias"]
