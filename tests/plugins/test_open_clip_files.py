import json
from pathlib import Path

import open_clip
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import mmssl_open_clip
import mmssl_open_clip.loading
from multimodal_ssl import InputError
from multimodal_ssl.testing import check_encoder

from .open_clip_models import ARCHITECTURES, TEXTS, TINY, image_encoder, save_folder, save_model, text_encoder


@pytest.fixture(scope="module", params=ARCHITECTURES)
def files(request, tmp_path_factory):
    """Return the paths of a model config and of a checkpoint."""
    return save_model(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture
def tiny(tmp_path):
    """Return the path of a model config of which open_clip has not heard."""
    path = tmp_path / f"{tmp_path.name}.json"
    path.write_text(json.dumps(TINY))
    return str(path)


@pytest.fixture(params=["", "clips"])
def folder(request, tmp_path):
    """Return a folder as the hub's."""
    return save_folder(tmp_path, request.param)


@pytest.mark.parametrize("count", [100, 60000])
def test_another_vocabulary_than_that_of_the_tokenizer_is_refused(tiny, count):
    Path(tiny).write_text(json.dumps(TINY | {"text_cfg": TINY["text_cfg"] | {"vocab_size": count}}))
    with pytest.raises(InputError, match=f"has {count} tokens, but CLIP's tokenizer gives 49408: .*hf_tokenizer_name"):
        text_encoder(tiny)
    image_encoder(tiny)  # which needs none


def test_the_larger_vocabulary_of_an_architecture_of_open_clip_is_its_own(tiny, monkeypatch):
    Path(tiny).write_text(json.dumps(TINY | {"text_cfg": TINY["text_cfg"] | {"vocab_size": 60000}}))
    check_encoder(text_encoder(mmssl_open_clip.loading._register(tiny)), TEXTS)  # as coca_base


@pytest.mark.parametrize(("count", "added"), [(9, []), (10, ["new"])])
def test_a_hugging_face_tokenizer_gives_no_ids_that_the_model_lacks(folder, no_hub, count, added):
    place = Path(folder.removeprefix("local-dir:"))
    said = json.loads((place / "open_clip_config.json").read_text())
    said["model_cfg"]["text_cfg"]["vocab_size"] = count
    (place / "open_clip_config.json").write_text(json.dumps(said))
    save_file(open_clip.CLIP(**said["model_cfg"]).state_dict(), place / "open_clip_model.safetensors")
    tokenizer = transformers.AutoTokenizer.from_pretrained(place)
    tokenizer.add_tokens(added)
    tokenizer.save_pretrained(place)
    with pytest.raises(InputError, match=f"has {count} tokens, but its tokenizer gives {10 + len(added)}: "):
        text_encoder(folder)


def test_a_vocabulary_may_be_padded_and_lack_special_tokens_that_are_put_nowhere(folder, no_hub):
    place = Path(folder.removeprefix("local-dir:"))
    said = json.loads((place / "open_clip_config.json").read_text())
    said["model_cfg"]["text_cfg"]["vocab_size"] = 64
    (place / "open_clip_config.json").write_text(json.dumps(said))
    save_file(open_clip.CLIP(**said["model_cfg"]).state_dict(), place / "open_clip_model.safetensors")
    tokenizer = transformers.AutoTokenizer.from_pretrained(place)
    tokenizer.add_special_tokens({"additional_special_tokens": [f"<extra_{place}>" for place in range(100)]})
    tokenizer.save_pretrained(place)
    check_encoder(text_encoder(folder), ["a red fox", "fox"])


def test_weights_beside_a_folder_and_folders_without_weights_are_refused(folder):
    with pytest.raises(InputError, match="leave out pretrained='openai'"):
        image_encoder(folder, "openai")
    (Path(folder.removeprefix("local-dir:")) / "open_clip_model.safetensors").unlink()
    with pytest.raises(InputError, match="can't load local-dir"):
        image_encoder(folder)


@pytest.mark.parametrize("make", [image_encoder, text_encoder])
def test_unknown_names_are_answered_with_the_nearest(make):
    with pytest.raises(InputError, match="no architecture 'ViT-B-33': did you mean 'ViT-B-32'"):
        make("ViT-B-33")
    with pytest.raises(InputError, match="neither a file nor a tag of ViT-B-32: did you mean 'laion2b_s34b_b79k'"):
        make("ViT-B-32", "laion2b_s34b")


@pytest.mark.parametrize("make", [image_encoder, text_encoder])
def test_weights_with_the_other_activation_are_refused_before_anything_is_loaded(make, monkeypatch):
    monkeypatch.setattr(open_clip, "create_model", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(InputError, match="quick_gelu=True and ViT-B-32 has False: write model: ViT-B-32-quickgelu"):
        make("ViT-B-32", "openai")
    with pytest.raises(InputError, match='model config with "quick_gelu": false'):
        make("roberta-ViT-B-32", "laion2b_s12b_b32k")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"quick_gelu": True}, "trained with quick_gelu=True, says open_clip_config.json beside it, and .* has False"),
        (
            {"text_cfg": TINY["text_cfg"] | {"act_kwargs": {"approximate": "tanh"}}},
            "text_cfg.act_kwargs={.*}, .* has {}",
        ),
    ],
)
def test_weights_of_a_folder_with_the_other_activation_are_refused(tiny, tmp_path, change, complaint):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY | change, "preprocess_cfg": {}}))
    save_file(open_clip.CLIP(**TINY).state_dict(), folder / "open_clip_model.safetensors")
    with pytest.raises(InputError, match=complaint) as caught:
        image_encoder(tiny, str(folder / "open_clip_model.safetensors"))
    assert f"write model: local-dir:{folder}" in str(caught.value)
    image_encoder(f"local-dir:{folder}")
    for content in ({"model_cfg": TINY}, TINY | {"quick_gelu": False}, [], {"model_cfg": None}):
        (folder / "open_clip_config.json").write_text(json.dumps(content))
        image_encoder(tiny, str(folder / "open_clip_model.safetensors"))


