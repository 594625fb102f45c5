"""Rows of tables: the modality, what is learnt of columns, and the transformer over them."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch.nn import functional as F

import mmssl_sources
import mmssl_tabular
from mmssl_tabular.modality import TABULAR, Row
from mmssl_tabular.schema import Schema, encode_numbers
from mmssl_tabular.transformer import TabularTransformer
from multimodal_ssl import Catalog
from multimodal_ssl.digests import content_digest
from multimodal_ssl.testing import check_encoder, check_modality, check_pairing_source

from ..toys import refusal
from .tables import open_table, write
from .tokens import check_padding_mask

CATALOG = Catalog.of(tabular=mmssl_tabular, sources=mmssl_sources)


def rows(count: int = 40, seed: int = 0) -> list[Row]:
    """Return rows of a price, a kind that tells on which side of 10 it is, and a colour that tells nothing."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        price = float(rng.normal(10, 4))
        colour = ["red", "green", math.nan][rng.integers(3)]
        found.append(TABULAR.load({"price": price, "kind": "dear" if price > 10 else "cheap", "colour": colour}))
    return found


def build(**options: Any) -> TabularTransformer:
    torch.manual_seed(0)
    small = {"columns": 6, "vocabulary": 8, "bins": 4, "width": 16, "depth": 2, "heads": 2, **options}
    made = CATALOG.create("encoders", "tabular-transformer", options=small)
    assert isinstance(made, TabularTransformer)
    return made


def learnt(
    items: list[dict[str, Any]], *, bins: int = 4, columns: int = 6, vocabulary: int = 8, **options: Any
) -> Schema:
    schema = Schema(bins=bins)
    taken = {"categories": (), "columns": columns, "vocabulary": vocabulary, **options}
    schema.learn(map(TABULAR.load, items), **taken)
    return schema


def features(encoder: TabularTransformer, *items: dict[str, Any]) -> torch.Tensor:
    with torch.no_grad():
        return encoder.eval()(encoder.collate([encoder.prepare(TABULAR.load(item)) for item in items]))


def test_the_modality_conforms(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": 1, "b": "é", "c": null}', encoding="utf-8")
    check_modality(TABULAR, [path, str(path), path.read_bytes(), {"a": True, "b": np.float32(2)}])
    assert TABULAR.preview(TABULAR.load(path)).text == "a: 1\nb: é\nc:"
    assert TABULAR.measure(TABULAR.load(path)) == {"columns": 3, "missing": 1 / 3}


def test_missing_is_what_holds_nothing() -> None:
    nothing = [None, math.nan, " ", "NA", " none ", "None", "NAN", "-nan", "-", "?"]
    found = TABULAR.load({**dict(enumerate(nothing)), "e": 0, "f": " no "})
    assert [name for name, cell in found.items() if isinstance(cell, float) and math.isnan(cell)] == list("0123456789")
    assert (found["e"], found["f"]) == (0.0, "no")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "nothing is in the 0 columns"),
        ({"a": None}, "nothing is in the 1 columns"),
        ({"a": [1]}, "column 'a' holds a list"),
        ({"a": math.inf}, "column 'a' is infinite"),
        (b"[1, 2]", "not a list"),
        (b"{", "can't be parsed"),
        (b"\xff", "can't be parsed"),
        ("nowhere.json", "nowhere.json"),
        (7, "not a int"),
    ],
)
def test_what_is_no_row_is_told(value: object, message: str) -> None:
    with pytest.raises((ValueError, OSError), match=message):
        TABULAR.load(value)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    values=st.lists(st.integers(-50, 50), min_size=1, max_size=30),
    number=st.floats(-200, 200),
    step=st.floats(0, 100),
)
def test_the_encoding_of_a_number_rises_with_it_and_tells_where_in_its_bin_it_is(
    values: list[int], number: float, step: float
) -> None:
    edges = np.quantile(values, np.linspace(0, 1, 6))
    one, higher = encode_numbers(np.array([number, number + step]), np.stack([edges, edges]))
    assert (higher >= one).all()
    assert (one >= -1).all()
    assert (one <= 2).all()
    for at, (low, high) in enumerate(itertools.pairwise(edges.tolist())):
        if low < high and low <= number <= high:
            assert one[at] == pytest.approx((number - low) / (high - low))
            assert (one[:at] >= 1).all()
            assert (one[at + 1 :] <= 0).all()


