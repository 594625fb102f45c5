"""What the features of a pretrained model depend on is told: another where it differs, and alike wherever it lies."""

import json
import shutil

import open_clip
import pytest
import timm
import torch
import transformers
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules.normalize import Normalize
from sentence_transformers.base.modules.transformer import Transformer
from sentence_transformers.sentence_transformer.modules.pooling import Pooling

import mmssl_audio
import mmssl_imagebind
import mmssl_open_clip
import mmssl_timm
import mmssl_transformers
from mmssl_audio.bundle import TorchaudioBundle
from mmssl_open_clip.tokens import Tokens
from mmssl_pretrained.describe import describe, describe_tokenizer
from multimodal_ssl import Catalog, InputError, load
from multimodal_ssl.config import parse_config
from multimodal_ssl.pipeline import open_supplies
from multimodal_ssl.recipe import build_binder, read_recipe, save_binder, start_encoders

from . import hf_sounds
from .imagebind_checkpoints import SIZE

CATALOG = Catalog.of(
    audio=mmssl_audio, imagebind=mmssl_imagebind, open_clip=mmssl_open_clip, timm=mmssl_timm,
    transformers=mmssl_transformers,
)  # fmt: skip
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "fox"]
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
VIT = {"embed_dim": 16, "depth": 1, "num_heads": 2, "img_size": 32}
CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 32, "head_width": 16, "layers": 1},
    "text_cfg": {
        "context_length": 8, "vocab_size": 10, "width": 16, "heads": 2, "layers": 1, "hf_tokenizer_name": "elsewhere",
    },
}  # fmt: skip


def save_words(folder):
    vocabulary = {word: place for place, word in enumerate(WORDS)}
    transformers.BertTokenizer(vocab=vocabulary, model_max_length=20).save_pretrained(folder)


def save_bert(folder):
    save_words(folder)
    transformers.BertModel(transformers.BertConfig(**SIZES, vocab_size=8)).save_pretrained(folder)


def save_sentences(folder):
    save_bert(folder / "bert")
    modules = [Transformer(str(folder / "bert")), Pooling(16, "mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder))
    shutil.rmtree(folder / "bert")


def save_vit(folder):
    transformers.ViTModel(transformers.ViTConfig(**SIZES, image_size=32, patch_size=16)).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)


def save_ast(folder):
    hf_sounds.save_model(folder, "ast")


def save_timm(folder):
    model = timm.create_model("vit_tiny_patch16_224", num_classes=5, **VIT)
    timm.models.save_for_hf(model, folder, safe_serialization=True, model_args=VIT)


def save_clip(folder):
    save_words(folder)
    preprocessing = {"mean": [0.5] * 3, "std": [0.25] * 3, "resize_mode": "squash"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CLIP, "preprocess_cfg": preprocessing}))
    save_file(open_clip.CLIP(**CLIP).state_dict(), folder / "open_clip_model.safetensors")


