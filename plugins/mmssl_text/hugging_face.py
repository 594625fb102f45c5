"""Any transformers model that reads text, pooled to one vector."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModel, AutoTokenizer

from multimodal_ssl import Encoder, InputError, Inputs

Pooling = Literal["mean", "cls", "last"]


class HuggingFaceText(Encoder):
    """The pooled last hidden state of an AutoModel, in float32 and before normalisation.

    No TokenEncoder: whether a model adds positions to its token embeddings, and where, is its own affair.

    A run keeps the trained weights, not the config and the tokenizer: to load it, what ``model`` names must still be
    there (a folder, or the hub's cache on this machine).

    Args:
        model: a name on the hub or a local folder; of an encoder-decoder, the encoder is taken.
        pooling: the mean of the real tokens (Reimers and Gurevych 2019), the first or the last of them.
        length: texts are cut after so many tokens; None is as many as tokenizer and model take.
    """

    modality = "text"

    def __init__(self, *, model: str, pooling: Pooling, length: int | None) -> None:
        super().__init__()
        self.pooling: Pooling = pooling
        self.tokenizer, self.tower = _load(model)
        self.length = _length(model, self.tokenizer, self.tower, length)
        try:
            features = self(self.collate([self.prepare("a")]))
        except (TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{model} does not turn tokens into a last_hidden_state ({textwrap.shorten(str(error), 200)}): "
                "hf-text takes models of text alone"
            ) from error
        self.width = features.shape[-1]
        _freeze_unused(self.tower, features)

    def prepare(self, item: Any, rng: np.random.Generator | None = None) -> Inputs:
        """Turn a text into the tokenizer's ids, mask and so on, each [T], and whether it was cut."""
        encoded = self.tokenizer(item, truncation=True, max_length=self.length, return_attention_mask=True)
        ids = encoded["input_ids"]
        if not ids:
            raise ValueError(f"the tokenizer finds no token in {item!r:.80}")
        # Only a text that fills the length may have been cut; the tokenizer does not say so itself.
        truncated = len(ids) == self.length and len(self.tokenizer(item, verbose=False)["input_ids"]) > self.length
        return {name: torch.tensor(values) for name, values in encoded.items()} | {"truncated": torch.tensor(truncated)}

    def collate(self, prepared: Sequence[Inputs]) -> Inputs:
        """Pad to the longest text, on the right whatever the tokenizer prefers: that moves no token's position."""
        padding = {"input_ids": self.tokenizer.pad_token_id or 0, "token_type_ids": self.tokenizer.pad_token_type_id}
        return {
            name: torch.stack([one[name] for one in prepared])
            if name == "truncated"
            else pad_sequence([one[name] for one in prepared], batch_first=True, padding_value=padding.get(name, 0))
            for name in prepared[0]
        }

    def tally(self, inputs: Inputs) -> Mapping[str, int]:
        return {"truncated": int(inputs["truncated"].sum())}

    def forward(self, inputs: Inputs) -> Tensor:
        outputs = self.tower(**{name: values for name, values in inputs.items() if name != "truncated"})
        return pool(outputs.last_hidden_state, inputs["attention_mask"], self.pooling)


def pool(hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """Return one vector for each text [B, F], hidden being [B, T, F] and mask [B, T] 0 where there is padding."""
    if pooling == "mean":
        real = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * real).sum(1) / real.sum(1)
    order = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    place = (mask * (order if pooling == "last" else order.flip(0))).argmax(1)
    return hidden[torch.arange(len(hidden), device=hidden.device), place]


def _load(model: str) -> tuple[Any, Any]:
    """Return tokenizer and model; raise InputError if they can't be had or are not whole."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
        tower, report = AutoModel.from_pretrained(
            model, trust_remote_code=False, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise InputError(
            f"transformers can't load {model!r} ({textwrap.shorten(str(error), 300)}); without the model hub, give a "
            "local folder that holds config, weights and tokenizer, as save_pretrained writes it"
        ) from error
    if len(tokenizer) < len(tokenizer.all_special_ids) + 2:
        # transformers makes up an empty one where there is none; T5's has one token, the space.
        raise InputError(f"{model} holds no tokenizer: put its files there, as tokenizer.save_pretrained writes them")
    # A checkpoint of pretraining often lacks BERT's pooler, which we don't use; anything else would stay random.
    missing = sorted(name for name in report["missing_keys"] if "pooler" not in name)
    if missing:
        raise InputError(f"the weights in {model} lack {textwrap.shorten(', '.join(missing), 200)}")
    tower.config.use_cache = False  # of keys and values, for generation
    return tokenizer, tower.get_encoder() if tower.config.is_encoder_decoder else tower


def _length(model: str, tokenizer: Any, tower: Any, length: int | None) -> int:
    """Return how many tokens a text may have; raise InputError if the given length is too large or too small."""
    config = tower.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None)  # models with relative positions have none
    if positions is not None:
        # RoBERTa and its kin count positions from behind that of the padding.
        tables = [one for one in tower.modules() if isinstance(one, nn.Embedding) and one.num_embeddings == positions]
        positions -= max((one.padding_idx + 1 for one in tables if one.padding_idx is not None), default=0)
    limits = [limit for limit in (tokenizer.model_max_length, positions) if limit is not None and 0 < limit < 2**31]
    if length is None:
        if not limits:
            raise InputError(
                f"neither tokenizer nor config of {model} says how long a text may be: set length, e.g. 256"
            )
        return int(min(limits))
    least = tokenizer.num_special_tokens_to_add() + 1
    if not least <= length <= (positions or length):
        raise InputError(f"length={length}: {model} takes {least} to {positions or 'any number of'} tokens")
    return length


def _freeze_unused(tower: nn.Module, features: Tensor) -> None:
    """Freeze what the features do not depend on, such as BERT's pooler: what is trained must get a gradient."""
    parameters = [one for one in tower.parameters() if one.requires_grad]
    gradients = torch.autograd.grad(features.sum(), parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is None:
            parameter.requires_grad_(False)
