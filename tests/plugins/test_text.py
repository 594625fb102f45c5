from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import mmssl_text
from mmssl_text.modality import TEXT
from mmssl_text.transformer import TextTransformer
from multimodal_ssl import Catalog, InputError
from multimodal_ssl.testing import check_encoder, check_modality

from ..toys import refusal
from .tokens import check_padding_mask

TEXTS = ["a red apple", "two green pears on a table", "naïve café — ☃", "apple"] * 5


def encoder(
    *, depth: int = 1, heads: int = 2, vocabulary: int = 300, length: int = 8, drop: float = 0.2
) -> TextTransformer:
    torch.manual_seed(0)
    return TextTransformer(width=16, depth=depth, heads=heads, vocabulary=vocabulary, length=length, drop=drop)


def test_the_modality_conforms_and_reads_files(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\ufeffgrün", encoding="utf-8")
    check_modality(TEXT, ["words", b"bytes", path])
    assert TEXT.load(path) == "grün"
    assert TEXT.load("a.txt") == "a.txt"


@pytest.mark.parametrize("value", ["", "  \n", b"\xff\xfe\xff", 7, Path("nowhere.txt")])
def test_what_is_no_text_is_a_value_or_os_error(value: object) -> None:
    with pytest.raises((ValueError, OSError)):
        TEXT.load(value)


def test_a_long_text_has_a_short_preview() -> None:
    assert len(TEXT.preview("x" * 10_000).text or "") <= 500


def test_the_encoder_conforms() -> None:
    check_encoder(encoder(), TEXTS[:4])


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("heads", [1, 2])
def test_tokens_see_each_other_as_under_a_padding_mask_of_torch(
    generator: torch.Generator, heads: int, train: bool
) -> None:
    one = encoder(heads=heads, depth=2).train(train)
    check_padding_mask(one, one.blocks, 16, generator)


def test_padded_tokens_need_no_sympy_which_takes_seconds_to_import(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sympy", "torch.fx.experimental.symbolic_shapes"):
        monkeypatch.setitem(sys.modules, name, None)  # an import of it now fails
    one = encoder().train()
    one(one.collate([one.prepare(text) for text in TEXTS[:2]]))


def test_the_vocabulary_is_learnt_from_the_texts_and_is_part_of_the_state() -> None:
    first = encoder()
    first.adapt(TEXTS)
    assert len(first.prepare("apple")["tokens"]) == 1, "a frequent word is one token"
    second = encoder()
    second.load_state_dict({name: one.clone() for name, one in first.state_dict().items()})
    for text in ("a red apple", "never seen: Ωmega"):
        assert torch.equal(first.prepare(text)["tokens"], second.prepare(text)["tokens"])


def test_no_character_is_lost_even_if_it_was_never_seen() -> None:
    one = encoder(vocabulary=400)
    one.adapt(TEXTS)
    unknown = one.tokenizer.token_to_id("[UNK]")
    for text in ("☃", "中文", "🙂", "ab"):
        assert unknown not in one.prepare(text)["tokens"].tolist()


def test_a_text_that_names_the_padding_is_not_padding() -> None:
    one = encoder(drop=0).eval()
    one.adapt(TEXTS)
    inputs = one.collate([one.prepare(text) for text in ("[PAD]", "a [PAD] apple", "[UNK]")])
    mask = one.embed(inputs)[1]
    assert mask[:, 0].all()
    assert (mask[:, 1:] <= mask[:, :-1]).all(), "there is no hole"
    assert mask[1].all()
    with torch.no_grad():
        assert torch.isfinite(one(inputs)).all()


def test_truncated_texts_are_counted() -> None:
    one = encoder(length=4)
    one.adapt(TEXTS)
    inputs = one.collate([one.prepare("apple"), one.prepare("zyxw vuts rqpo nmlk")])
    assert one.tally(inputs) == {"truncated": 1}
    assert inputs["tokens"].shape == (2, 4)


def test_tokens_are_dropped_in_training_only_and_never_all() -> None:
    one = encoder(drop=0.9)
    one.adapt(TEXTS)
    whole = one.prepare("two green pears on a table")["tokens"]
    views = [one.prepare("two green pears on a table", np.random.default_rng(i))["tokens"] for i in range(30)]
    assert torch.equal(whole, one.prepare("two green pears on a table")["tokens"])
    assert min(map(len, views)) >= 1
    assert np.mean([len(view) for view in views]) < len(whole)


def test_a_width_that_heads_do_not_divide_is_told() -> None:
    with pytest.raises(InputError, match="width 16 must be a multiple of heads 3"):
        encoder(heads=3)


def test_a_vocabulary_too_small_for_all_bytes_is_told() -> None:
    with pytest.raises(InputError, match="vocabulary 200 must be at least 300"):
        encoder(vocabulary=200)


@pytest.mark.parametrize(
    ("option", "value"), [("width", 0), ("depth", 0), ("heads", 0), ("length", 0), ("drop", -0.1), ("drop", 1.0)]
)
def test_options_that_can_not_be_are_refused_by_name(option: str, value: float) -> None:
    message = refusal(lambda: Catalog.of(text=mmssl_text).create("encoders", "small-text", options={option: value}))
    assert option in message
