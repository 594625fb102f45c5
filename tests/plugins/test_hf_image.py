import json
import pickle

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load, load_file, save, save_file

import mmssl_transformers
from mmssl_transformers.image import HuggingFaceImage
from multimodal_ssl import Catalog, InputError
from multimodal_ssl.testing import check_encoder

CATALOG = Catalog.of(transformers=mmssl_transformers)
SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
VIT = SIZES | {"image_size": 32, "patch_size": 8}
JOINT = {"vision_config": VIT, "text_config": SIZES | {"vocab_size": 20}}
SQUARE = {"size": {"height": 32, "width": 32}}
MIDDLE = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}
# name: config, processor, ways of pooling with the default first, blocks, what follows the last
MODELS = {
    "dinov2": ("Dinov2", VIT, "Bit", MIDDLE, "pooled cls mean", "encoder.layer", "layernorm"),
    "dinov3": ("DINOv3ViT", VIT, "DINOv3ViT", SQUARE, "pooled cls mean", "model.layer", "norm"),
    "vit": ("ViT", VIT, "ViT", SQUARE, "cls mean pooled", "layers", "layernorm"),
    "beit": ("Beit", VIT, "Beit", SQUARE, "pooled cls mean", "layers", "pooler"),
    "convnext": (
        "ConvNext",
        {"hidden_sizes": [8, 16, 16, 24], "depths": [1, 1, 2, 1]},
        "ConvNext",
        {"size": {"shortest_edge": 32}},
        "pooled mean",
        "encoder.stages",
        "layernorm",
    ),
    "resnet": (
        "ResNet",
        {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 2, 1], "layer_type": "basic"},
        "ConvNext",
        {"size": {"shortest_edge": 32}},
        "pooled mean",
        "encoder.stages",
        None,
    ),
    "swin": (
        "Swin",
        {
            "image_size": 32,
            "patch_size": 2,
            "embed_dim": 8,
            "depths": [1, 1, 2],
            "num_heads": [1, 2, 2],
            "window_size": 4,
        },
        "ViT",
        SQUARE,
        "pooled mean",
        "encoder.layers",
        "layernorm",
    ),
    "clip": (
        "CLIP",
        JOINT | {"projection_dim": 12},
        "CLIP",
        MIDDLE,
        "projected pooled cls mean",
        "vision_model.encoder.layers",
        "vision_model.post_layernorm visual_projection",
    ),
    "clip-vision": ("CLIPVision", VIT, "CLIP", MIDDLE, "pooled cls mean", "encoder.layers", "post_layernorm"),
    "siglip": (
        "Siglip",
        JOINT,
        "Siglip",
        SQUARE,
        "projected pooled mean",
        "vision_model.encoder.layers",
        "vision_model.post_layernorm vision_model.head",
    ),
    "siglip2": (
        "Siglip2Vision",
        SIZES | {"patch_size": 8, "num_patches": 16},
        "Siglip2",
        {"patch_size": 8, "max_num_patches": 16},
        "pooled mean",
        "encoder.layers",
        "post_layernorm head",
    ),
}


def pictures():
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, shape, np.uint8) for shape in ((40, 60, 3), (32, 32, 3), (90, 33, 3), (32, 40))]
    return [Image.fromarray(array) for array in arrays]


def save_model(folder, name, make=transformers.AutoModel.from_config):
    """Save a tiny model of a name in MODELS, or like one there, with random weights, and its image processor."""
    kind, config, processor, settings, *_ = MODELS[name] if isinstance(name, str) else name
    torch.manual_seed(0)
    model = make(getattr(transformers, f"{kind}Config")(**config))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim < 2 or not parameter.any():  # what begins as zero would hide what is before it
                parameter.normal_(std=0.3)
    model.save_pretrained(folder)
    getattr(transformers, f"{processor}ImageProcessor")(**settings).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return a function that gives the folder of a model, which is made once."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = save_model(tmp_path_factory.mktemp(name), name)
        return made[name]

    return get


@pytest.fixture
def vit(tmp_path):
    return save_model(tmp_path, "vit")


def encoder_of(model, **options):
    return CATALOG.create("encoders", "hf-image", options={"model": str(model), **options})


@torch.no_grad()
def features_of(encoder, images):
    return encoder.eval()(encoder.collate([encoder.prepare(one) for one in images]))


