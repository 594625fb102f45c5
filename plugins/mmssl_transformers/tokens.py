"""Token ids of texts, as a model's own tokenizer gives them, and whether a text was cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer

from mmssl_pretrained.describe import describe_tokenizer
from mmssl_transformers.loading import read
from multimodal_ssl import InputError, Inputs

# SigLIP was trained on texts of one length, padding included, and pools the last token (Zhai et al. 2023).
FULL_LENGTH = ("siglip", "siglip_text_model", "siglip2", "siglip2_text_model")


class Tokens:
    """Turns a text into the tokenizer's ids, mask and so on, each [T], and whether it was cut.

    Args:
        model: the model's name, for errors.
        tokenizer: of transformers.
        tower: the model.
        length: texts are cut after so many tokens; None is as many as tokenizer and model take.
    """

    def __init__(self, model: str, tokenizer: Any, tower: Any, length: int | None) -> None:
        self.tokenizer = tokenizer
        _check_ids(model, tokenizer, tower)
        self.length = _length(model, tokenizer, tower, length)
        self.padding: dict[str, Any] = {"truncation": True, "max_length": self.length}
        if tower.config.model_type in FULL_LENGTH:
            self.padding["padding"] = "max_length"
        else:
            self.padding["return_attention_mask"] = True

    def __call__(self, text: str) -> Inputs:
        """Return them."""
        encoded = self.tokenizer(text, **self.padding)
        ids = encoded["input_ids"]
        if not ids:
            raise ValueError(f"the tokenizer finds no token in {text!r:.80}")
        # Only a text that fills the length may have been cut; the tokenizer does not say so itself.
        truncated = len(ids) == self.length and len(self.tokenizer(text, verbose=False)["input_ids"]) > self.length
        return {name: torch.tensor(values) for name, values in encoded.items()} | {"truncated": torch.tensor(truncated)}

    def settings(self) -> dict[str, Any]:
        """Return what the ids depend on; see ``Encoder.describe``."""
        return {"tokenizer": describe_tokenizer(self.tokenizer), "cut": self.padding}

    def collate(self, prepared: Sequence[Inputs]) -> Inputs:
        """Pad to the longest text, on the right whatever the tokenizer prefers: that moves no token's position."""
        padding = {"input_ids": self.tokenizer.pad_token_id or 0, "token_type_ids": self.tokenizer.pad_token_type_id}
        return {
            name: torch.stack([one[name] for one in prepared])
            if name == "truncated"
            else pad_sequence([one[name] for one in prepared], batch_first=True, padding_value=padding.get(name, 0))
            for name in prepared[0]
        }


def load_tokenizer(model: str, subfolder: str = "") -> Any:
    """Return the tokenizer of a model; raise InputError if it has none."""
    tokenizer = read(
        "the tokenizer of ",
        model,
        lambda: AutoTokenizer.from_pretrained(model, subfolder=subfolder, trust_remote_code=False),
        file="tokenizer_config.json or tokenizer.json",
    )
    if len(tokenizer) < len(tokenizer.all_special_ids) + 2:
        # transformers makes up an empty one where there is none; T5's has one token, the space.
        raise InputError(f"{model} holds no tokenizer: put its files there, as tokenizer.save_pretrained writes them")
    return tokenizer


def _check_ids(model: str, tokenizer: Any, tower: Any) -> None:
    """Raise InputError for a tokenizer that is known to be another model's.

    Beside the largest id, that of the padding is compared where the model counts positions by it. Not elsewhere, and
    no other special id: there configs of well-known models say something else than their tokenizers, and nothing comes
    of it. CLIP's pads with 1 and ends with 2, and its tokenizer does both with 49407; what is tuned from Llama has any
    padding.
    """
    rows = _words(model, tower).num_embeddings
    largest = max(tokenizer.get_vocab().values())
    if largest >= rows:
        raise InputError(
            f"the tokenizer of {model} has ids up to {largest} and the model {rows} tokens: it is another model's"
        )
    for table in _positions(tower):
        if None not in (table.padding_idx, tokenizer.pad_token_id) and table.padding_idx != tokenizer.pad_token_id:
            raise InputError(
                f"the tokenizer of {model} pads with id {tokenizer.pad_token_id} and the model with "
                f"{table.padding_idx}, by which it counts positions: it is another model's"
            )


def _words(model: str, tower: Any) -> nn.Embedding:
    """Return the table that a model looks its tokens up in; raise InputError if it has none."""
    try:
        table = tower.get_input_embeddings()
    except (NotImplementedError, AttributeError):  # so says transformers of wav2vec 2.0
        table = None
    if not isinstance(table, nn.Embedding):  # of images and sounds it may be a convolution
        raise InputError(
            f"{model} looks no tokens up ({type(tower).__name__}): hf-text and sentence-transformers-text take models "
            "of text"
        )
    return table


def _positions(tower: Any) -> list[nn.Embedding]:
    """Return the tables of learned positions that are as long as the config says."""
    rows = getattr(tower.config.get_text_config(), "max_position_embeddings", None)
    tables = [one for one in tower.modules() if isinstance(one, nn.Embedding) and one.num_embeddings == rows]
    return [one for one in tables if one is not tower.get_input_embeddings()]


def _length(model: str, tokenizer: Any, tower: Any, length: int | None) -> int:
    """Return how many tokens a text may have; raise InputError if the given length is too large or too small."""
    config = tower.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None)  # models with relative positions have none, XLNet -1
    if positions is not None and positions < 1:
        positions = None
    if positions is not None:
        # RoBERTa and its kin count positions from behind that of the padding.
        padding = [one.padding_idx for one in _positions(tower) if one.padding_idx is not None]
        positions -= max((one + 1 for one in padding), default=0)
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
