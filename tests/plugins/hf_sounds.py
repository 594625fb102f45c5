"""Tiny models of sound, as transformers builds and saves them, and sounds for them."""

import numpy as np
import torch
import transformers

from mmssl_audio.modality import Audio

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
WAVES = SIZES | {
    "conv_dim": (8, 8, 8),
    "conv_kernel": (10, 3, 3),
    "conv_stride": (5, 4, 4),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "layerdrop": 0.5,
}
WHISPER = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "encoder_layerdrop": 0.5,
    "max_source_positions": 100,
    "num_mel_bins": 16,
    "vocab_size": 20,
} | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
CLAP = {
    "spec_size": 128,
    "patch_size": 4,
    "patch_stride": [4, 4],
    "num_mel_bins": 64,
    "depths": [1, 1],
    "num_attention_heads": [1, 2],
    "num_hidden_layers": 2,
    "patch_embeds_hidden_size": 8,
    "hidden_size": 16,
    "window_size": 4,
}


def clap(**changes):
    text = SIZES | {"vocab_size": 20}
    return {"audio_config": CLAP | changes, "text_config": text, "projection_dim": 12}


SHORT = {
    "feature_size": 64,
    "sampling_rate": 16000,
    "hop_length": 160,
    "max_length_s": 1,
    "fft_window_size": 512,
    "frequency_max": 8000,
}
# name: config, feature extractor, ways of pooling with the default first, blocks, what follows the last
MODELS = {
    "wav2vec2": ("Wav2Vec2", WAVES, "Wav2Vec2", {}, "mean", "encoder.layers", None),
    "wav2vec2-layer": (
        "Wav2Vec2",
        WAVES | {"feat_extract_norm": "layer", "do_stable_layer_norm": True},
        "Wav2Vec2",
        {"return_attention_mask": True},
        "mean",
        "encoder.layers",
        "encoder.layer_norm",
    ),
    "hubert": ("Hubert", WAVES, "Wav2Vec2", {}, "mean", "encoder.layers", None),
    "wavlm": (
        "WavLM",
        WAVES | {"feat_extract_norm": "layer"},
        "Wav2Vec2",
        {"return_attention_mask": True},
        "mean",
        "encoder.layers",
        None,
    ),
    "data2vec": (
        "Data2VecAudio",
        WAVES | {"conv_pos_kernel_size": 3},
        "Wav2Vec2",
        {"return_attention_mask": True},
        "mean",
        "encoder.layers",
        None,
    ),
    "whisper": (
        "Whisper",
        WHISPER,
        "Whisper",
        {"feature_size": 16, "chunk_length": 2},
        "mean",
        "layers",
        "layer_norm",
    ),
    "ast": (
        "AST",
        SIZES | {"max_length": 128, "num_mel_bins": 32, "patch_size": 8, "frequency_stride": 8, "time_stride": 8},
        "AST",
        {"num_mel_bins": 32, "max_length": 128},
        "pooled cls",
        "layers",
        "layernorm",
    ),
    "clap": (
        "Clap",
        clap(),
        "Clap",
        SHORT | {"truncation": "rand_trunc"},
        "projected pooled",
        "audio_model.audio_encoder.layers",
        "audio_model.audio_encoder.norm audio_projection",
    ),
    "clap-fusion": (
        "Clap",
        clap(enable_fusion=True),
        "Clap",
        SHORT | {"truncation": "fusion"},
        "projected pooled",
        "audio_model.audio_encoder.layers",
        "audio_model.audio_encoder.norm audio_projection",
    ),
}
WITHOUT_WINDOW = ("wav2vec2", "wav2vec2-layer", "hubert", "wavlm", "data2vec")


def sound(seconds, rate=16000, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    tone = np.sin(np.arange(int(seconds * rate)) / rate * rng.uniform(1000, 9000))
    return Audio((0.3 * tone + 0.05 * rng.standard_normal((channels, len(tone)))).astype(np.float32), rate)


SOUNDS = [sound(0.5), sound(0.9, 8000, 2, seed=1), sound(1.6, 44100, seed=2), sound(0.7, seed=3)]


def save_model(folder, name, make=transformers.AutoModel.from_config):
    """Save a tiny model of a name in MODELS, or like one there, with random weights, and its feature extractor."""
    kind, config, extractor, settings, *_ = MODELS[name] if isinstance(name, str) else name
    torch.manual_seed(0)
    model = make(getattr(transformers, f"{kind}Config")(**config))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.2)
    model.save_pretrained(folder)
    getattr(transformers, f"{extractor}FeatureExtractor")(**settings).save_pretrained(folder)
    return folder