@torch.no_grad()
def reference(folder, pooling):
    """Return what transformers itself makes of the pictures; without pooling tokens, and which are real."""
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    inputs = processor(images=[one.convert("RGB") for one in pictures()], return_tensors="pt")
    if pooling == "projected":
        return model.get_image_features(**inputs).pooler_output
    if not isinstance(model.config, transformers.Siglip2VisionConfig) and "vision_config" in model.config.to_dict():
        model = model.vision_model
    outputs = model(**inputs)
    hidden = outputs.last_hidden_state
    if pooling is None:
        if hidden.ndim == 4:
            hidden = torch.stack([row[..., place] for row in hidden.unbind(2) for place in range(row.shape[-1])], 1)
        real = inputs.get("pixel_attention_mask")
        return hidden, torch.ones(hidden.shape[:2]).bool() if real is None else real.bool()
    if pooling == "pooled":
        return outputs.pooler_output.flatten(1)
    if pooling == "cls":
        return hidden[:, 0]
    if hidden.ndim == 4:
        return hidden.mean((2, 3))
    if "pixel_attention_mask" in inputs:
        real = inputs["pixel_attention_mask"].unsqueeze(-1)
        return (hidden * real).sum(1) / real.sum(1)
    special = type(model).__name__ in ("Dinov2Model", "DINOv3ViTModel", "ViTModel", "BeitModel", "CLIPVisionModel")
    return hidden[:, special:].mean(1)


@pytest.mark.parametrize(
    ("name", "pooling"), [(name, pooling) for name, one in MODELS.items() for pooling in one[4].split()]
)
def test_features_are_those_of_transformers_bit_for_bit(folders, no_hub, name, pooling):
    expected = reference(folders(name), pooling)
    encoder = encoder_of(folders(name), pooling=pooling)
    assert encoder.width == expected.shape[1]
    assert torch.equal(features_of(encoder, pictures()), expected)


@pytest.mark.parametrize("name", MODELS)
def test_encoders_conform(folders, name):
    encoder = encoder_of(folders(name))
    assert encoder.pooling == MODELS[name][4].split()[0]
    check_encoder(encoder, pictures())


@pytest.mark.parametrize("name", MODELS)
def test_tokens_are_those_of_transformers_bit_for_bit(folders, name):
    encoder = encoder_of(folders(name), pooling="mean").eval()
    with torch.no_grad():
        found = encoder.token_states(encoder.collate([encoder.prepare(one) for one in pictures()]))
    expected, real = reference(folders(name), None)
    assert encoder.token_width == expected.shape[-1]
    assert torch.equal(found[0], expected)
    assert torch.equal(found[1], real)
    assert real.all() == (name != "siglip2")
    check_encoder(encoder, pictures())


