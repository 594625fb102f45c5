import json
import math
import pickle

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load, load_file, save, save_file

import mmssl_transformers
from mmssl_audio.modality import Audio
from mmssl_transformers.audio import HuggingFaceAudio
from multimodal_ssl import Catalog, InputError
from multimodal_ssl.testing import check_encoder

from .hf_sounds import CLAP, MODELS, SHORT, SIZES, SOUNDS, WAVES, WITHOUT_WINDOW, save_model, sound

CATALOG = Catalog.of(transformers=mmssl_transformers)


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
def wav2vec2(tmp_path):
    return save_model(tmp_path, "wav2vec2")


def encoder_of(folder, **options):
    window = any(name in str(folder) for name in ("whisper", "ast", "clap"))
    given = {"model": str(folder), "seconds": None if window else 1.0, **options}
    return CATALOG.create("encoders", "hf-audio", options=given)


@torch.no_grad()
def features_of(encoder, sounds):
    return encoder.eval()(encoder.collate([encoder.prepare(one) for one in sounds]))


@torch.no_grad()
def reference(folder, pooling, wave):
    """Return what transformers itself makes of one wave; without pooling tokens, all of them real."""
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    inputs = extractor(wave, sampling_rate=extractor.sampling_rate, return_tensors="pt")
    if pooling == "projected":
        return model.get_audio_features(**inputs).pooler_output
    if isinstance(model, transformers.ClapModel):
        model = model.audio_model
    if isinstance(model, transformers.WhisperModel):
        hidden = model.get_encoder()(**inputs).last_hidden_state
        real = -(-(len(wave) // 160) // 2)  # frames of 10 ms, two of which make one
        if pooling is None:
            return hidden[:, :real]
        return hidden[:, :real].sum(1) / real
    outputs = model(**inputs)
    if pooling is None:
        hidden = outputs.last_hidden_state
        return (
            hidden if hidden.ndim == 3 else torch.stack([one for row in hidden.unbind(2) for one in row.unbind(2)], 1)
        )
    if pooling == "pooled":
        return outputs.pooler_output
    return outputs.last_hidden_state[:, 0] if pooling == "cls" else outputs.last_hidden_state.mean(1)


@pytest.mark.parametrize(
    ("name", "pooling"), [(name, pooling) for name, one in MODELS.items() for pooling in one[4].split()]
)
def test_features_of_one_sound_are_those_of_transformers(folders, no_hub, name, pooling):
    expected = reference(folders(name), pooling, SOUNDS[0].samples[0])
    encoder = encoder_of(folders(name), pooling=pooling)
    features = features_of(encoder, SOUNDS[:1])
    assert encoder.width == expected.shape[1]
    if pooling != "mean":  # bit for bit; a mean adds up in an order of its own
        assert torch.equal(features, expected)
    torch.testing.assert_close(features, expected)


@pytest.mark.parametrize("name", [name for name, one in MODELS.items() if one[4] == "mean"])
def test_hidden_states_are_those_of_transformers_bit_for_bit(folders, name):
    encoder = encoder_of(folders(name))
    inputs = encoder.collate([encoder.prepare(SOUNDS[0])])
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folders(name))
    given = extractor(SOUNDS[0].samples[0], sampling_rate=16000, return_tensors="pt")
    main = extractor.model_input_names[0]
    assert torch.equal(inputs[main], given[main])
    with torch.no_grad():
        model = transformers.AutoModel.from_pretrained(folders(name)).eval()
        model = model.get_encoder() if name == "whisper" else model
        assert torch.equal(encoder.tower(**given).last_hidden_state, model(**given).last_hidden_state)


@pytest.mark.parametrize("name", MODELS)
def test_encoders_conform(folders, name):
    encoder = encoder_of(folders(name))
    assert encoder.pooling == MODELS[name][4].split()[0]
    check_encoder(encoder, SOUNDS)


@pytest.mark.parametrize("name", MODELS)
def test_tokens_of_one_sound_are_those_of_transformers_bit_for_bit(folders, name):
    encoder = encoder_of(folders(name), pooling=MODELS[name][4].split()[-1]).eval()
    with torch.no_grad():
        tokens, real = encoder.token_states(encoder.collate([encoder.prepare(SOUNDS[0])]))
    expected = reference(folders(name), None, SOUNDS[0].samples[0])
    assert encoder.token_width == expected.shape[-1]
    assert torch.equal(tokens[real], expected[0])
    check_encoder(encoder, SOUNDS)


@pytest.mark.parametrize("name", WITHOUT_WINDOW)
@torch.no_grad()
def test_tokens_of_a_longer_sound_are_more_and_the_shorter_are_padded(folders, name):
    encoder = encoder_of(folders(name)).eval()
    tokens, real = encoder.token_states(encoder.collate([encoder.prepare(one) for one in SOUNDS]))
    counts = [encoder.token_states(encoder.collate([encoder.prepare(one)]))[0].shape[1] for one in SOUNDS]
    assert counts[0] < counts[3] < counts[1] < counts[2] == tokens.shape[1]
    assert real.tolist() == [[place < count for place in range(counts[2])] for count in counts]
    if encoder._hears_padding:
        assert not tokens[~real].any()


def test_claps_joint_space_has_no_tokens(folders):
    assert encoder_of(folders("clap")).token_width == 0


@pytest.mark.parametrize("name", MODELS)
def test_features_do_not_depend_on_the_padding(folders, name):
    encoder = encoder_of(folders(name))
    alone = torch.cat([features_of(encoder, [one]) for one in SOUNDS])
    torch.testing.assert_close(features_of(encoder, SOUNDS), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_encoders_can_be_sent_to_workers(folders, name):
    encoder = encoder_of(folders(name))
    sent = pickle.loads(pickle.dumps(encoder))
    assert torch.equal(features_of(sent, SOUNDS), features_of(encoder, SOUNDS))


@pytest.mark.parametrize("name", MODELS)
def test_layers_come_in_the_order_of_depth(folders, name):
    encoder = encoder_of(folders(name))
    blocks = list(encoder.tower.get_submodule(MODELS[name][5]))
    *lower, last = encoder.by_depth()
    assert lower == blocks[:-1]
    after = [encoder.tower.get_submodule(one) for one in (MODELS[name][6] or "").split()]
    expected = [id(parameter) for module in [blocks[-1], *after] for parameter in module.parameters()]
    assert [id(one) for one in last.parameters()] == expected


@pytest.mark.parametrize("name", ["wav2vec2", "wavlm", "whisper"])
def test_nothing_but_dropout_is_drawn_in_training(folders, name):
    encoder = encoder_of(folders(name)).train()
    for module in encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for option in ("dropout", "attention_dropout", "activation_dropout"):
            if option in vars(module) and isinstance(vars(module)[option], float):
                setattr(module, option, 0.0)
    inputs = encoder.collate([encoder.prepare(one) for one in SOUNDS])
    assert torch.equal(encoder(inputs), encoder(inputs))


@pytest.mark.parametrize("name", ["clap", "clap-fusion"])
def test_clap_takes_the_middle_where_its_extractor_would_draw(folders, name, monkeypatch):
    long, encoder = sound(2.3), encoder_of(folders(name))
    drawn = []
    monkeypatch.setattr(np.random, "choice", lambda places: drawn.append(places) or places[len(places) // 2])
    monkeypatch.setattr(np.random, "randint", lambda low, high: drawn.append(low) or (high - 1) // 2)
    features = features_of(encoder, [long])
    assert not drawn
    assert torch.equal(features, reference(folders(name), "projected", long.samples[0]))


def test_clap_fuses_three_windows_drawn_from_the_rng(folders):
    long, encoder = sound(2.3), encoder_of(folders("clap-fusion"))
    one, again, other = (encoder.prepare(long, np.random.default_rng(seed))["input_features"] for seed in (3, 3, 4))
    assert torch.equal(one, again)
    assert torch.equal(one[0], other[0])  # the whole, shrunk
    assert not torch.equal(one[1:], other[1:])


def test_long_sounds_are_cropped_to_their_middle_or_anywhere(folders):
    encoder, long = encoder_of(folders("wav2vec2"), seconds=0.25), sound(1.0)
    middle = Audio(long.samples[:, 6000:10000], long.rate)
    assert torch.equal(encoder.prepare(long)["input_values"], encoder.prepare(middle)["input_values"])
    one, again, other = (encoder.prepare(long, np.random.default_rng(seed))["input_values"] for seed in (3, 3, 4))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert len(one) == 4000


@pytest.mark.parametrize(("name", "window"), [("whisper", 2), ("ast", 1.28)])
def test_what_is_longer_than_the_window_is_heard_from_its_beginning_or_anywhere(folders, name, window):
    encoder, long = encoder_of(folders(name)), sound(4.0)
    beginning = Audio(long.samples[:, : int((window + 0.02) * 16000)], 16000)
    main = encoder.extractor.model_input_names[0]
    if name == "ast":
        assert torch.equal(encoder.prepare(long)[main], encoder.prepare(beginning)[main])
    assert torch.equal(features_of(encoder, [long]), features_of(encoder, [Audio(long.samples[:, :60000], 16000)]))
    one, other = (encoder.prepare(long, np.random.default_rng(seed))[main] for seed in (3, 4))
    assert not torch.equal(one, other)


@pytest.mark.parametrize("name", WITHOUT_WINDOW)
def test_a_model_without_a_window_must_be_told_how_much_to_hear(folders, name):
    with pytest.raises(InputError, match=r"set seconds, e\.g\. 10"):
        encoder_of(folders(name), seconds=None)
    with pytest.raises(InputError, match=r"seconds=0\.001"):
        encoder_of(folders(name), seconds=0.001)


@pytest.mark.parametrize("seconds", [math.nan, math.inf])
def test_seconds_are_a_number(folders, seconds):
    with pytest.raises(InputError, match=rf"seconds: Input should be less than or equal to 86400 \(given: {seconds}\)"):
        encoder_of(folders("wav2vec2"), seconds=seconds)


def test_a_sound_too_short_for_one_frame_is_unreadable(folders):
    with pytest.raises(ValueError, match=r"0\.001 s of sound: the model takes 0\.004 at least"):
        encoder_of(folders("wav2vec2")).prepare(sound(0.001))
    with pytest.raises(ValueError, match=r"the model takes 0\.025 at least"):
        encoder_of(folders("ast")).prepare(sound(0.01))


@pytest.mark.filterwarnings("ignore:.*(invalid value|Degrees of freedom)")
def test_a_sound_whose_one_frame_has_no_variance_is_unreadable(tmp_path):
    sizes = SIZES | {"output_hidden_size": 16, "conv_depthwise_kernel_size": 3, "left_max_position_embeddings": 4}
    encoder = encoder_of(save_model(tmp_path, ("Wav2Vec2Bert", sizes, "SeamlessM4T", {})))
    for samples in (400, 500):
        with pytest.raises(ValueError, match=rf"of 0\.0{samples // 16} s of sound .* not finite: it is too short"):
            encoder.prepare(sound(samples / 16000))
    assert features_of(encoder, [sound(600 / 16000), sound(0.5)]).isfinite().all()


@pytest.mark.parametrize(
    ("name", "pooling", "ways"), [("wavlm", "cls", "mean"), ("ast", "mean", "pooled, cls"), ("clap", "mean", "pooled")]
)
def test_pooling_that_a_model_does_not_have_is_refused_with_what_it_has(folders, name, pooling, ways):
    with pytest.raises(InputError, match=f"no features for pooling: {pooling}; it has {ways}$"):
        encoder_of(folders(name), pooling=pooling)


def test_an_audio_tower_that_was_saved_with_its_projection_projects(tmp_path):
    spec = ("ClapAudio", CLAP | {"projection_dim": 12}, "Clap", SHORT | {"truncation": "rand_trunc"})
    save_model(tmp_path, spec, transformers.ClapAudioModelWithProjection)
    model = transformers.ClapAudioModelWithProjection.from_pretrained(tmp_path).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(tmp_path)
    with torch.no_grad():
        expected = model(**extractor(SOUNDS[0].samples[0], sampling_rate=16000, return_tensors="pt")).audio_embeds
    assert torch.equal(features_of(encoder_of(tmp_path, seconds=None), SOUNDS[:1]), expected)


def test_only_the_tower_that_is_needed_is_kept(folders):
    for pooling, parts in (("projected", {"audio_model", "audio_projection"}), ("pooled", {"audio_encoder"})):
        encoder = encoder_of(folders("clap"), pooling=pooling)
        assert {name.split(".")[1] for name, _ in encoder.named_parameters()} == parts


def test_batch_statistics_stay_those_of_pretraining(folders):
    encoder = encoder_of(folders("clap")).train()
    norm = encoder.tower.audio_model.audio_encoder.batch_norm
    before = norm.running_mean.clone()
    encoder(encoder.collate([encoder.prepare(one) for one in SOUNDS]))
    assert torch.equal(norm.running_mean, before)


def test_rebuilt_encoders_take_the_state_that_was_saved(folders):
    trained, again = encoder_of(folders("clap")), encoder_of(folders("clap"))
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.mul_(1.1)
    assert not torch.equal(features_of(trained, SOUNDS), features_of(again, SOUNDS))
    again.load_state_dict(load(save(trained.state_dict())))
    assert torch.equal(features_of(trained, SOUNDS), features_of(again, SOUNDS))


def test_weights_that_lack_something_or_have_too_much_or_other_sizes_are_refused_by_name(wav2vec2):
    path, config = wav2vec2 / "model.safetensors", wav2vec2 / "config.json"
    weights = load_file(path)
    save_file({name: one for name, one in weights.items() if "layers.1.final" not in name}, path, {"format": "pt"})
    with pytest.raises(InputError, match=r"the weights in .* lack encoder\.layers\.1\.final_layer_norm\.bias"):
        encoder_of(wav2vec2)
    save_file(weights, path, {"format": "pt"})
    given = json.loads(config.read_text())
    config.write_text(json.dumps(given | {"num_hidden_layers": 1}))
    with pytest.raises(InputError, match=r"have more than its config says: encoder\.layers\.1\."):
        encoder_of(wav2vec2)
    config.write_text(json.dumps(given | {"intermediate_size": 48}))
    with pytest.raises(InputError, match=r"do not fit its config: .*intermediate_dense\.bias is \[32\], not \[48\]"):
        encoder_of(wav2vec2)


def test_heads_of_pretraining_do_no_harm(tmp_path):
    codes = {"codevector_dim": 8, "proj_codevector_dim": 8, "num_codevectors_per_group": 4}
    spec = ("Wav2Vec2", WAVES | codes, "Wav2Vec2", {})
    save_model(tmp_path, spec, transformers.Wav2Vec2ForPreTraining)
    assert encoder_of(tmp_path).width == 16


def test_models_of_something_else_are_refused(tmp_path):
    transformers.BertModel(transformers.BertConfig(**SIZES, vocab_size=20)).save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="hf-audio takes models of sounds"):
        encoder_of(tmp_path)


def test_a_hub_out_of_reach_is_said_in_one_line_with_the_way_out(no_hub, tmp_path, wav2vec2):
    (wav2vec2 / "preprocessor_config.json").unlink()
    for model in ("nobody/nothing", tmp_path / "absent", wav2vec2):
        with pytest.raises(InputError, match=r"feature extractor of .*without the model hub, give a local") as caught:
            encoder_of(model)
        assert "\n" not in str(caught.value)


def test_the_factory_makes_this_encoder(folders):
    assert isinstance(encoder_of(folders("wav2vec2")), HuggingFaceAudio)
