import pickle
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load, load_file, save, save_file

import mmssl_timm
from mmssl_timm.image import TimmImage
from multimodal_ssl import Catalog, InputError
from multimodal_ssl.encoder_config import EncoderConfig
from multimodal_ssl.testing import check_encoder
from multimodal_ssl.tuning import tune

CATALOG = Catalog.of(timm=mmssl_timm)
ARCHITECTURES = {
    "vit_tiny_patch16_224": {"embed_dim": 16, "depth": 3, "num_heads": 2, "img_size": 32},
    "resnet18": {"channels": (8, 8, 16, 16), "stem_width": 8},
    "convnext_atto": {"depths": (1, 1, 2, 1), "dims": (8, 16, 16, 24)},
    "swin_tiny_patch4_window7_224": {"embed_dim": 8, "depths": (1, 1, 2), "num_heads": (1, 2, 2), "img_size": 56},
}


def pictures():
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, shape, np.uint8) for shape in ((40, 60, 3), (32, 32), (90, 33, 3))]
    return [Image.fromarray(array) for array in arrays]


def encoder_of(model, **options):
    return CATALOG.create("encoders", "timm-image", options={"model": str(model), **options})


def save_model(folder, name):
    """Save a tiny model with random weights and its own preprocessing, as timm does for the hub."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5, **ARCHITECTURES[name])
    for parameter in model.parameters():
        if not parameter.any():  # scales that begin as zeros would hide what is before them
            torch.nn.init.normal_(parameter, std=0.1)
    data = {"input_size": (3, 56, 56) if "swin" in name else (3, 32, 32), "mean": (0.4, 0.5, 0.6), "crop_pct": 0.8}
    timm.models.save_for_hf(model, folder, safe_serialization=True, data_config=data)
    return f"local-dir:{folder}"


@pytest.fixture(scope="module", params=ARCHITECTURES)
def folder(request, tmp_path_factory):
    return save_model(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture
def vit(tmp_path):
    return save_model(tmp_path / "vit", "vit_tiny_patch16_224")


@pytest.fixture
def resnet(tmp_path):
    """Return the path of a checkpoint of resnet10t, whose classifier has seven classes."""
    torch.manual_seed(0)
    save_file(timm.create_model("resnet10t", num_classes=7).state_dict(), tmp_path / "resnet.safetensors")
    return str(tmp_path / "resnet.safetensors")


@torch.no_grad()
def features_of(encoder):
    return encoder.eval()(encoder.collate([encoder.prepare(one) for one in pictures()]))


@torch.no_grad()
def reference(model):
    """Return what timm itself makes of the pictures."""
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    pixels = torch.stack([transform(one.convert("RGB")) for one in pictures()])
    return model.eval().forward_head(model.forward_features(pixels), pre_logits=True)


def test_features_are_those_of_timm_bit_for_bit(folder, no_hub):
    expected = reference(timm.create_model(folder, pretrained=True))
    encoder = encoder_of(folder)
    assert encoder.width == expected.shape[1]
    assert torch.equal(features_of(encoder), expected)


def test_encoders_conform(folder):
    check_encoder(encoder_of(folder), pictures())


@torch.no_grad()
def test_tokens_are_those_of_timm_bit_for_bit_wherever_the_channels_are(folder):
    model = timm.create_model(folder, pretrained=True)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    hidden = model.eval().forward_features(torch.stack([transform(one.convert("RGB")) for one in pictures()]))
    encoder = encoder_of(folder).eval()
    tokens, mask = encoder.token_states(encoder.collate([encoder.prepare(one) for one in pictures()]))
    assert encoder.token_width == model.num_features == tokens.shape[-1]
    assert mask.all()
    if hidden.ndim == 3:
        assert torch.equal(tokens, hidden)
    else:  # place by place
        maps = hidden if "swin" in folder else hidden.permute(0, 2, 3, 1)
        places = [maps[:, row, column] for row in range(maps.shape[1]) for column in range(maps.shape[2])]
        assert torch.equal(tokens, torch.stack(places, 1))


def test_channels_that_are_as_many_as_rows_and_columns_are_not_mistaken(tmp_path, monkeypatch):
    swin = "swin_tiny_patch4_window7_224"
    monkeypatch.setitem(ARCHITECTURES, swin, ARCHITECTURES[swin] | {"embed_dim": 14, "depths": (1,), "num_heads": (1,)})
    encoder = encoder_of(save_model(tmp_path, swin)).eval()
    inputs = encoder.collate([encoder.prepare(one) for one in pictures()])
    with torch.no_grad():
        (tokens, _), features = encoder.token_states(inputs), encoder(inputs)
    assert tokens.shape == (3, 14 * 14, encoder.token_width) == (3, 14 * 14, 14)
    torch.testing.assert_close(tokens.mean(1), features)


def test_a_model_of_several_kinds_of_tokens_gives_none():
    encoder = encoder_of("crossvit_tiny_240", pretrained=False)
    assert encoder.token_width == 0


def test_a_checkpoint_of_any_classes_is_taken(resnet, no_hub):
    expected = reference(timm.create_model("resnet10t", num_classes=7, checkpoint_path=resnet))
    assert torch.equal(features_of(encoder_of("resnet10t", pretrained=resnet)), expected)


def test_a_checkpoint_without_classifier_is_taken(resnet, no_hub):
    expected = features_of(encoder_of("resnet10t", pretrained=resnet))
    save_file({name: one for name, one in load_file(resnet).items() if not name.startswith("fc.")}, resnet)
    assert torch.equal(features_of(encoder_of("resnet10t", pretrained=resnet)), expected)


def test_without_weights_a_model_begins_at_random(no_hub):
    torch.manual_seed(0)
    one = encoder_of("resnet10t", pretrained=False)
    torch.manual_seed(1)
    assert not torch.equal(features_of(one), features_of(encoder_of("resnet10t", pretrained=False)))


def test_pixels_are_handed_over_as_bytes(vit):
    encoder = encoder_of(vit)
    for rng in (None, np.random.default_rng(0)):
        assert encoder.prepare(pictures()[0], rng).dtype == torch.uint8


def test_augmentation_is_drawn_from_the_rng_alone(vit):
    encoder, picture = encoder_of(vit), pictures()[1]  # a square: of 3:2 pictures every crop is the same
    state = torch.get_rng_state()
    one = encoder.prepare(picture, np.random.default_rng(3))
    assert torch.equal(encoder.prepare(picture, np.random.default_rng(3)), one)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(encoder.prepare(picture, np.random.default_rng(4)), one)
    assert one.shape == encoder.prepare(picture).shape


def test_batch_statistics_stay_those_of_pretraining(tmp_path):
    encoder = encoder_of(save_model(tmp_path, "resnet18")).train()
    before = encoder.tower.bn1.running_mean.clone()
    inputs = encoder.collate([encoder.prepare(one) for one in pictures()])
    together, alone = encoder(inputs), encoder(inputs[:1])
    assert torch.equal(encoder.tower.bn1.running_mean, before)
    torch.testing.assert_close(together[:1], alone)


def test_rebuilt_encoders_take_the_state_that_was_saved(vit):
    trained, again = encoder_of(vit), encoder_of(vit)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.mul_(1.1)
    assert not torch.equal(features_of(trained), features_of(again))
    again.load_state_dict(load(save(trained.state_dict())))
    assert torch.equal(features_of(trained), features_of(again))


def test_encoders_can_be_sent_to_workers(folder):
    encoder = encoder_of(folder)
    assert torch.equal(features_of(pickle.loads(pickle.dumps(encoder))), features_of(encoder))


def test_layers_come_in_the_order_of_depth(folder):
    encoder = encoder_of(folder)
    *_, last = layers = encoder.by_depth()
    name = next(one for one in ARCHITECTURES if one in folder)
    expected = {
        "vit_tiny_patch16_224": ("blocks.0 blocks.1 blocks.2", "norm"),
        "resnet18": ("layer1 layer2 layer3 layer4", None),
        "convnext_atto": ("stages.0 stages.1 stages.2 stages.3", "head.norm"),
        "swin_tiny_patch4_window7_224": ("layers.0 layers.1 layers.2", "norm"),
    }[name]
    blocks = [encoder.tower.get_submodule(one) for one in expected[0].split()]
    assert list(layers[:-1]) == blocks[:-1]
    after = list(encoder.tower.get_submodule(expected[1]).parameters()) if expected[1] else []
    assert {id(one) for one in last.parameters()} == {id(one) for one in [*blocks[-1].parameters(), *after]}


@pytest.mark.parametrize(
    ("name", "between"),
    [("resnet10t", {0: "bn1"}), ("densenet121", {0: "features.transition1", 3: "features.norm5"})],
)
def test_blocks_take_what_stands_between_them(name, between):
    encoder = encoder_of(name, pretrained=False)
    layers = encoder.by_depth()
    for depth, part in between.items():
        ids = {id(one) for one in layers[depth].parameters()}
        assert {id(one) for one in encoder.tower.get_submodule(part).parameters()} <= ids
    if name == "resnet10t":
        tune("image", encoder, EncoderConfig(name="timm-image", unfreeze=len(layers)))
        assert all(one.requires_grad for one in encoder.parameters())
    owned = [id(one) for layer in layers for one in layer.parameters()]
    assert len(owned) == len(set(owned))


def test_weights_that_lack_something_or_have_too_much_or_other_sizes_are_refused(vit):
    path = Path(vit.removeprefix("local-dir:")) / "model.safetensors"
    weights = load_file(path)
    for name, changed in {
        "blocks.1.norm1.weight": {key: one for key, one in weights.items() if key != "blocks.1.norm1.weight"},
        "blocks.3.norm1.weight": weights | {"blocks.3.norm1.weight": torch.ones(16)},
        "size mismatch for pos_embed": weights | {"pos_embed": torch.zeros(1, 5, 17)},
    }.items():
        save_file(changed, path)
        with pytest.raises(InputError, match=f"can't load local-dir:.*{name}") as caught:
            encoder_of(vit)
        assert "\n" not in str(caught.value)


def test_weights_of_another_architecture_are_refused_in_one_line(resnet, tmp_path):
    (tmp_path / "damaged.pth").write_bytes(b"")
    for model, path in (("vit_tiny_patch16_224", resnet), ("resnet10t", str(tmp_path / "damaged.pth"))):
        with pytest.raises(InputError, match=f"can't load .* for {model}") as caught:
            encoder_of(model, pretrained=path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ([1, 2], "it holds 'list'"),
        (torch.zeros(3), "it holds 'Tensor'"),
        ({"state_dict": 5}, "under 'state_dict' it holds 'int'"),
    ],
)
def test_a_checkpoint_that_holds_something_else_is_refused_in_one_line(tmp_path, content, complaint):
    torch.save(content, tmp_path / "strange.pt")
    with pytest.raises(InputError, match=f"can't load .*strange.pt for resnet10t .*{complaint}, not tensors") as caught:
        encoder_of("resnet10t", pretrained=str(tmp_path / "strange.pt"))
    assert "\n" not in str(caught.value)


def test_pickles_are_not_opened(tmp_path):
    torch.save({"state_dict": Path("x")}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match="can't load"):
        encoder_of("resnet10t", pretrained=str(tmp_path / "evil.pth"))


def test_unknown_names_are_answered_with_the_nearest(vit):
    with pytest.raises(InputError, match="no model 'resnet10tt': did you mean 'resnet10t'"):
        encoder_of("resnet10tt")
    with pytest.raises(InputError, match=r"no weights 'c3_in1l' of resnet10t: did you mean 'resnet10t.c3_in1k'"):
        encoder_of("resnet10t.c3_in1l")
    with pytest.raises(InputError, match="'absent' is no file"):
        encoder_of("resnet10t", pretrained="absent")
    with pytest.raises(InputError, match="leave out pretrained='absent'"):
        encoder_of(vit, pretrained="absent")


@pytest.mark.parametrize(
    "name", [one for one in timm.list_pretrained("*clip*") if "QuickGELU" in str(timm.get_pretrained_cfg(one).notes)]
)
def test_weights_of_the_other_activation_are_refused_by_the_name_of_those_of_the_same(name, monkeypatch, tmp_path):
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: (_ for _ in ()).throw(OSError("is loaded")))
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"")
    twin = name.replace("_clip_", "_clip_quickgelu_").replace("_quickgelu_quickgelu", "_quickgelu")
    complaint = "is loaded" if name == twin else f"trained with QuickGELU and {name} has GELU: write model: {twin}$"
    for model in (name, f"hf-hub:timm/{name}"):
        with pytest.raises(InputError, match=complaint):
            encoder_of(model)
    with pytest.raises(InputError, match="a file is damaged" if name == twin else complaint):
        encoder_of(name, pretrained=str(path))
    for model, options in {name: {"pretrained": False}, f"hf-hub:someone/{name}": {}}.items():
        with pytest.raises(InputError, match="is loaded"):
            encoder_of(model, **options)
    with pytest.raises(InputError, match="a file is damaged"):
        encoder_of(name.partition(".")[0], pretrained=str(path))  # whose weights these are is not said


@pytest.mark.parametrize("model", ["resnet10t.c3_in1k", "hf-hub:nobody/nothing", "local-dir:absent"])
def test_a_hub_out_of_reach_is_said_in_one_line_with_the_way_out(no_hub, model):
    with pytest.raises(InputError, match=r"path of a checkpoint .* as `pretrained`.*local-dir:folder") as caught:
        encoder_of(model)
    assert "\n" not in str(caught.value)


def test_the_factory_makes_this_encoder(vit):
    assert isinstance(encoder_of(vit), TimmImage)
