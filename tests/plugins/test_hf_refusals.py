"""What no encoder of transformers can be made of is said in one line."""

import json
import shutil

import peft
import pytest
import transformers

import mmssl_transformers
from multimodal_ssl import Catalog, InputError

from . import hf_sounds, test_hf_image
from .test_hugging_face import SIZES, encoder_of, features_of, save_bert

CATALOG = Catalog.of(transformers=mmssl_transformers)
ROBERTA = SIZES | {"max_position_embeddings": 24, "bos_token_id": 2, "eos_token_id": 3}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def bert(saved, tmp_path):
    """Return a folder that a test may change."""
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    return tmp_path


def change(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refused(make, complaint):
    with pytest.raises(InputError, match=complaint) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["Roberta", "XLMRoberta", "Camembert", "MPNet"])
def test_another_padding_is_refused_where_positions_are_counted_by_it(bert, kind):
    config = getattr(transformers, f"{kind}Config")(**ROBERTA | {"pad_token_id": 1})
    transformers.AutoModel.from_config(config).save_pretrained(bert)
    refused(lambda: encoder_of(bert), "pads with id 0 and the model with 1, by which it counts positions: it is anoth")


def test_the_padding_of_the_tokenizer_may_be_that_of_the_model(bert):
    transformers.RobertaModel(transformers.RobertaConfig(**ROBERTA, pad_token_id=0)).save_pretrained(bert)
    assert features_of(encoder_of(bert), ["a red fox", "fox"]).isfinite().all()


@pytest.mark.parametrize(
    "ids", [{"pad_token_id": 1}, {"bos_token_id": 9, "eos_token_id": 9, "cls_token_id": 9}], ids=str
)
def test_other_special_ids_do_no_harm(bert, ids):
    change(bert / "config.json", **ids)
    assert encoder_of(bert).width == SIZES["hidden_size"]


def test_an_id_behind_the_last_row_of_the_model_is_refused(bert):
    path = bert / "tokenizer.json"
    rules = json.loads(path.read_text())
    rules["model"]["vocab"]["red"] = 500
    path.write_text(json.dumps(rules))
    refused(lambda: encoder_of(bert), "has ids up to 500 and the model 16 tokens: it is another model's")


@pytest.mark.parametrize("name", ["whisper", "wav2vec2", "ast", "vit", "dinov2", "siglip2"])
def test_a_model_of_something_else_is_none_of_text_even_beside_a_tokenizer(bert, name):
    save = hf_sounds.save_model if name in hf_sounds.MODELS else test_hf_image.save_model
    save(bert, name)
    refused(lambda: encoder_of(bert), "looks no tokens up .* take models of text")


def make_sentences(folder):
    """Make of a folder of transformers one of sentence-transformers."""
    modules = [("", "sentence_transformers.models.Transformer"), ("1_Pooling", "sentence_transformers.models.Pooling")]
    (folder / "modules.json").write_text(json.dumps([{"path": path, "type": kind} for path, kind in modules]))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "mean"}))


@pytest.mark.parametrize("whole", [True, False], ids=["beside-its-model", "alone"])
@pytest.mark.parametrize("name", ["hf-text", "sentence-transformers-text", "hf-image", "hf-audio"])
def test_an_adapter_is_to_be_merged_first(bert, no_hub, tmp_path_factory, name, whole):
    if name == "hf-image":
        test_hf_image.save_model(bert, "vit")
    elif name == "hf-audio":
        hf_sounds.save_model(bert, "ast")
    elif name == "sentence-transformers-text":
        make_sentences(bert)
    options = {"model": str(bert)}
    assert CATALOG.create("encoders", name, options=options).width == SIZES["hidden_size"]
    config = peft.LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    adapted = peft.get_peft_model(transformers.AutoModel.from_pretrained(bert), config)
    if not whole:
        (bert / "model.safetensors").unlink()
        (bert / "config.json").unlink()
    adapted.save_pretrained(bert)
    refused(lambda: CATALOG.create("encoders", name, options=options), "has an adapter .* merge_and_unload")


@pytest.mark.parametrize(
    ("name", "file", "change", "complaint"),
    [
        ("vit", "config.json", {"hidden_size": "x"}, "hidden_size.*expected int"),
        ("vit", "config.json", {"patch_size": 0}, "ZeroDivisionError"),
        ("vit", "preprocessor_config.json", None, "AttributeError"),
        ("vit", "preprocessor_config.json", {"resample": 99}, "KeyError: 99"),
        ("bert", "config.json", {"hidden_size": "x"}, "hidden_size.*expected int"),
        ("bert", "tokenizer_config.json", None, "AttributeError"),
        ("bert", "tokenizer.json", None, "TypeError"),
        ("ast", "config.json", {"hidden_act": "x"}, "KeyError: 'x'"),
        ("ast", "preprocessor_config.json", None, "AttributeError"),
        ("wav2vec2", "preprocessor_config.json", {"sampling_rate": "x"}, "TypeError"),
        ("whisper", "preprocessor_config.json", {"sampling_rate": 0}, "RuntimeError"),
    ],
)
def test_a_file_that_says_something_else_than_it_should_is_refused_by_name(bert, no_hub, name, file, change, complaint):
    kinds = {"vit": "hf-image", "bert": "hf-text"}
    if name == "vit":
        test_hf_image.save_model(bert, name)
    elif name != "bert":
        hf_sounds.save_model(bert, name)
    path = bert / file
    path.write_text(json.dumps([] if change is None else json.loads(path.read_text()) | change))
    options = {"model": str(bert)} | ({"seconds": 1.0} if name == "wav2vec2" else {})
    refused(
        lambda: CATALOG.create("encoders", kinds.get(name, "hf-audio"), options=options),
        f"{complaint}.*: a value in its .*{file}.* is not as save_pretrained writes it",
    )
