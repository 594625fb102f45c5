"""Reading ImageBind's towers out of files, and training them."""

import numpy as np
import pytest
import torch
from safetensors.torch import load, save, save_file

import mmssl_imagebind
from multimodal_ssl import Catalog, InputError
from multimodal_ssl.encoder_config import EncoderConfig, LoraConfig
from multimodal_ssl.tuning import add_lora, tune

from .imagebind_checkpoints import SIZE, checkpoint

CATALOG = Catalog.of(imagebind=mmssl_imagebind)


def depth(path, **options):
    """Return the encoder of depth maps at the tiny size."""
    return CATALOG.create("encoders", "imagebind-depth", options=SIZE._asdict() | {"checkpoint": path} | options)


def written(folder, weights):
    """Return the path of a checkpoint."""
    path = folder / "some.pth"
    torch.save(weights, path)
    return str(path)


@pytest.fixture(scope="module")
def weights():
    return checkpoint(SIZE)


def test_a_file_of_one_tower_is_enough(weights, tmp_path):
    own = {key: one for key, one in weights.items() if ".depth." in key}
    found = depth(written(tmp_path, own)).tower.state_dict()
    assert all(torch.equal(found[key], one) for key, one in own.items())


@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
def test_weights_become_float32_and_do_not_hang_on_the_file(kind, weights, tmp_path):
    path = written(tmp_path, {key: one.to(kind) for key, one in weights.items()})
    encoder = depth(path)
    before = {key: one.clone() for key, one in encoder.state_dict().items()}
    assert {one.dtype for one in before.values()} == {torch.float32}
    with open(path, "r+b") as file:
        length = len(file.read())
        file.seek(0)
        file.write(bytes(length))
    assert all(torch.equal(one, before[key]) for key, one in encoder.state_dict().items())


@pytest.mark.parametrize("name", ["lacks", "has more", "has another shape"])
def test_what_does_not_fit_is_named(name, weights, tmp_path):
    wrong, key = dict(weights), "modality_trunks.depth.blocks.1.mlp.fc2.bias"
    if name == "lacks":
        del wrong[key]
    elif name == "has more":
        wrong["modality_trunks.depth.blocks.2.mlp.fc2.bias"] = wrong[key]
    else:
        wrong[key] = torch.zeros(31)
    message = {
        "lacks": rf"depth tower in .* lacks {key}.*`depth`",
        "has more": r"also has modality_trunks.depth.blocks.2.mlp.fc2.bias.*`depth`",
        "has another shape": rf"{key} is \[31\], not \[32\].*`width`",
    }[name]
    with pytest.raises(InputError, match=message) as caught:
        depth(written(tmp_path, wrong))
    assert "\n" not in str(caught.value)


def test_another_depth_or_width_is_told_from_damage(weights, tmp_path):
    path = written(tmp_path, weights)
    with pytest.raises(InputError, match=r"lacks .* and 10 more: if it was made with another depth"):
        depth(path, depth=3)
    with pytest.raises(InputError, match="set `width`, `heads` and `output`"):
        depth(path, width=64)


def test_other_files_are_refused_in_one_line(weights, tmp_path):
    (tmp_path / "damaged.pth").write_bytes(b"PK not a file")
    save_file({"visual.proj": torch.zeros(2)}, tmp_path / "clip.safetensors")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"model": weights}, tmp_path / "nested.pth")
    torch.save({key: one for key, one in weights.items() if ".depth." not in key}, tmp_path / "five.pth")
    torch.save(weights | {"modality_heads.radar.0.weight": torch.zeros(1)}, tmp_path / "seven.pth")
    torch.save(dict.fromkeys(weights, 1.0), tmp_path / "numbers.pth")
    for name, complaint in {
        "absent.pth": "can't read the ImageBind checkpoint .*absent.pth",
        "damaged.pth": "can't read",
        "clip.safetensors": "no tower has visual.proj; the names must be those of imagebind_huge.pth",
        "list.pth": "it holds a list",
        "nested.pth": "no tower has model",
        "five.pth": "holds no depth tower, but audio, imu, text, thermal, vision",
        "seven.pth": "no tower has modality_heads.radar.0.weight",
        "numbers.pth": "is a float, not",
    }.items():
        with pytest.raises(InputError, match=complaint) as caught:
            depth(str(tmp_path / name))
        assert "\n" not in str(caught.value)


class Planted:
    """Would be made by a pickle that is trusted."""

    made = False

    def __reduce__(self):
        return setattr, (Planted, "made", True)


def test_nothing_in_a_file_is_run(weights, tmp_path):
    with pytest.raises(InputError, match="can't read"):
        depth(written(tmp_path, weights | {"modality_heads.depth.9": Planted()}))
    assert not Planted.made


def test_sizes_that_can_not_be_are_refused():
    for options in ({"heads": 5}, {"depth": 0}, {"width": -32}):
        with pytest.raises(InputError, match="width must be a multiple of heads"):
            depth(None, **options)


@pytest.mark.parametrize("name", ["image", "video", "text", "audio", "depth", "thermal", "imu"])
def test_all_weights_but_the_tokens_lie_in_the_blocks_and_the_head_in_the_last(name):
    encoder = CATALOG.create("encoders", f"imagebind-{name}", options=SIZE._asdict())
    blocks = [{id(one) for one in block.parameters()} for block in encoder.by_depth()]
    assert len(blocks) == SIZE.depth
    below = {key for key, one in encoder.named_parameters() if not any(id(one) in block for block in blocks)}
    assert all("modality_preprocessors" in key or "pre_transformer_layer" in key for key in below)
    last = {key for key, one in encoder.named_parameters() if id(one) in blocks[-1]}
    assert {key for key, _ in encoder.named_parameters() if "modality_heads" in key} < last


def test_the_last_blocks_learn_and_the_others_do_not():
    encoder = depth(None)
    tune("depth", encoder, EncoderConfig(name="imagebind-depth", unfreeze=1))
    learn = {key for key, one in encoder.named_parameters() if one.requires_grad}
    assert learn
    assert all("blocks.1." in key or "modality_heads" in key for key in learn)


@torch.no_grad()
def test_lora_changes_nothing_at_first_and_reaches_the_attention():
    for name, shape in (("depth", (40, 60)), ("imu", (6, 2000))):
        encoder = CATALOG.create("encoders", f"imagebind-{name}", options=SIZE._asdict()).eval()
        inputs = encoder.collate([encoder.prepare(np.random.default_rng(0).uniform(1, 2, shape).astype(np.float32))])
        before = encoder(inputs)
        add_lora(name, encoder, LoraConfig(rank=2))
        assert any("attn" in key and one.requires_grad for key, one in encoder.named_parameters())
        torch.testing.assert_close(encoder(inputs), before)


def test_trained_weights_are_kept_and_taken_again():
    trained, again = depth(None).eval(), depth(None).eval()
    inputs = trained.collate([trained.prepare(np.linspace(1, 3, 2400, dtype=np.float32).reshape(40, 60))])
    assert not torch.equal(trained(inputs), again(inputs))
    again.load_state_dict(load(save(trained.state_dict())))
    assert torch.equal(trained(inputs), again(inputs))
