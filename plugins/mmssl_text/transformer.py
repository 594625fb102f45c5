"""A small text transformer with a vocabulary of its own, to train from scratch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from multimodal_ssl import InputError, Inputs, TokenEncoder
from multimodal_ssl.layers import Transformer

PAD, UNKNOWN = 0, 1


class TextTransformer(TokenEncoder):
    """Pre-norm transformer encoder with mean pooling over byte-pair tokens (Sennrich et al. 2016).

    Its tokenizer is learnt by ``adapt`` and is part of its state, as the bytes of its JSON.

    Args:
        length: texts are cut after so many tokens; how many were is counted.
        drop: share of tokens left out in training.
    """

    modality = "text"

    def __init__(self, *, width: int, depth: int, heads: int, vocabulary: int, length: int, drop: float) -> None:
        super().__init__()
        if width % heads:
            raise InputError(f"small-text: width {width} must be a multiple of heads {heads}")
        if vocabulary < 300:
            raise InputError(f"small-text: vocabulary {vocabulary} must be at least 300: 256 bytes and some words")
        self.width, self.length, self.drop = width, length, drop
        self.tokenizer = _untrained()
        self.vocabulary = vocabulary
        self.tokens = nn.Embedding(vocabulary, width, padding_idx=PAD)
        nn.init.normal_(self.tokens.weight, std=0.02)
        self.positions = nn.Parameter(torch.randn(length, width) * 0.02)
        self.blocks = Transformer(width, depth=depth, heads=heads)

    def by_depth(self) -> Sequence[nn.Module]:
        return self.blocks.by_depth()

    def adapt(self, items: Iterable[str]) -> None:
        """Learn the vocabulary."""
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocabulary,
            special_tokens=["[PAD]", "[UNK]"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),  # every byte, so that no character is unknown
            min_frequency=2,
            show_progress=False,
        )
        self.tokenizer = _untrained()
        self.tokenizer.train_from_iterator(items, trainer)

    def prepare(self, item: Any, rng: np.random.Generator | None = None) -> Inputs:
        ids = self.tokenizer.encode(item).ids or [UNKNOWN]
        truncated = len(ids) > self.length
        kept = np.array(ids[: self.length])
        kept[kept == PAD] = UNKNOWN  # a text may hold the very letters of the token
        if rng is not None and self.drop and len(kept) > 1:
            stay = rng.random(len(kept)) >= self.drop
            kept = kept[stay] if stay.any() else kept
        return {"tokens": torch.from_numpy(kept), "truncated": torch.tensor(truncated)}

    def collate(self, prepared: Sequence[Inputs]) -> Inputs:
        tokens = pad_sequence([one["tokens"] for one in prepared], batch_first=True, padding_value=PAD)
        return {"tokens": tokens, "truncated": torch.stack([one["truncated"] for one in prepared])}

    def tally(self, inputs: Inputs) -> Mapping[str, int]:
        return {"truncated": int(inputs["truncated"].sum())}

    def embed(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        tokens = inputs["tokens"]
        return self.tokens(tokens) + self.positions[: tokens.shape[1]], tokens != PAD

    def contextualise(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.blocks(tokens, mask)

    def get_extra_state(self) -> Tensor:
        """Return the tokenizer's JSON as bytes [n] (uint8)."""
        return torch.tensor(list(self.tokenizer.to_str().encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Take the tokenizer that `get_extra_state` gave."""
        self.tokenizer = Tokenizer.from_str(bytes(state.tolist()).decode())


def _untrained() -> Tokenizer:
    """Return a tokenizer of single bytes: lower case, spaces kept with the word that follows."""
    alphabet = {letter: number for number, letter in enumerate(["[PAD]", "[UNK]"])}
    tokenizer = Tokenizer(models.BPE(vocab=alphabet, merges=[], unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
