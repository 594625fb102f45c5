"""Any transformers model that reads text, pooled to one vector."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import tokenizers
import torch
import transformers
from torch import Tensor, nn

from mmssl_pretrained.depth import Depth, find_depth
from mmssl_pretrained.describe import describe
from mmssl_transformers.joint import part, project, projects
from mmssl_transformers.loading import load_tower, settings_of, settle
from mmssl_transformers.tokens import Tokens, load_tokenizer
from multimodal_ssl import Encoder, InputError, Inputs

Pooling = Literal["mean", "cls", "last", "projected"]


class HuggingFaceText(Encoder):
    """The pooled last hidden state of an AutoModel, in float32 and before normalisation.

    No TokenEncoder: whether a model adds positions to its token embeddings, and where, is its own affair.

    A run keeps the trained weights, not the config and the tokenizer: to load it, what ``model`` names must still be
    there (a folder, or the hub's cache on this machine).

    Args:
        model: a name on the hub or a local folder; of an encoder-decoder, the encoder is taken.
        pooling: the mean of the real tokens (Reimers and Gurevych 2019), the first or the last of them, or what CLIP,
            SigLIP or CLAP make of them in their joint space.
        length: texts are cut after so many tokens; None is as many as tokenizer and model take.
    """

    modality = "text"

    def __init__(self, *, model: str, pooling: Pooling, length: int | None) -> None:
        super().__init__()
        self.pooling: Pooling = pooling
        tokenizer = load_tokenizer(model)
        self.tower, missing = load_tower(model, projected=pooling == "projected")
        if pooling == "projected" and not projects(self.tower, "text"):
            raise InputError(f"{model} has no projection of texts into a joint space: set pooling, e.g. mean")
        self.tokens = Tokens(model, tokenizer, part(model, self.tower, "text"), length)
        inputs = self.collate([self.prepare("a")])
        try:
            features = settle(model, self.tower, missing, lambda: self(inputs))
        except InputError:
            raise
        except (TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise InputError(
                f"{model} does not turn tokens into a last_hidden_state ({textwrap.shorten(str(error), 200)}): "
                "hf-text takes models of text alone, and joint ones with pooling: projected"
            ) from error
        self.width = features.shape[-1]

    def prepare(self, item: Any, rng: np.random.Generator | None = None) -> Inputs:
        """Turn a text into the tokenizer's ids, mask and so on, each [T], and whether it was cut."""
        return self.tokens(item)

    def collate(self, prepared: Sequence[Inputs]) -> Inputs:
        return self.tokens.collate(prepared)

    def tally(self, inputs: Inputs) -> Mapping[str, int]:
        return {"truncated": int(inputs["truncated"].sum())}

    def forward(self, inputs: Inputs) -> Tensor:
        if self.pooling == "projected":
            return project(self.tower, "text", _given(inputs))
        return pool(self.tower(**_given(inputs)).last_hidden_state, inputs["attention_mask"], self.pooling)

    @property
    def token_width(self) -> int:
        return 0 if self.pooling == "projected" else self.width

    def token_states(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        return self.tower(**_given(inputs)).last_hidden_state, inputs["attention_mask"].bool()

    def describe(self) -> dict[str, Any]:
        return describe(
            transformers, tokenizers, **settings_of(self.tower), **self.tokens.settings(), pooling=self.pooling
        )

    @cached_property
    def _depth(self) -> Depth:
        return find_depth(self.tower, self.forward, self.collate([self.prepare("a")]))

    def by_depth(self) -> Sequence[nn.Module]:
        return self._depth.layers(self.tower)


def _given(inputs: Inputs) -> dict[str, Tensor]:
    """Return what the model takes."""
    return {name: values for name, values in inputs.items() if name != "truncated"}


def pool(hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """Return one vector for each text [B, F], hidden being [B, T, F] and mask [B, T] 0 where there is padding."""
    if pooling == "mean":
        real = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * real).sum(1) / real.sum(1)
    order = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    place = (mask * (order if pooling == "last" else order.flip(0))).argmax(1)
    return hidden[torch.arange(len(hidden), device=hidden.device), place]
