"""Models of sentence-transformers, read from their folder: a transformer and what follows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import tokenizers
import transformers
from tokenizers.normalizers import Lowercase
from tokenizers.normalizers import Sequence as Normalizers
from torch import Tensor, nn

from mmssl_pretrained.depth import Depth, find_depth
from mmssl_pretrained.describe import describe
from mmssl_transformers.folder import PoolingFile, PromptsFile, SettingsFile, read_config, read_modules
from mmssl_transformers.loading import load_tower, settings_of, settle
from mmssl_transformers.sentence_modules import TokenPooling, make_module
from mmssl_transformers.tokens import Tokens, load_tokenizer
from multimodal_ssl import Encoder, InputError, Inputs
from multimodal_ssl.errors import nearest

# Where the length and the lower case stand: under one name today, under that of the model in old folders.
SETTINGS = [
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
]


class SentenceTransformersText(Encoder):
    """The embedding of a model of sentence-transformers (Reimers and Gurevych 2019), in float32, with all its modules.

    A run keeps the trained weights, not the configs and the tokenizer: to load it, what ``model`` names must still be
    there (a folder, or the hub's cache on this machine).

    Args:
        model: a name on the hub or a local folder with a modules.json: Transformer, Pooling, Dense, Normalize.
        prompt: the name of one of the model's prompts, put before each text; None is its default, if it has one.
        length: texts are cut after so many tokens, the prompt's included; None is what the model's config says.
    """

    modality = "text"

    def __init__(self, *, model: str, prompt: str | None, length: int | None) -> None:
        super().__init__()
        modules = [(one.type.rpartition(".")[2], one.path) for one in read_modules(model)]
        if [kind for kind, _ in modules[:2]] != ["Transformer", "Pooling"]:
            raise InputError(f"{model} begins with {modules[:2]}: expected a Transformer and its Pooling")
        place = modules[0][1]
        found = (read_config(model, SettingsFile, name, place, optional=True) for name in SETTINGS)
        settings = next((one for one in found if one.model_fields_set), SettingsFile())
        self.prompt = _prompt(model, prompt)
        tokenizer = load_tokenizer(model, place)
        if settings.do_lower_case:
            own = tokenizer.backend_tokenizer.normalizer
            tokenizer.backend_tokenizer.normalizer = Normalizers([Lowercase(), *([own] if own is not None else [])])
        tokenizer.model_max_length = settings.max_seq_length or tokenizer.model_max_length
        self.tower, missing = load_tower(model, subfolder=place)
        self.tokens = Tokens(model, tokenizer, self.tower, length)
        self.pooling = TokenPooling(model, read_config(model, PoolingFile, "config.json", modules[1][1]))
        self.head = nn.Sequential(*(make_module(model, kind, path) for kind, path in modules[2:]))
        self.skipped = 0 if self.pooling.include_prompt or not self.prompt else _count(tokenizer, self.prompt)
        inputs = self.collate([self.prepare("a")])
        self.width = settle(model, self, {f"tower.{name}" for name in missing}, lambda: self(inputs)).shape[-1]

    def prepare(self, item: Any, rng: np.random.Generator | None = None) -> Inputs:
        """Turn a text into the tokenizer's ids, mask and so on, each [T], and whether it was cut."""
        prepared = self.tokens(self.prompt + item)
        if len(prepared["input_ids"]) <= self.skipped:
            raise ValueError(f"the tokenizer finds no token behind the prompt in {item!r:.80}")
        return prepared

    def collate(self, prepared: Sequence[Inputs]) -> Inputs:
        return self.tokens.collate(prepared)

    def tally(self, inputs: Inputs) -> Mapping[str, int]:
        return {"truncated": int(inputs["truncated"].sum())}

    def forward(self, inputs: Inputs) -> Tensor:
        hidden, _ = self.token_states(inputs)
        features: Tensor = self.head(self.pooling(hidden, inputs["attention_mask"], self.skipped))
        return features

    @property
    def token_width(self) -> int:
        return int(self.tower.config.hidden_size)

    def token_states(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        given = {name: values for name, values in inputs.items() if name != "truncated"}
        return self.tower(**given).last_hidden_state, inputs["attention_mask"].bool()

    def describe(self) -> dict[str, Any]:
        return describe(
            transformers, tokenizers, **settings_of(self.tower), **self.tokens.settings(), prompt=self.prompt,
            skipped=self.skipped, pooling=self.pooling.modes, head=repr(self.head),
        )  # fmt: skip

    @cached_property
    def _depth(self) -> Depth:
        return find_depth(self, self.forward, self.collate([self.prepare("a")]))

    def by_depth(self) -> Sequence[nn.Module]:
        return self._depth.layers(self)


def _prompt(model: str, name: str | None) -> str:
    """Return the prompt of this name, or the default one; raise InputError if there is none of this name."""
    config = read_config(model, PromptsFile, "config_sentence_transformers.json", optional=True)
    prompts = {key: text or "" for key, text in (config.prompts or {}).items()}
    name = config.default_prompt_name if name is None else name
    if name is None:
        return ""
    if name not in prompts:
        raise InputError(f"{model} has no prompt {name!r}: {nearest(name, prompts)}")
    return prompts[name]


def _count(tokenizer: Any, prompt: str) -> int:
    """Return how many tokens a prompt puts before those of a text: what ends a text is none of them."""
    ids = tokenizer(prompt)["input_ids"]
    return len(ids) - (ids[-1] in tokenizer.all_special_ids)