def test_maps_of_timm_within_transformers_may_have_their_channels_last(tmp_path):
    sizes = {"embed_dim": 14, "depths": (1,), "num_heads": (1,), "img_size": 56}  # and 14 rows and columns
    data = {"input_size": [3, 56, 56], "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "crop_pct": 1.0}
    config = transformers.TimmWrapperConfig(
        architecture="swin_tiny_patch4_window7_224", model_args=sizes, pretrained_cfg=data, num_labels=0
    )
    transformers.TimmWrapperModel(config).save_pretrained(tmp_path)
    pooled, mean = (encoder_of(tmp_path, pooling=pooling).eval() for pooling in ("pooled", "mean"))
    expected = features_of(pooled, pictures())
    torch.testing.assert_close(features_of(mean, pictures()), expected)
    with torch.no_grad():
        tokens, _ = pooled.token_states(pooled.collate([pooled.prepare(one) for one in pictures()]))
    assert tokens.shape == (4, 14 * 14, pooled.token_width)
    torch.testing.assert_close(tokens.mean(1), expected)


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_a_joint_space_has_no_tokens(folders, name):
    assert encoder_of(folders(name)).token_width == 0


@pytest.mark.parametrize("name", MODELS)
def test_encoders_can_be_sent_to_workers(folders, name):
    encoder = encoder_of(folders(name))
    sent = pickle.loads(pickle.dumps(encoder))
    assert torch.equal(features_of(sent, pictures()), features_of(encoder, pictures()))


@pytest.mark.parametrize("name", MODELS)
def test_layers_come_in_the_order_of_depth(folders, name):
    encoder = encoder_of(folders(name))
    blocks = list(encoder.tower.get_submodule(MODELS[name][5]))
    *lower, last = encoder.by_depth()
    assert lower == blocks[:-1]
    after = [encoder.tower.get_submodule(one) for one in (MODELS[name][6] or "").split()]
    expected = [id(parameter) for module in [blocks[-1], *after] for parameter in module.parameters()]
    assert [id(one) for one in last.parameters()] == expected


def test_registers_are_no_patches(tmp_path):
    kind, config, *rest = MODELS["dinov3"]
    folder = save_model(tmp_path, (kind, config | {"num_register_tokens": 3}, *rest))
    inputs = transformers.AutoImageProcessor.from_pretrained(folder)(
        images=[one.convert("RGB") for one in pictures()], return_tensors="pt"
    )
    with torch.no_grad():
        hidden = transformers.AutoModel.from_pretrained(folder)(**inputs).last_hidden_state
    assert hidden.shape[1] == 16 + 4
    assert torch.equal(features_of(encoder_of(folder, pooling="mean"), pictures()), hidden[:, 4:].mean(1))


def test_a_tower_that_was_saved_with_its_projection_projects(tmp_path):
    save_model(tmp_path, "clip-vision", transformers.CLIPVisionModelWithProjection)
    model = transformers.CLIPVisionModelWithProjection.from_pretrained(tmp_path)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    with torch.no_grad():
        expected = model(
            **processor(images=[one.convert("RGB") for one in pictures()], return_tensors="pt")
        ).image_embeds
    encoder = encoder_of(tmp_path)
    assert encoder.pooling == "projected"
    assert torch.equal(features_of(encoder, pictures()), expected)
    assert encoder_of(tmp_path, pooling="pooled").width == 16


@pytest.mark.parametrize(("pooling", "parts"), [("projected", ("vision_model", "visual_projection")), ("cls", None)])
def test_only_the_tower_that_is_needed_is_kept(folders, pooling, parts):
    encoder = encoder_of(folders("clip"), pooling=pooling)
    names = {name.split(".")[1] for name, _ in encoder.named_parameters()}
    assert names == set(parts or ("embeddings", "pre_layrnorm", "encoder", "post_layernorm"))


@pytest.mark.parametrize(
    ("name", "pooling", "ways"),
    [
        ("convnext", "cls", "pooled, mean"),
        ("vit", "projected", "cls, mean, pooled"),
        ("siglip2", "cls", "pooled, mean"),
    ],
)
def test_pooling_that_a_model_does_not_have_is_refused_with_what_it_has(folders, name, pooling, ways):
    with pytest.raises(InputError, match=f"no features for pooling: {pooling}; it has {ways}$"):
        encoder_of(folders(name), pooling=pooling)


@pytest.mark.parametrize(("name", "late"), [("vit", True), ("clip", True), ("dinov3", False), ("siglip2", False)])
def test_pixels_are_handed_over_as_bytes_where_that_gives_the_same_bits(folders, name, late):
    encoder = encoder_of(folders(name))
    for rng in (None, np.random.default_rng(0)):
        pixels = encoder.prepare(pictures()[0], rng)["pixel_values"]
        assert pixels.dtype == (torch.uint8 if late else torch.float32)


@pytest.mark.parametrize("name", ["vit", "dinov3", "clip", "convnext", "siglip2"])
def test_augmentation_is_drawn_from_the_rng_alone(folders, name):
    encoder, picture = encoder_of(folders(name)), pictures()[1]  # a square: of 3:2 pictures every crop is the same
    state = torch.get_rng_state()
    one, again, other = (encoder.prepare(picture, np.random.default_rng(seed))["pixel_values"] for seed in (3, 3, 4))
    assert torch.equal(one, again)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(one, other)
    assert one.shape == encoder.prepare(picture)["pixel_values"].shape


def test_augmentation_leaves_colours_as_the_evaluation_does(folders):
    plain = Image.new("RGB", (50, 40), (200, 100, 30))
    for name in ("vit", "dinov3"):
        encoder = encoder_of(folders(name))
        cropped, whole = (encoder.prepare(plain, rng)["pixel_values"] for rng in (np.random.default_rng(0), None))
        torch.testing.assert_close(cropped, whole)


def test_batch_statistics_stay_those_of_pretraining(folders):
    encoder = encoder_of(folders("resnet")).train()
    inputs = encoder.collate([encoder.prepare(one) for one in pictures()])
    alone = encoder({name: values[:1] for name, values in inputs.items()})
    torch.testing.assert_close(encoder(inputs)[:1], alone)


def test_rebuilt_encoders_take_the_state_that_was_saved(folders):
    trained, again = encoder_of(folders("clip")), encoder_of(folders("clip"))
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.mul_(1.1)
    assert not torch.equal(features_of(trained, pictures()), features_of(again, pictures()))
    again.load_state_dict(load(save(trained.state_dict())))
    assert torch.equal(features_of(trained, pictures()), features_of(again, pictures()))


def test_weights_are_read_as_float32(vit):
    transformers.AutoModel.from_pretrained(vit, dtype=torch.bfloat16).save_pretrained(vit)
    assert features_of(encoder_of(vit), pictures()).dtype == torch.float32


def test_heads_beside_the_model_do_no_harm_and_neither_does_a_pooler_that_lacks(tmp_path):
    save_model(tmp_path, "vit", transformers.ViTForImageClassification)
    assert encoder_of(tmp_path).pooling == "cls"
    with pytest.raises(InputError, match=r"the weights in .* lack pooler\.dense\.bias, pooler\.dense\.weight"):
        encoder_of(tmp_path, pooling="pooled")


def test_weights_that_lack_something_or_have_too_much_or_other_sizes_are_refused_by_name(vit):
    path, config = vit / "model.safetensors", vit / "config.json"
    weights = load_file(path)
    save_file({name: one for name, one in weights.items() if "layer.1." not in name}, path, {"format": "pt"})
    with pytest.raises(InputError, match=r"the weights in .* lack layers\.1\."):
        encoder_of(vit)
    save_file(weights, path, {"format": "pt"})
    given = json.loads(config.read_text())
    config.write_text(json.dumps(given | {"num_hidden_layers": 2}))
    with pytest.raises(InputError, match=r"have more than its config says: .*layers\.2\."):
        encoder_of(vit)
    config.write_text(json.dumps(given | {"image_size": 48}))
    with pytest.raises(InputError, match=r"do not fit its config: .*position_embeddings is \[1, 17, 16\], not"):
        encoder_of(vit)


def test_models_whose_features_are_random_are_refused(tmp_path):
    decoder = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
    save_model(tmp_path, ("ViTMAE", VIT | decoder, *MODELS["vit"][2:]))
    with pytest.raises(InputError, match="other features each time"):
        encoder_of(tmp_path)


def test_models_of_something_else_are_refused(tmp_path):
    transformers.BertModel(transformers.BertConfig(**SIZES, vocab_size=20)).save_pretrained(tmp_path)
    transformers.ViTImageProcessor(**SQUARE).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="hf-image takes models of images"):
        encoder_of(tmp_path)