def test_columns_are_numbers_if_all_their_texts_are() -> None:
    items = [
        {"a": "1.5", "b": "1", "c": "x", "d": 3, "e": None},
        {"a": "-2e3", "b": "B", "c": "1_0", "d": "4", "e": None},
    ]
    schema = learnt(items)
    assert list(schema.edges) == ["a", "d"]
    assert {name: set(one) for name, one in schema.values.items()} == {"b": {"1", "B"}, "c": {"x", "1_0"}, "e": set()}
    coded = learnt(items, categories=["d"])
    assert set(coded.values["d"]) == {"3", "4"}


@pytest.mark.parametrize(("count", "texts", "told"), [(96, 5, True), (95, 5, False), (50, 1, True), (49, 1, False)])
def test_few_texts_among_many_numbers_are_told(count: int, texts: int, told: bool) -> None:
    items = [{"price": str(value % 7)} for value in range(count)] + [
        {"price": f"n. b. {text}"} for text in range(texts)
    ]
    if not told:
        assert learnt(items).edges == {}
        return
    message = refusal(lambda: learnt(items))
    assert f"column 'price' holds numbers, but {texts} of its {count + texts} values are none ('n. b. 0'" in message
    assert ("'n. b. 2', ..." in message) is (texts > 3)
    assert message.endswith("): make them empty, or name the column in `categories`")
    assert set(learnt(items, categories=["price"], vocabulary=99).values) == {"price"}


def test_the_commonest_categories_of_all_columns_have_room_and_the_others_are_unknown() -> None:
    items = [{"a": "x", "b": "p"}, {"a": "x", "b": "q"}, {"a": "y", "b": "q"}]
    schema = learnt(items, vocabulary=2)
    assert schema.values == {"a": {"x": 13}, "b": {"q": 14}}
    assert schema.encode({"a": "y", "b": math.nan}).codes.tolist() == [2, 3]
    assert schema.encode({"a": "new", "b": "q"}).codes.tolist() == [2, 14]


def test_columns_never_seen_and_texts_among_numbers_are_told() -> None:
    schema = learnt([{"price": 1, "kind": "a"}])
    with pytest.raises(ValueError, match=r"no row had a column 'prise' before training: did you mean 'price'\?"):
        schema.encode({"prise": 1.0})
    with pytest.raises(ValueError, match="column 'price' was of numbers before training, but now holds 'cheap'"):
        schema.encode({"price": "cheap"})
    with pytest.raises(ValueError, match="no row had a column 'price'"):
        Schema(bins=2).encode({"price": 1.0})


def test_what_has_no_room_or_can_not_be_is_told() -> None:
    assert "7 columns, but columns=6" in refusal(lambda: build().adapt([dict.fromkeys("abcdefg", 1.0)]))
    assert "no row has a column 'x'" in refusal(lambda: build(categories=["x"]).adapt(rows()))
    assert "width 16 must be a multiple of heads 3" in refusal(lambda: build(heads=3))


def test_the_encoder_conforms() -> None:
    check_encoder(build(), rows())


def test_the_order_of_cells_and_how_a_number_is_written_do_not_matter() -> None:
    encoder = build()
    encoder.adapt(rows())
    found = features(
        encoder,
        {"price": 9.5, "kind": "cheap", "colour": None},
        {"colour": "NA", "kind": "cheap", "price": "9.50"},
        {"kind": "cheap", "price": 9.5},
    )
    assert torch.equal(found, found[:1].expand(3, -1))


def test_missing_unknown_and_known_cells_differ() -> None:
    encoder = build()
    encoder.adapt(rows())
    cells: list[dict[str, Any]] = [{"kind": "cheap"}, {"kind": "new"}, {"kind": None}, {"kind": "dear"}]
    found = features(encoder, *({"price": 10.0, **one} for one in cells), {"kind": "cheap", "price": 4.0})
    apart = torch.cdist(found, found) + 9 * torch.eye(5)
    assert apart.min() > 1e-3


def test_the_schema_is_saved_with_the_weights() -> None:
    one, other = build(), build()
    one.adapt([*rows(), {"price": 1e-7, "kind": "ü \"'", "colour": "red"}])
    other.load_state_dict(load(save(one.state_dict())))
    for row in rows(5, seed=1):
        for name, tensor in one.prepare(row).items():
            assert torch.equal(tensor, other.prepare(row)[name])
    assert one.schema.dump() == other.schema.dump()
    assert other.schema.values == one.schema.values