SAVE = {
    "hf-text": save_bert,
    "sentence-transformers-text": save_sentences,
    "hf-image": save_vit,
    "hf-audio": save_ast,
    "timm-image": save_timm,
    "open-clip-image": save_clip,
    "open-clip-text": save_clip,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return a function that gives the folder of an encoder's model, which is made once."""
    made = {}

    def get(name):
        if name not in made:
            torch.manual_seed(0)
            made[name] = tmp_path_factory.mktemp(name)
            SAVE[name](made[name])
        return made[name]

    return get


def encoder_of(name, folder):
    local = name.startswith(("timm", "open-clip"))
    return CATALOG.create("encoders", name, options={"model": f"local-dir:{folder}" if local else str(folder)})


def change(path, **changes):
    """Change what a JSON file says, at places such as ``size.height``."""
    content = json.loads(path.read_text())
    for place, value in changes.items():
        *above, last = place.split(".")
        at = content
        for key in above:
            at = at[key]
        at[last] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("name", SAVE)
def test_the_same_files_elsewhere_describe_alike_before_and_after_use(folders, no_hub, tmp_path, name):
    folder = folders(name)
    encoder = encoder_of(name, folder)
    told = encoder.describe()
    if encoder.modality == "text":
        encoder.prepare("a red fox " * 20)
    assert encoder.describe() == told
    assert encoder_of(name, shutil.copytree(folder, tmp_path / "copy")).describe() == told
    assert str(folder) not in json.dumps(told)
    assert " at 0x" not in json.dumps(told)


CHANGES = [
    ("hf-text", "tokenizer_config.json", {"do_lower_case": False}),
    ("hf-text", "tokenizer_config.json", {"model_max_length": 10}),
    ("hf-text", "config.json", {"layer_norm_eps": 0.1}),
    ("sentence-transformers-text", "1_Pooling/config.json", {"pooling_mode": "cls"}),
    ("sentence-transformers-text", "sentence_bert_config.json", {"do_lower_case": True}),
    ("sentence-transformers-text", "config_sentence_transformers.json",
     {"prompts": {"query": "a "}, "default_prompt_name": "query"}),
    ("sentence-transformers-text", "modules.json", {}),
    ("hf-image", "preprocessor_config.json", {"image_mean": [0.4, 0.5, 0.5]}),
    ("hf-image", "config.json", {"hidden_act": "relu"}),
    ("hf-audio", "preprocessor_config.json", {"mean": -4.0}),
    ("hf-audio", "config.json", {"hidden_act": "relu"}),
    ("timm-image", "config.json", {"pretrained_cfg.mean": [0.4, 0.5, 0.5]}),
    ("timm-image", "config.json", {"pretrained_cfg.crop_pct": 0.7}),
    ("timm-image", "config.json", {"model_args": VIT | {"global_pool": "avg", "fc_norm": False}}),
    ("open-clip-image", "open_clip_config.json", {"preprocess_cfg.mean": [0.4, 0.5, 0.5]}),
    ("open-clip-image", "open_clip_config.json", {"model_cfg.quick_gelu": True}),
    ("open-clip-text", "open_clip_config.json", {"model_cfg.text_cfg.tokenizer_kwargs": {"clean": "canonicalize"}}),
    ("open-clip-text", "tokenizer_config.json", {"do_lower_case": False}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "file", "changes"), CHANGES)
def test_another_preparation_is_another_description(folders, no_hub, tmp_path, name, file, changes):
    folder = shutil.copytree(folders(name), tmp_path / "copy")
    if changes:
        change(folder / file, **changes)
    else:  # the last module, which makes unit vectors, is left away
        (folder / file).write_text(json.dumps(json.loads((folder / file).read_text())[:2]))
    assert encoder_of(name, folder).describe() != encoder_of(name, folders(name)).describe()


def test_tokenizers_without_a_backend_are_told_by_their_files(tmp_path):
    def tokenizer(folder, *merges):
        folder.mkdir()
        letters = ["<unk>", "r", "e", "d</w>", "re", "ed</w>", "red</w>"]
        (folder / "vocab.json").write_text(json.dumps({word: place for place, word in enumerate(letters)}))
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
        return transformers.CTRLTokenizer.from_pretrained(folder)

    one, same = tokenizer(tmp_path / "one", "r e", "re d</w>"), tokenizer(tmp_path / "same", "r e", "re d</w>")
    other = tokenizer(tmp_path / "other", "e d</w>", "r ed</w>")
    assert not one.is_fast
    assert one.get_vocab() == other.get_vocab()
    told = [describe(tokenizer=describe_tokenizer(each)) for each in (one, same, other)]
    assert told[0] == told[1] != told[2]
    assert str(tmp_path) not in json.dumps(told[0])


def test_other_words_of_clips_own_tokenizer_are_another_description():
    settings = [{}, {}, {"clean": "canonicalize"}, {"context_length": 60}, {"additional_special_tokens": ["<x>"]}]
    told = [json.dumps(describe(**Tokens(open_clip.SimpleTokenizer(**one)).settings())) for one in settings]
    assert told[0] == told[1]
    assert len(set(told)) == 4


@pytest.mark.parametrize(
    ("name", "library"),
    [
        ("hf-text", "mmssl_transformers.loading.transformers"),
        ("timm-image", "mmssl_timm.image.timm"),
        ("open-clip-image", "mmssl_open_clip.image.open_clip"),
        ("open-clip-text", "mmssl_open_clip.text.open_clip"),
        ("torchaudio-bundle", "mmssl_audio.bundle.torchaudio"),
        ("imagebind-text", "mmssl_imagebind.text.open_clip"),
    ],
)
def test_the_version_of_the_library_is_told(folders, monkeypatch, name, library):
    if name == "torchaudio-bundle":
        encoder = TorchaudioBundle.__new__(TorchaudioBundle)  # a whole one needs weights, and its version does not
    elif name == "imagebind-text":
        encoder = CATALOG.create("encoders", name, options=SIZE._asdict())
    else:
        encoder = encoder_of(name, folders(name))
    told = encoder.describe()
    monkeypatch.setattr(f"{library}.__version__", "0")
    changed = encoder.describe()
    assert (
        changed["versions"].pop(library.rpartition(".")[2]) == "0" != told["versions"].pop(library.rpartition(".")[2])
    )
    assert changed == told, "nothing else tells of it"


def config_of(folder, **encoder):
    return parse_config({
        "run": "elsewhere", "sources": [{"name": "glyphs", "use": ["text"]}],
        "binder": {"dim": 8}, "train": {"steps": 1},
        "encoders": {"text": {"name": "hf-text", "model": str(folder), "pooling": "mean", **encoder}},
    })  # fmt: skip


def build(config):
    known = Catalog.discover()
    binder = build_binder(config, open_supplies(config.sources, known), known)
    start_encoders(binder, config)
    return binder


@pytest.fixture(params=[None, {"rank": 2}], ids=["whole", "lora"])
def run(request, folders, no_hub, tmp_path):
    """Return a run whose text model lies in the folder beside it."""
    folder = shutil.copytree(folders("hf-text"), tmp_path / "model")
    (tmp_path / "run").mkdir()
    save_binder(tmp_path / "run", build(config_of(folder, lora=request.param)), pairs=[])
    return tmp_path / "run"


def start_from(run):
    lora = read_recipe(run)["recipe"]["encoders"]["text"]["lora"] or {"rank": 1}  # new, if it had none
    build(config_of(run.parent / "model", start=str(run), lora=lora))


@pytest.mark.parametrize("begin", [load, start_from])
def test_a_run_whose_tokenizer_has_changed_is_refused(run, begin):
    begin(run)
    change(run.parent / "model" / "tokenizer_config.json", do_lower_case=False)
    with pytest.raises(InputError, match=r"model' \(tokenizer, .* encoders\.text\) are no longer those that .*run was"):
        begin(run)


def test_under_other_versions_nobody_can_tell_and_a_run_is_loaded(run, monkeypatch):
    change(run.parent / "model" / "tokenizer_config.json", do_lower_case=False)
    monkeypatch.setattr("mmssl_transformers.loading.transformers.__version__", "0")
    load(run)


def test_a_run_that_was_saved_before_this_was_told_is_loaded(run):
    told = json.loads((run / "binder.json").read_text())
    del told["preparation"]
    (run / "binder.json").write_text(json.dumps(told))
    change(run.parent / "model" / "tokenizer_config.json", do_lower_case=False)
    load(run)