@pytest.mark.parametrize(("model", "pretrained"), [("ViT-B-32", "laion2b_s34b_b79k"), ("hf-hub:nobody/nothing", None)])
def test_a_hub_out_of_reach_is_said_in_one_line_with_the_way_out(no_hub, model, pretrained):
    for make in (image_encoder, text_encoder):
        with pytest.raises(InputError, match=r"path of a checkpoint .* as `pretrained`.*local-dir:folder") as caught:
            make(model, pretrained)
        assert "\n" not in str(caught.value)


def test_weights_of_another_architecture_are_refused_in_one_line(tiny, tmp_path):
    save_file({"visual.proj": torch.zeros(3, 3)}, tmp_path / "other.safetensors")
    (tmp_path / "damaged.pt").write_bytes(b"")
    for name in ("other.safetensors", "damaged.pt"):
        with pytest.raises(InputError, match=f"can't load .*{name} for .*json") as caught:
            text_encoder(tiny, str(tmp_path / name))
        assert "\n" not in str(caught.value)


STRANGE = {  # what a checkpoint may hold instead of weights by name
    "it holds 'list', not tensors by name": [1, 2],
    "it holds 'Tensor', not tensors by name": torch.zeros(3),
    "under 'state_dict' it holds 'int', not tensors by name": {"state_dict": 5},
    "it holds no tensors": {},
}


@pytest.mark.parametrize("complaint", STRANGE)
def test_a_checkpoint_that_holds_something_else_is_refused_in_one_line(tiny, tmp_path, complaint):
    torch.save(STRANGE[complaint], tmp_path / "strange.pt")
    with pytest.raises(InputError, match=rf"can't load .*strange.pt for .*json \({complaint}\)") as caught:
        image_encoder(tiny, str(tmp_path / "strange.pt"))
    assert "\n" not in str(caught.value)


def test_weights_of_another_text_width_are_refused_in_one_line(files):
    with pytest.raises(InputError, match=r"can't load .*weights.safetensors for ViT-B-32 \(text pos_embed width"):
        image_encoder("ViT-B-32", files[1])


def changed(path, part, **sizes):
    """Write a model config like another but for some sizes; return its path."""
    config = json.loads(Path(path).read_text())
    other = Path(path).with_name(f"{Path(path).stem}-{'-'.join(map(str, sizes.values()))}.json")
    other.write_text(json.dumps(config | {part: config[part] | sizes}))
    return str(other)


@pytest.mark.parametrize("form", ["safetensors", "pt", "legacy"])
def test_weights_for_texts_of_another_length_are_refused(files, tmp_path, form):
    length = json.loads(Path(files[0]).read_text())["text_cfg"]["context_length"]
    path, weights = files[1], load_file(files[1])
    if form != "safetensors":
        path = str(tmp_path / "weights.pt")
        state = {f"module.{name}": one for name, one in weights.items()}
        torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=form == "pt")
        image_encoder(files[0], path)
    more = "tiny-coca" in files[0]  # the class token has one as well
    with pytest.raises(InputError, match=f"has {length + more} positions of texts and tiny-.*-60 {60 + more}, by its"):
        text_encoder(changed(files[0], "text_cfg", context_length=60), path)


def test_positions_of_images_are_interpolated_for_a_size_that_the_user_wrote(tiny, tmp_path):
    weights = tmp_path / "weights.safetensors"
    save_file(open_clip.CLIP(**TINY).state_dict(), weights)
    larger = changed(tiny, "vision_cfg", image_size=64)
    assert image_encoder(larger, str(weights)).tower.positional_embedding.shape == (17, 32)
    with pytest.raises(
        InputError, match=r"has 5 positions of images and .* 17, .* a model config \(.json\) of your own"
    ):
        image_encoder(Path(larger).stem, str(weights))  # open_clip's own, as far as it knows
    config = {"model_cfg": json.loads(Path(larger).read_text()), "preprocess_cfg": {}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="has 5 positions of images"):
        image_encoder(f"local-dir:{tmp_path}")


def test_wrong_model_configs_are_refused(tmp_path):
    (tmp_path / "ViT-B-32.json").write_text(json.dumps(TINY))
    (tmp_path / "bare.json").write_text(json.dumps({"model_cfg": TINY}))
    (tmp_path / "null.json").write_text("null")
    (tmp_path / "typo.json").write_text(json.dumps(TINY | {"text_cfg": {"widht": 16}}))
    for name, complaint in {
        "ViT-B-32.json": "another architecture that is named 'ViT-B-32': rename",
        "bare.json": "it lacks embed_dim, vision_cfg, text_cfg",
        "null.json": "it holds null, not settings by name",
        "absent.json": "can't read the open_clip model config",
        "typo.json": "widht",
    }.items():
        with pytest.raises(InputError, match=complaint):
            image_encoder(str(tmp_path / name))
