"""Tiny models of open_clip with random weights."""

import copy
import json

import numpy as np
import open_clip
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file

import mmssl_open_clip
import mmssl_open_clip.loading
from multimodal_ssl import Catalog

CATALOG = Catalog.of(open_clip=mmssl_open_clip)
TEXTS = ["a red fox", "two tin cans on a shelf", "!"]
TINY = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 32, "head_width": 16, "layers": 2},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}
COCA = {
    "vision_cfg": {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
    "text_cfg": {"embed_cls": True, "output_tokens": True, "context_length": 76},
    "multimodal_cfg": {"context_length": 76, "width": 16, "heads": 2, "layers": 1},
}
ARCHITECTURES = {
    "tiny-clip": {},
    "tiny-custom-text": {"custom_text": True, "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8}},
    "tiny-coca": {"custom_text": True, **COCA},
}


def pictures():
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, shape, np.uint8) for shape in ((40, 60, 3), (32, 32), (90, 33, 3))]
    return [Image.fromarray(array) for array in arrays]


def save_model(folder, name):
    """Return the paths of a model config and of a checkpoint with random weights."""
    config = copy.deepcopy(TINY)
    for key, value in ARCHITECTURES[name].items():
        config[key] = config.get(key, {}) | value if isinstance(value, dict) else value
    path = folder / f"{name}.json"
    path.write_text(json.dumps(config))
    known = mmssl_open_clip.loading._register(str(path))
    torch.manual_seed(1)
    model = open_clip.create_model(known)
    for parameter in model.parameters():
        if not parameter.any():  # norms that begin as zeros would hide what is before them
            torch.nn.init.normal_(parameter, std=0.1)
    save_file(model.state_dict(), folder / "weights.safetensors")
    return str(path), str(folder / "weights.safetensors")


def save_folder(folder, mode):
    """Save a folder as the hub's, config, weights and a Hugging Face tokenizer; return what names it."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[BOS]", "[EOS]", "a", "red", "fox"]
    tokenizer = transformers.BertTokenizer(
        vocab={word: place for place, word in enumerate(vocabulary)}, bos_token="[BOS]", eos_token="[EOS]"
    )
    tokenizer.save_pretrained(folder)
    text = {"context_length": 8, "vocab_size": 10, "hf_tokenizer_name": "elsewhere", "tokenizer_mode": mode}
    config = TINY | {"text_cfg": TINY["text_cfg"] | text}
    preprocessing = {"mean": [0.5] * 3, "std": [0.25] * 3, "resize_mode": "squash"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocessing}))
    torch.manual_seed(2)
    save_file(open_clip.CLIP(**config).state_dict(), folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


def image_encoder(model, pretrained=None):
    return CATALOG.create("encoders", "open-clip-image", options={"model": model, "pretrained": pretrained})


def text_encoder(model, pretrained=None):
    return CATALOG.create("encoders", "open-clip-text", options={"model": model, "pretrained": pretrained})