def test_columns_left_out_are_missing_or_unknown_and_never_all() -> None:
    encoder = build(drop=0.9)
    encoder.adapt(rows())
    row: Row = {"price": 9.0, "kind": "cheap", "colour": "red"}
    whole = encoder.schema.encode(row).codes
    seen = np.stack([encoder.prepare(row, np.random.default_rng(seed))["codes"].numpy() for seed in range(60)])
    assert [set(column) for column in seen.T] == [{0, 1}, {3, 4, whole[1]}, {5, 6, whole[2]}]
    assert (seen == whole).any(1).all()
    for seed in range(20):
        inputs = encoder.prepare(row, np.random.default_rng(seed))
        assert inputs["numbers"].any().item() == (inputs["codes"][0] == 0).item()


def test_of_a_sparse_row_something_known_is_left() -> None:
    encoder = build(drop=0.9)
    encoder.adapt(rows())
    sparse: list[Row] = [
        {"price": 9.0},
        {"kind": "cheap"},
        {"price": 9.0, "kind": "new"},
        {"kind": "dear", "colour": "new"},
    ]
    for row in sparse:
        whole = encoder.schema.encode(row).codes
        known = (whole == 0) | (whole > 2 * encoder.columns)
        for seed in range(20):
            codes = encoder.prepare(row, np.random.default_rng(seed))["codes"].numpy()
            assert (codes == whole)[known].any()
    assert len(encoder.prepare({"kind": "new"}, np.random.default_rng(0))["codes"]) == 3


def test_hidden_columns_are_not_seen(generator: torch.Generator) -> None:
    encoder = build().train()
    check_padding_mask(encoder, encoder.blocks, 16, generator)


def test_a_few_steps_tell_a_price_from_the_next_by_its_kind() -> None:
    encoder = build(depth=1, drop=0.0).train()
    head = torch.nn.Linear(encoder.width, 2)
    items = [{name: row[name] for name in ("price", "colour")} for row in rows(300)]
    encoder.adapt(items)
    inputs = encoder.collate([encoder.prepare(item) for item in items])
    label = torch.tensor([abs(float(item["price"]) - 10) < 3 for item in items]).long()  # which no line tells apart
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        logits = head(encoder({name: one[:200] for name, one in inputs.items()}))
        torch.autograd.backward(F.cross_entropy(logits, label[:200]))
        optimizer.step()
    found = head(encoder({name: one[200:] for name, one in inputs.items()})).argmax(1)
    assert (found == label[200:]).float().mean() > 0.9


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_columns_of_a_table_become_a_row(tmp_path: Path, suffix: str) -> None:
    given_rows = [
        {"price": 9.5, "kind": "a", "caption": "one"},
        {"price": None, "kind": "b", "caption": "two"},
        {"price": 3.0, "kind": None, "caption": "three"},
        {"price": None, "kind": None, "caption": "four"},
    ]
    columns = {"facts": {"columns": ["price", "kind"], "modality": "tabular"}, "text": "caption"}
    source = open_table(write(tmp_path / f"t.{suffix}", given_rows), columns)
    check_pairing_source(source)
    found = [TABULAR.open(sample.items["facts"]) for sample in source if "facts" in sample.items]
    schema = learnt([dict(one) for one in found])
    assert (list(schema.edges), {*schema.values["kind"]}) == (["price"], {"a", "b"})
    assert [schema.encode(one).codes.tolist() for one in found] == [[0, 13], [1, 14], [0, 3]]
    assert content_digest(source[1].items["facts"]) != content_digest(source[2].items["facts"])


def test_what_is_no_cell_of_a_row_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", [{"a": 1, "b": [1, 2], "c": "x"}])
    both = {"facts": {"columns": ["a", "b"], "modality": "tabular"}, "text": "c"}
    assert "'b' can't be 'facts': it holds list" in refusal(lambda: open_table(path, both))
    both["facts"] = {"columns": ["a"], "modality": "tabular", "path": True}
    assert "cells of one item" in refusal(lambda: open_table(path, both))


def test_a_folder_of_json_objects_feeds_rows(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"x": name, "y": 1}))
        (tmp_path / f"{name}.txt").write_text(name)
    options = {"path": tmp_path, "items": {"facts": ".json", "text": ".txt"}, "modalities": {"facts": "tabular"}}
    source = CATALOG.create("pairing_sources", "folder", options=options)
    assert [TABULAR.open(sample.items["facts"]) for sample in source] == [{"x": "a", "y": 1.0}, {"x": "b", "y": 1.0}]
