"""The text tower of an open_clip model, with its own tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import open_clip
import tokenizers
import torch
import transformers
from open_clip.hf_model import HFTextEncoder
from torch import Tensor, nn

from mmssl_open_clip.hidden import text_tokens
from mmssl_open_clip.loading import load_model, needs_hub
from mmssl_open_clip.tokens import Tokens
from mmssl_pretrained.depth import Depth, find_depth
from mmssl_pretrained.describe import describe
from mmssl_pretrained.hub import hub_or_cache
from mmssl_pretrained.weights import UNLOADABLE, explain
from multimodal_ssl import Encoder, InputError, Inputs


class OpenClipText(Encoder):
    """Text features in open_clip's joint space, before normalisation (Cherti et al. 2023).

    A run keeps the trained weights, not the architecture and the tokenizer: to load it, what ``model`` and
    ``pretrained`` name must still be there (a file, a folder, or the hub's cache on this machine).

    Args:
        model: an architecture of open_clip, the path of a model config (.json), ``local-dir:folder`` or
            ``hf-hub:name``; the last two name their weights too.
        pretrained: a tag of the architecture or the path of a checkpoint; None begins with random weights.
    """

    modality = "text"

    def __init__(self, *, model: str, pretrained: str | None) -> None:
        super().__init__()
        name, tower = load_model(model, pretrained)
        try:
            with hub_or_cache(needed=needs_hub(name, None)):
                self.tokens = Tokens(open_clip.get_tokenizer(name))
        except UNLOADABLE as error:
            raise InputError(
                f"open_clip can't load the tokenizer of {model} ({explain(error)}); without the "
                "model hub, give a folder that holds config, weights and tokenizer as `model: local-dir:folder`"
            ) from error
        _check_vocabulary(model, self.tokens, tower)
        # CLIP keeps the parts of its text tower beside the rest of the model: the rest is let go.
        tower.visual = tower.logit_scale = tower.logit_bias = None
        if isinstance(tower, open_clip.CoCa):
            tower.text_decoder = None
        self.config = open_clip.get_model_config(name)
        self.width = self.config["embed_dim"]
        self.tower = tower
        with torch.no_grad():
            tokens, _ = self.token_states(self.collate([self.prepare("a")]))
        self._token_width = tokens.shape[-1]

    def prepare(self, item: Any, rng: np.random.Generator | None = None) -> Inputs:
        """Turn a text into token ids [T], T being the same for all texts, and whether it was cut."""
        tokens, truncated = self.tokens(item)
        return {"tokens": tokens, "truncated": torch.tensor(truncated)}

    def tally(self, inputs: Inputs) -> Mapping[str, int]:
        return {"truncated": int(inputs["truncated"].sum())}

    def forward(self, inputs: Inputs) -> Tensor:
        features: Tensor = self.tower.encode_text(inputs["tokens"], normalize=False)
        return features

    @property
    def token_width(self) -> int:
        return self._token_width

    def token_states(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        return text_tokens(self.tower, inputs["tokens"])

    def describe(self) -> dict[str, Any]:
        return describe(open_clip, transformers, tokenizers, config=self.config, tokens=self.tokens.settings())

    @cached_property
    def _depth(self) -> Depth:
        return find_depth(self.tower, self.forward, self.collate([self.prepare("a")]))

    def by_depth(self) -> Sequence[nn.Module]:
        return self._depth.layers(self.tower)


def _check_vocabulary(model: str, tokens: Tokens, tower: Any) -> None:
    """Raise InputError if the model was made with another tokenizer, as far as the number of tokens tells.

    Vocabularies of Hugging Face are often padded in the model, to a multiple of 64 say. CLIP's is not, but where an
    architecture of open_clip's own joins it with a larger one.
    """
    text = tower if isinstance(tower, open_clip.CLIP) else tower.text
    table = text.transformer.get_input_embeddings() if isinstance(text, HFTextEncoder) else text.token_embedding
    simple = isinstance(tokens.tokenizer, open_clip.SimpleTokenizer)
    padded = not simple or model in open_clip.list_models()
    given, known = tokens.most(), table.num_embeddings
    if given > known or (given < known and not padded):
        kind = "CLIP's tokenizer" if simple else "its tokenizer"
        raise InputError(
            f"{model} has {known} tokens, but {kind} gives {given}: it was made with another, name that one as "
            "`hf_tokenizer_name` in the text_cfg of the model config"
        )
