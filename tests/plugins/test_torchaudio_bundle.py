import pickle
import urllib.error

import numpy as np
import pytest
import torch
from safetensors.torch import load, load_file, save, save_file
from torchaudio import pipelines
from torchaudio.models import wav2vec2_model, wavlm_model

import mmssl_audio
from mmssl_audio.bundle import TorchaudioBundle
from mmssl_audio.modality import Audio
from multimodal_ssl import Catalog, InputError
from multimodal_ssl.testing import check_encoder

CATALOG = Catalog.of(audio=mmssl_audio)
SIZES = {
    "extractor_conv_layer_config": [(8, 10, 5), (8, 3, 4), (8, 3, 4)],
    "encoder_embed_dim": 16,
    "encoder_pos_conv_kernel": 8,
    "encoder_pos_conv_groups": 2,
    "encoder_num_layers": 3,
    "encoder_num_heads": 2,
    "encoder_ff_interm_features": 32,
}
# One that hears the padding, one that masks it and has its waves normalised, one whose attention takes no mask.
BUNDLES = ["WAV2VEC2_BASE", "HUBERT_LARGE", "WAVLM_BASE"]


def sound(seconds, rate=16000, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    tone = np.sin(np.arange(int(seconds * rate)) / rate * rng.uniform(1000, 9000))
    return Audio((0.3 * tone + 0.05 * rng.standard_normal((channels, len(tone)))).astype(np.float32), rate)


SOUNDS = [sound(0.3), sound(0.5, 8000, 2, seed=1), sound(0.2, seed=2), sound(0.3, seed=3)]


def library_model(name, **changes):
    """Return torchaudio's own model of a bundle, in other sizes."""
    bundle = getattr(pipelines, name)
    make = wavlm_model if bundle._model_type == "WavLM" else wav2vec2_model
    return make(**bundle._params | SIZES | changes).eval()


@pytest.fixture(scope="module", params=BUNDLES)
def name(request):
    return request.param


@pytest.fixture
def weights(name, tmp_path):
    """Return the path of a state dict with random weights, as large as a model learns them."""
    torch.manual_seed(0)
    model = library_model(name)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    return str(tmp_path / "weights.safetensors")


def encoder_of(name, weights, **options):
    given = {"model": name, "weights": weights, "config": SIZES, **options}
    return CATALOG.create("encoders", "torchaudio-bundle", options=given)


@torch.no_grad()
def features_of(encoder, sounds):
    return encoder.eval()(encoder.collate([encoder.prepare(one) for one in sounds]))


@pytest.mark.parametrize("layer", [None, 1, 2])
def test_features_of_one_sound_are_those_of_torchaudio_bit_for_bit(name, weights, layer):
    model = library_model(name)
    model.load_state_dict(load_file(weights))
    wave = torch.from_numpy(SOUNDS[0].samples)
    if getattr(pipelines, name)._normalize_waveform:
        wave = torch.nn.functional.layer_norm(wave, wave.shape)
    with torch.no_grad():
        hidden, _ = model.extract_features(wave, num_layers=layer)
    encoder = encoder_of(name, weights, layer=layer)
    assert encoder.width == 16
    assert torch.equal(features_of(encoder, SOUNDS[:1]), hidden[-1].mean(1))


def test_encoders_conform(name, weights):
    check_encoder(encoder_of(name, weights), SOUNDS)


def test_features_do_not_depend_on_the_padding(name, weights):
    encoder = encoder_of(name, weights)
    alone = torch.cat([features_of(encoder, [one]) for one in SOUNDS])
    torch.testing.assert_close(features_of(encoder, SOUNDS), alone)


def test_long_sounds_are_cropped_to_their_middle_or_anywhere(name, weights):
    encoder, long = encoder_of(name, weights, seconds=0.25), sound(1.0)
    middle = Audio(long.samples[:, 6000:10000], long.rate)
    assert torch.equal(encoder.prepare(long), encoder.prepare(middle))
    one, again, other = (encoder.prepare(long, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert len(one) == len(encoder.prepare(long)) == 4000


def test_a_sound_too_short_for_one_frame_is_unreadable(name, weights):
    with pytest.raises(ValueError, match=r"0\.001 s of sound: the model takes 0\.004 at least"):
        encoder_of(name, weights).prepare(sound(0.001))
    with pytest.raises(InputError, match=r"seconds=0\.001"):
        encoder_of(name, weights, seconds=0.001)


def test_rebuilt_encoders_take_the_state_that_was_saved(name, weights):
    trained, again = encoder_of(name, weights), encoder_of(name, weights)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.mul_(1.1)
    assert not torch.equal(features_of(trained, SOUNDS), features_of(again, SOUNDS))
    again.load_state_dict(load(save(trained.state_dict())))
    assert torch.equal(features_of(trained, SOUNDS), features_of(again, SOUNDS))


def test_encoders_can_be_sent_to_workers(name, weights):
    encoder = encoder_of(name, weights)
    assert torch.equal(features_of(pickle.loads(pickle.dumps(encoder)), SOUNDS), features_of(encoder, SOUNDS))


def test_layers_come_in_the_order_of_depth(name, weights):
    encoder = encoder_of(name, weights)
    layers = encoder.by_depth()
    assert list(layers[:-1]) == list(encoder.tower.encoder.transformer.layers[:-1])
    assert list(layers[-1].parameters()) == list(encoder.tower.encoder.transformer.layers[-1].parameters())
    assert len(encoder_of(name, weights, layer=2).by_depth()) == 2


def test_what_was_fine_tuned_for_letters_is_left_away(weights, name):
    state = load_file(weights)
    save_file(state | {"aux.weight": torch.zeros(29, 16), "aux.bias": torch.zeros(29)}, weights)
    assert "aux" not in "".join(encoder_of(name, weights).state_dict())


def test_weights_that_lack_something_or_have_too_much_or_other_sizes_are_refused(name, weights):
    state = load_file(weights)
    lost = "encoder.transformer.layers.1.layer_norm.bias"
    for complaint, changed in {
        f"Missing.*{lost}": {key: one for key, one in state.items() if key != lost},
        "Unexpected.*layers.3": state | {"encoder.transformer.layers.3.x": torch.ones(1)},
        f"size mismatch for {lost}": state | {lost: torch.zeros(17)},
    }.items():
        save_file(changed, weights)
        with pytest.raises(InputError, match=f"can't load .* for {name} .*{complaint}") as caught:
            encoder_of(name, weights)
        assert "\n" not in str(caught.value)


def test_wrong_options_are_answered_with_what_would_be_right(tmp_path):
    with pytest.raises(InputError, match="no bundle 'WAV2VEC_BASE': did you mean 'WAV2VEC2_BASE'"):
        encoder_of("WAV2VEC_BASE", None)
    with pytest.raises(InputError, match="give the path of weights of your own"):
        encoder_of("WAV2VEC2_BASE", None)
    with pytest.raises(InputError, match="no 'encoder_layers': did you mean 'encoder_"):
        encoder_of("WAV2VEC2_BASE", "x", config={"encoder_layers": 2})
    save_file(library_model("WAV2VEC2_BASE").state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="layer=4: WAV2VEC2_BASE has layers 1 to 3"):
        encoder_of("WAV2VEC2_BASE", str(tmp_path / "w.safetensors"), layer=4)


def test_a_network_out_of_reach_is_said_in_one_line_with_the_way_out(monkeypatch):
    def refuse(*_, **__):
        raise urllib.error.URLError("no route")

    monkeypatch.setattr("torchaudio.pipelines._wav2vec2.utils.load_state_dict_from_url", refuse)
    with pytest.raises(InputError, match=r"can't load WAV2VEC2_BASE .*no route.*as `weights`") as caught:
        encoder_of("WAV2VEC2_BASE", None, config=None)
    assert "\n" not in str(caught.value)


def test_the_factory_makes_this_encoder(tmp_path):
    torch.save(library_model("WAV2VEC2_BASE").state_dict(), tmp_path / "w.pth")
    assert isinstance(encoder_of("WAV2VEC2_BASE", str(tmp_path / "w.pth")), TorchaudioBundle)
