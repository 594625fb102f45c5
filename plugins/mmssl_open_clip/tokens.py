"""Token ids of texts, as open_clip's tokenizers give them, and whether a text was cut."""

from __future__ import annotations

from typing import Any

import open_clip
import torch
from open_clip.tokenizer import _clean_lower, whitespace_clean
from torch import Tensor

from mmssl_pretrained.describe import describe_tokenizer, hash_of

KEPT = 2**18  # words whose ids are remembered


class Tokens:
    """Turns a text into token ids [T] and whether it was cut.

    CLIP's own tokenizer is the slowest part of preparing a pair. Here it gives the same ids in half the time: the
    ids of a word are looked up, and what is plain already is not repaired first.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.length = tokenizer, tokenizer.context_length
        self._ids: dict[str, list[int]] = {}
        self._simple = type(tokenizer) is open_clip.SimpleTokenizer and tokenizer.reduction_fn is None
        self._lower = self._simple and tokenizer.clean_fn is _clean_lower

    def __call__(self, text: str) -> tuple[Tensor, bool]:
        """Return them."""
        if not self._simple:
            return self._compare(text)
        tokens = [self.tokenizer.sot_token_id]
        for word in self.tokenizer.pat.findall(self._clean(text)):
            tokens += self._ids[word] if word in self._ids else self._learn(word)
        tokens.append(self.tokenizer.eot_token_id)
        cut = len(tokens) > self.length
        if cut:
            tokens[self.length - 1 :] = tokens[-1:]
        return torch.tensor(tokens + [0] * (self.length - len(tokens))), cut

    def most(self) -> int:
        """Return one more than the largest id that a text can have; no text has the special ones that it puts nowhere.

        Tokenizers of T5, say, name a hundred of these, of which models need not have heard.
        """
        if isinstance(self.tokenizer, open_clip.SimpleTokenizer):
            size: int = self.tokenizer.vocab_size
            return size
        own = self.tokenizer.tokenizer
        special = {place for place, one in own.added_tokens_decoder.items() if one.special}
        return 1 + max({*own.get_vocab().values()} - special | {*self.tokenizer("a")[0].tolist()})

    def settings(self) -> dict[str, Any]:
        """Return what the ids depend on beside the version of open_clip; see ``Encoder.describe``."""
        own = vars(self.tokenizer)
        told = {name: one for name, one in own.items() if isinstance(one, str | int)}
        told |= {"kind": type(self.tokenizer).__name__, "clean": getattr(own.get("clean_fn"), "__name__", "")}
        if "tokenizer" in own:
            return told | {"tokenizer": describe_tokenizer(own["tokenizer"])}
        return told | {"words": hash_of(own["encoder"]), "special": own["all_special_ids"]}

    def _clean(self, text: str) -> str:
        """Return what the tokenizer makes of a text first; there is nothing to repair in printable ASCII."""
        plain = self._lower and text.isascii() and text.isprintable() and "&" not in text
        clean: str = whitespace_clean(text).lower() if plain else self.tokenizer.clean_fn(text)
        return clean

    def _learn(self, word: str) -> list[int]:
        """Return the ids of a word, and remember them."""
        if len(self._ids) >= KEPT:
            self._ids.clear()
        letters = "".join(self.tokenizer.byte_encoder[one] for one in word.encode())
        self._ids[word] = [self.tokenizer.encoder[part] for part in self.tokenizer.bpe(letters).split(" ")]
        return self._ids[word]

    def _compare(self, text: str) -> tuple[Tensor, bool]:
        """Return what any other tokenizer gives.

        Room for one token more changes what was there only if the text was cut: its end moves. CLIPS ends with a class
        token whatever the text.
        """
        end = self.length - 1 if getattr(self.tokenizer, "tokenizer_mode", "") == "clips" else self.length
        tokens = self.tokenizer(text)[0]
        roomy = self.tokenizer(text, context_length=self.length + 1)[0]
        return tokens, not torch.equal(roomy[:end], tokens[:end])
