import json
import random
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load, save

from mmssl_open_clip.image import OpenClipImage
from mmssl_open_clip.text import OpenClipText
from mmssl_open_clip.tokens import Tokens
from multimodal_ssl import InputError
from multimodal_ssl.encoder_config import EncoderConfig, LoraConfig
from multimodal_ssl.testing import check_encoder
from multimodal_ssl.tuning import add_lora, rates, tune

from .open_clip_models import ARCHITECTURES, TEXTS, TINY, image_encoder, pictures, save_folder, save_model, text_encoder


@pytest.fixture(scope="module", params=ARCHITECTURES)
def files(request, tmp_path_factory):
    """Return the paths of a model config and of a checkpoint."""
    return save_model(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture
def reference(files):
    """Return open_clip's own model, transformation and tokenizer."""
    name = Path(files[0]).stem
    model, _, preprocess = open_clip.create_model_and_transforms(name, pretrained=files[1])
    return model.eval(), preprocess, open_clip.get_tokenizer(name)


@pytest.fixture
def tiny(tmp_path):
    """Return the path of a model config of which open_clip has not heard."""
    path = tmp_path / f"{tmp_path.name}.json"
    path.write_text(json.dumps(TINY))
    return str(path)


@torch.no_grad()
def test_image_features_are_those_of_open_clip_bit_for_bit(files, reference):
    model, preprocess, _ = reference
    encoder = image_encoder(*files).eval()
    expected = model.encode_image(torch.stack([preprocess(one) for one in pictures()]), normalize=False)
    features = encoder(encoder.collate([encoder.prepare(one) for one in pictures()]))
    assert encoder.width == expected.shape[1] == TINY["embed_dim"]
    assert torch.equal(features, expected)


@torch.no_grad()
def test_text_features_are_those_of_open_clip_bit_for_bit(files, reference):
    model, _, tokenizer = reference
    encoder = text_encoder(*files).eval()
    expected = model.encode_text(tokenizer(TEXTS), normalize=False)
    features = encoder(encoder.collate([encoder.prepare(one) for one in TEXTS]))
    assert encoder.width == expected.shape[1] == TINY["embed_dim"]
    assert torch.equal(features, expected)


@torch.no_grad()
def seen(model, name, run):
    """Return what a part of a model gives while it runs."""
    found = []
    handle = model.get_submodule(name).register_forward_hook(lambda *given: found.append(given[2]))
    run(model)
    handle.remove()
    return found[0]


@torch.no_grad()
def test_tokens_are_what_open_clip_pools_bit_for_bit(files, reference):
    model, preprocess, tokenizer = reference
    kind = Path(files[0]).stem
    image, text = image_encoder(*files).eval(), text_encoder(*files).eval()
    pixels = torch.stack([preprocess(one) for one in pictures()])
    last = {"tiny-clip": "ln_post", "tiny-custom-text": "layer4", "tiny-coca": "transformer"}[kind]
    expected = seen(model, f"visual.{last}", lambda model: model.encode_image(pixels))
    tokens, real = image.token_states(image.collate([image.prepare(one) for one in pictures()]))
    assert torch.equal(tokens, expected.flatten(2).mT if kind == "tiny-custom-text" else expected)
    assert image.token_width == tokens.shape[-1]
    assert real.all()
    last = {"tiny-clip": "ln_final", "tiny-custom-text": "text.ln_final", "tiny-coca": "text.transformer"}[kind]
    expected = seen(model, last, lambda model: model.encode_text(tokenizer(TEXTS)))
    tokens, real = text.token_states(text.collate([text.prepare(one) for one in TEXTS]))
    assert torch.equal(tokens, expected)
    assert text.token_width == tokens.shape[-1]
    words = [
        1 + (row.argmax() + 1).item() if kind == "tiny-coca" else (row.argmax() + 1).item() for row in tokenizer(TEXTS)
    ]
    assert real.sum(1).tolist() == words  # "!" is one of them, whose id is that of the padding
    assert real[:, : min(words) - 1].all()
    assert real[:, -1].all() == (kind == "tiny-coca")


def test_tokens_of_towers_of_timm_and_transformers_are_theirs(tmp_path, no_hub):
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "fox"]
    transformers.BertTokenizer(vocab={word: place for place, word in enumerate(vocabulary)}).save_pretrained(tmp_path)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    transformers.BertConfig(**sizes, vocab_size=8).save_pretrained(tmp_path)
    path = tmp_path / "tiny-others.json"
    hugging_face = {"hf_model_name": str(tmp_path), "hf_tokenizer_name": str(tmp_path), "hf_model_pretrained": False}
    pooling = {"hf_pooler_type": "mean_pooler", "hf_proj_type": "linear", "context_length": 8}
    vision = {"timm_model_name": "test_mambaout", "timm_pool": "avg", "timm_proj": "", "image_size": 64}
    path.write_text(json.dumps(TINY | {"vision_cfg": vision, "text_cfg": hugging_face | pooling}))
    image, text = image_encoder(str(path)), text_encoder(str(path))
    check_encoder(image, pictures())
    check_encoder(text, ["a red fox", "fox"])
    inputs = image.collate([image.prepare(one) for one in pictures()])
    tokens, _ = image.token_states(inputs)
    maps = seen(image.tower, "trunk.stages", lambda _: image(inputs))
    assert maps.shape[-1] == image.token_width == 64  # the channels come last
    assert torch.equal(tokens, maps.flatten(1, 2))
    inputs = text.collate([text.prepare(one) for one in ("a red fox", "fox")])
    tokens, real = text.token_states(inputs)
    assert real.sum(1).tolist() == [5, 3]
    assert torch.equal(tokens, seen(text.tower, "text.transformer", lambda _: text(inputs)).last_hidden_state)