def test_a_processor_of_several_sizes_is_refused(vit):
    path = vit / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"size": {"shortest_edge": 32}}))
    with pytest.raises(InputError, match=r"several sizes, .*set a size"):
        encoder_of(vit)


def test_a_hub_out_of_reach_is_said_in_one_line_with_the_way_out(no_hub, tmp_path, vit):
    (vit / "preprocessor_config.json").unlink()
    for model in ("nobody/nothing", tmp_path / "absent", vit):
        with pytest.raises(
            InputError, match=r"image processor of .*without the model hub, give a local folder"
        ) as caught:
            encoder_of(model)
        assert "\n" not in str(caught.value)


def test_the_factory_makes_this_encoder(vit):
    assert isinstance(encoder_of(vit), HuggingFaceImage)


def test_maps_whose_channels_come_last_are_refused(tmp_path):
    config = transformers.Sam2HieraDetConfig(
        hidden_size=8, image_size=[64, 64], blocks_per_stage=[1, 1, 2, 1], embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1] * 4, window_size_per_stage=[4, 2, 4, 2], global_attention_blocks=[3],
    )  # fmt: skip
    transformers.Sam2HieraDetModel(config).save_pretrained(tmp_path)
    transformers.ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"gives maps of shape \[2, 2, 64\], whose channels come last"):
        encoder_of(tmp_path)