@pytest.mark.parametrize(("pooling", "count"), [("last", [8, 8]), ("eos", [3, 5])])
def test_all_tokens_of_a_text_are_real_where_its_features_are_read_at_the_end_of_the_padding(tiny, pooling, count):
    config = json.loads(Path(tiny).read_text())
    config["text_cfg"] |= {"context_length": 8, "pool_type": pooling, "eos_id": 49407}
    Path(tiny).write_text(json.dumps(config))
    encoder = text_encoder(tiny)
    _, real = encoder.token_states(encoder.collate([encoder.prepare(one) for one in ("fox", "a red fox")]))
    assert real.sum(1).tolist() == count


def test_both_towers_conform(files):
    check_encoder(image_encoder(*files), pictures())
    check_encoder(text_encoder(*files), TEXTS)


def test_only_the_tower_that_is_needed_is_kept(files, reference):
    model, _, _ = reference
    visual = sum(one.numel() for one in model.visual.parameters())
    assert sum(one.numel() for one in image_encoder(*files).parameters()) == visual
    kept = [name for name, _ in text_encoder(*files).named_parameters()]
    assert not [name for name in kept if "visual" in name or "logit" in name or "text_decoder" in name]


def test_layers_come_in_the_order_of_depth(files):
    name = Path(files[0]).stem
    stages = ["layer1", "layer2", "layer3", "layer4"]
    blocks = [f"transformer.resblocks.{depth}" for depth in range(2)]
    for encoder, expected, after in (
        (
            image_encoder(*files),
            stages if name == "tiny-custom-text" else blocks,
            {
                "tiny-clip": ["ln_post", "proj"],
                "tiny-custom-text": ["attnpool"],
                "tiny-coca": ["attn_pool", "ln_post", "proj"],
            }[name],
        ),
        (
            text_encoder(*files),
            blocks if name == "tiny-clip" else [f"text.{one}" for one in blocks],
            [f"{'' if name == 'tiny-clip' else 'text.'}{one}" for one in ("ln_final", "text_projection")],
        ),
    ):
        tower, layers = encoder.tower, encoder.by_depth()
        assert list(layers[:-1]) == [tower.get_submodule(one) for one in expected[:-1]]
        last = {id(one) for one in layers[-1].parameters()}
        found = [one for one, parameter in tower.named_parameters() if id(parameter) in last]
        assert {one for one in found if not one.startswith(f"{expected[-1]}.")} == {
            one
            for one, _ in tower.named_parameters()
            if one in after or one.startswith(tuple(f"{each}." for each in after))
        }
        assert [one for one in found if one.startswith(f"{expected[-1]}.")]


@pytest.mark.parametrize("make", [image_encoder, text_encoder])
def test_low_rank_updates_learn_at_the_rate_of_their_block(files, make):
    plain, encoder = make(*files), make(*files)
    config = EncoderConfig(name="open-clip", layer_decay=0.5, lora=LoraConfig(rank=2))
    add_lora("a", encoder, config.lora)
    items = pictures() if make is image_encoder else TEXTS
    inputs = encoder.collate([encoder.prepare(one) for one in items])
    if make is image_encoder and "tiny-custom-text" in files[0]:
        # A ResNet has no linear layers but those of its pooling, whose weights it reads itself.
        with pytest.raises(InputError, match="lora changes nothing in"):
            encoder(inputs)
        return
    before = {name: one.clone() for name, one in encoder.state_dict().items()}
    tune("a", encoder, config)
    assert all(torch.equal(one, before[name]) for name, one in encoder.state_dict().items())
    rate_of = rates({"a": plain}, {"a": config})
    expected = {name: rate_of[id(one)] for name, one in plain.named_parameters()}
    found = rates({"a": encoder}, {"a": config})
    learn = {name: found[id(one)] for name, one in encoder.named_parameters() if one.requires_grad}
    assert all("lora_" in name for name in learn)
    assert len(set(learn.values())) > 1
    for name, rate in learn.items():
        layer = name.split(".lora_")[0].replace(".base_layer", "")
        assert {one for key, one in expected.items() if key.startswith(f"{layer}.")} == {rate}
    encoder(inputs).sum().backward()  # the updates are reached


def test_fixed_parameters_stay_fixed_when_the_rest_is_trained(tmp_path):
    path = tmp_path / "tiny-sine.json"
    path.write_text(json.dumps(TINY | {"vision_cfg": TINY["vision_cfg"] | {"pos_embed_type": "sin_cos_2d"}}))
    assert not image_encoder(str(path)).tower.positional_embedding.requires_grad


def test_rebuilt_encoders_take_the_state_that_was_saved(files):
    for make, items in ((image_encoder, pictures()), (text_encoder, TEXTS)):
        trained = make(*files)
        with torch.no_grad():
            for parameter in trained.parameters():
                parameter.mul_(1.1)
        again = make(*files)
        inputs = again.collate([again.prepare(one) for one in items])
        assert not torch.equal(trained.eval()(inputs), again.eval()(inputs))
        again.load_state_dict(load(save(trained.state_dict())))
        assert torch.equal(trained(inputs), again(inputs))


def test_augmentation_is_drawn_from_the_rng_alone(tiny):
    encoder, picture = image_encoder(tiny), pictures()[1]  # a square: of 3:2 pictures every crop is the same
    torch.manual_seed(0)
    one = encoder.prepare(picture, np.random.default_rng(3))
    state = torch.get_rng_state()
    assert torch.equal(encoder.prepare(picture, np.random.default_rng(3)), one)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(encoder.prepare(picture, np.random.default_rng(4)), one)
    assert one.shape == encoder.prepare(picture).shape


def test_augmentation_leaves_colours_as_the_evaluation_does(tiny):
    encoder, grey = image_encoder(tiny), Image.new("RGB", (50, 40), (200, 100, 30))
    torch.testing.assert_close(encoder.prepare(grey, np.random.default_rng(0)), encoder.prepare(grey))


@pytest.mark.parametrize("last", ["a", "!?"])  # the token of "!" before "?" has the id of the padding, 0
def test_cut_texts_are_counted_and_keep_their_end(tiny, last):
    encoder = text_encoder(tiny)
    end = open_clip.SimpleTokenizer().eot_token_id
    used = 2 + len(open_clip.SimpleTokenizer().encode(last))
    fits, cut = (encoder.prepare("a " * (77 - used + more) + last) for more in (0, 1))
    assert fits["tokens"][-1] == cut["tokens"][-1] == end
    assert (fits["tokens"] == end).sum() == 1
    short = encoder.prepare(last)
    assert [bool(one["truncated"]) for one in (short, fits, cut)] == [False, False, True]
    assert encoder.tally(encoder.collate([short, cut, fits, cut])) == {"truncated": 2}


@pytest.mark.parametrize("clean", ["lower", "whitespace", "canonicalize"])
def test_texts_have_the_ids_that_open_clip_gives_them(monkeypatch, clean):
    monkeypatch.setattr("mmssl_open_clip.tokens.KEPT", 300)
    reference, rng = open_clip.SimpleTokenizer(clean=clean), random.Random(0)
    tokens = Tokens(open_clip.SimpleTokenizer(clean=clean))
    pieces = [chr(code) for code in range(127)] * 2
    pieces += ["it's", "we'll", "I'VE", "2nd", "é", "’", "“", "ſ", "Ω", "中", "\xa0", "&amp;", "Ã©", "<end_of_text>"]
    for length in range(1500):
        text = "".join(rng.choice(pieces) + rng.choice(["", "", " "]) for _ in range(length % 90))
        ids, cut = tokens(text)
        assert torch.equal(ids, reference(text)[0]), text
        assert cut == (len(reference.encode(text)) + 2 > 77)


@pytest.fixture(params=["", "clips"])
def folder(request, tmp_path):
    """Return a folder as the hub's."""
    return save_folder(tmp_path, request.param)


@torch.no_grad()
def test_a_local_folder_brings_weights_preprocessing_and_tokenizer(folder, no_hub):
    model, preprocess = open_clip.create_model_from_pretrained(folder)
    model.requires_grad_(False)  # as ours: on some CPUs torch takes other kernels, whose last bits differ
    image, text = (make(folder).eval().requires_grad_(False) for make in (image_encoder, text_encoder))
    pixels = torch.stack([preprocess(one) for one in pictures()])
    assert torch.equal(
        image(image.collate([image.prepare(one) for one in pictures()])), model.eval().encode_image(pixels)
    )
    tokens = open_clip.get_tokenizer(folder)(["a red fox", "fox"])
    features = text(text.collate([text.prepare(one) for one in ("a red fox", "fox")]))
    assert torch.equal(features, model.encode_text(tokens))


def test_cut_texts_are_counted_with_a_hugging_face_tokenizer(folder, no_hub):
    encoder = text_encoder(folder)
    room = 8 - (3 if encoder.tokens.tokenizer.tokenizer_mode == "clips" else 2)
    words = [" ".join(["fox"] * count) for count in (1, room, room + 1, 30)]
    assert [bool(encoder.prepare(one)["truncated"]) for one in words] == [False, False, True, True]


def test_factories_make_these_encoders(tiny):
    assert isinstance(image_encoder(tiny), OpenClipImage)
    assert isinstance(text_encoder(tiny), OpenClipText)
