from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal_ssl.errors import InputError
from multimodal_ssl.where import parse_where

from .filters import BUILT_IN, COMPARE, Row, Writer, ask, evaluate, open_items, select

DOCS = Path(__file__).parents[1] / "docs"
NAMES = ["year", "license", "größe", "_x1", "file name", 'a"b', "it's", "in", "NULL", "a.b", "$", "$.year", "[0]", ""]
NAMES += ["back\\slash", "\n", "?1", ":a", "a') or 1=1 --", "\U0001f600", "Year", "value", "json", "metadata"]

TEXTS = (
    st.sampled_from(["", "MIT", "mit", "it's", 'a"b', "é", "É", "%", "_", "m_t", "--", "\U0001f600", "ß"])
    | st.sampled_from(["2020", "-2", " 0.50\n", "007", "1E2", "True", "nan", "[1]", '"1"', "0x1", "+1", ".5", "9" * 30])
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6)
)
NUMBERS = st.sampled_from([-2, 0, 1, 2020, 2020.0, 0.5, 2**53, 2**53 + 1, 2.0**53, 2**63 - 1, -(2**63), 1e300]) | (
    # To three digits: SQLite without long doubles reads more of them with an error in the last bit.
    st.integers(-5, 5) | st.floats(-1e6, 1e6).map(lambda number: round(number, 3))
)
VALUES = TEXTS | NUMBERS | st.booleans()
PATTERNS = TEXTS | st.text("mMiIéÉ_%", max_size=8).filter(lambda pattern: pattern.count("%") <= 10)
FIELDS = st.sampled_from(["year", "license", "year", "license", "key", "group", *NAMES, *BUILT_IN])
COMPARISONS = st.one_of(
    st.tuples(st.just("compare"), FIELDS, st.sampled_from(sorted(COMPARE)), VALUES),
    st.tuples(st.just("like"), FIELDS, PATTERNS, st.booleans()),
    st.tuples(st.just("in"), FIELDS, st.lists(VALUES, min_size=1, max_size=4), st.booleans()),
    st.tuples(st.just("between"), FIELDS, VALUES, VALUES, st.booleans()),
    st.tuples(st.just("null"), FIELDS, st.booleans()),
)
TREES = st.recursive(
    COMPARISONS,
    lambda trees: (
        st.tuples(st.just("not"), trees)
        | st.tuples(st.sampled_from(["and", "or"]), trees, trees)
        | st.tuples(st.sampled_from(["and", "or"]), trees, trees, trees)
    ),
    max_leaves=10,
)
ROWS = st.builds(
    dict,
    st.dictionaries(st.sampled_from(["year", "license", *NAMES]), st.none() | VALUES, max_size=8),
    key=TEXTS,
    group=TEXTS,
    modality=st.sampled_from(["image", "MIT"]),
)
WRITERS = st.randoms(use_true_random=False).map(Writer)


@settings(deadline=None, max_examples=200)
@given(TREES, st.lists(ROWS, min_size=1, max_size=6), WRITERS, st.booleans())
def test_sqlite_says_of_every_row_what_a_second_implementation_says(
    tree: tuple[Any, ...], rows: list[Row], writer: Writer, ascii_only: bool
) -> None:
    text = writer.write(tree)
    answers = ask(open_items(rows, ascii_only=ascii_only), parse_where(text))
    assert answers == [evaluate(tree, row) for row in rows], text


@pytest.mark.parametrize("name", [*NAMES, *BUILT_IN])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_field_of_any_name_is_found(name: str, ascii_only: bool) -> None:
    items = open_items([{name: "here"}, {name + "x": "here"}, {}], ascii_only=ascii_only)
    quoted = '"' + name.replace('"', '""') + '"'
    assert ask(items, parse_where(f"{quoted} = 'here'")) == [True, None, None]
    assert parse_where(f"{quoted} = 'here'").names == {name}


def test_what_is_missing_or_null_is_selected_by_is_null_alone() -> None:
    rows: list[Row] = [{}, {"year": None}, {"year": 1}]
    assert select(rows, "year is null") == [0, 1]
    assert select(rows, "year is not null") == [2]
    assert select(rows, "year != 2 or not year = 2 or year not in (2) or year not between 2 and 3") == [2]


def test_a_text_is_compared_with_a_number_only_where_a_number_stands_in_it() -> None:
    rows: list[Row] = [{"year": "2020"}, {"year": 2020}, {"year": "MMXX"}, {"year": "02020"}]
    for sign in COMPARE:
        assert not {2, 3} & {*select(rows, f"year {sign} 2020 or not year {sign} 2020")}
        assert 1 not in select(rows, f"year {sign} '2020' or not year {sign} '2020'")
    assert select(rows, "year >= 2020") == select(rows, "year between 2019 and 2021") == [0, 1]
    assert select(rows, "year > 300 and year < 3e3") == [0, 1]
    assert select(rows, "year in (2020, 2021)") == [0, 1]
    assert select(rows, "year in ('2020', 'x')") == [0]
    assert select(rows, "year like '2%'") == [0]
    assert select([{"checked": "True"}, {"checked": "false"}, {"checked": True}], "checked = true") == [0, 2]


def test_both_ends_of_between_count() -> None:
    rows: list[Row] = [{"year": year} for year in (1989, 1990, 1995.5, 1999, 1999.5, "1995?", None)]
    assert select(rows, "year between 1990 and 1999") == [1, 2, 3]
    assert select(rows, "year not between 1990 and 1999") == [0, 4]


def test_whole_numbers_are_exact_to_63_bits() -> None:
    rows: list[Row] = [{"n": 2**53}, {"n": 2**53 + 1}, {"n": -(2**53) - 1}, {"n": 2**63 - 1}]
    assert select(rows, f"n = {2**53 + 1}") == [1]
    assert select(rows, f"n = {-(2**53) - 1}") == [2]
    assert select(rows, f"n = +000{2**63 - 1}") == [3]
    assert select(rows, f"n < {2**63} and n > {-(2**63)}") == [0, 1, 2, 3]


def test_a_filter_can_be_joined_with_what_the_caller_asks() -> None:
    sql, values = parse_where("key = 'a' or key = 'b'").sql()
    items = open_items([{"key": "a"}, {"key": "b"}])
    assert items.execute(f"select key from items where not {sql} or 0 and {sql}", values * 2).fetchall() == []


def test_the_caller_says_which_fields_are_columns() -> None:
    where = parse_where("size > 3 and key = 'a'")
    sql, values = where.sql("items.extra", built_in={"size": "items.bytes"})
    assert "items.bytes" in sql
    assert "json_extract(items.extra, ?)" in sql
    assert sorted(values, key=str) == ['$."key"', '$."key"', 3, "a"]


ATTACKS = ["' or 1=1 --", "a') or 1=1 --", '"; drop table items; --', "/* */", "?", ":a", "\\'", "'' union select 1"]


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_quoted_attack_selects_what_it_literally_says(attack: str) -> None:
    rows: list[Row] = [{"license": attack}, {"license": "MIT"}, {attack: "MIT"}, {"key": attack}]
    writer = Writer(random.Random(0))
    text, name = writer.value(attack), '"' + attack.replace('"', '""') + '"'
    assert select(rows, f"license = {text}") == [0]
    assert select(rows, f"license like {text}") == [0]
    assert select(rows, f"license in ({text}, 'x')") == [0]
    assert select(rows, f"key = {text}") == [3]
    assert select(rows, f"{name} = 'MIT'") == [2]


@pytest.mark.parametrize(
    "attack",
    [
        "license = 'x' or 1=1 --",
        "license = 'x'; drop table items",
        "license = 'x' -- rest",
        "license = 'x' /* rest */",
        "license = (select 1)",
        "license = 'x') or (1=1",
        "license = ? or license = :a or license = $a",
        "license = 'x' union select 1",
        "license = 'x' or key",
        "license = license",
        "json_extract(metadata, '$') = 1",
        "license = x'41'",
        "license like '%' escape 'x'",
        "license glob '*'",
        "license = 'x' collate nocase",
        "license is 'x'",
        "license in (select key from items)",
        "'a' = 'a'",
        "1",
        "true",
        "null",
    ],
)
def test_sql_beyond_the_grammar_is_refused(attack: str) -> None:
    with pytest.raises(InputError):
        parse_where(attack)


@pytest.mark.parametrize(
    ("text", "at", "got", "expected"),
    [
        ("", 1, "the end", "the name of a field"),
        ("year", 5, "the end", "a comparison: = !="),
        ("year >", 7, "the end", "a value such as"),
        ("year == 3", 7, "'='", "a value such as"),
        ("year = 3 license = 4", 10, "'license'", "`and`, `or` or the end"),
        ("(year = 3", 10, "the end", "`and`, `or` or `)`"),
        ("year = 3)", 9, "')'", "`and`, `or` or the end"),
        ("license = MIT", 11, "'MIT'", "'single quotes'"),
        ('license = "MIT"', 11, "'\"MIT\"'", "'single quotes'"),
        ("license = 'MIT", 11, '"\'"', "a closing '"),
        ("license = 'it''s", 11, '"\'"', "a closing '"),
        ('"file name = 3', 1, "'\"'", 'a closing "'),
        ("license = null", 11, "'null'", "is null"),
        ("license is 3", 12, "'3'", "`null` or `not null`"),
        ("license not 3", 13, "'3'", "`in`, `like` or `between`"),
        ("license in 3", 12, "'3'", "a list such as"),
        ("license in ()", 13, "')'", "a value such as"),
        ("license in (3 4)", 15, "'4'", "`,` or `)`"),
        ("year between 3 or 4", 16, "'or'", "`and` and the upper value"),
        ("license like 3", 14, "'3'", "a pattern such as"),
        ("file-name = 3", 5, "'-name'", "quoted"),
        ("year = 3abc", 8, "'3abc'", "a word, number or sign"),
        ("year = 1.2.3", 8, "'1.2.3'", "a word, number or sign"),
        ("year = nan", 8, "'nan'", "a number"),
        ("year = inf", 8, "'inf'", "a number"),
        ("year = -inf", 8, "'-inf'", "a word, number or sign"),
        ("year = 1e999", 8, "'1e999'", "below 1.8e308"),
        ("year = ٣", 8, "'٣'", "a word, number or sign"),
        ("license = ‘MIT’", 11, "'‘'", "a word, number or sign"),
        ("license = 'a\0b'", 13, "'\\x00'", "NUL"),
        ("license = '\udc80'", 12, "'\\udc80'", "surrogates"),
        ("a = 1 and\n\nor b = 2", 12, "'or'", "the name of a field"),
    ],
)
def test_an_error_says_where_what_was_expected_and_an_example(text: str, at: int, got: str, expected: str) -> None:
    with pytest.raises(InputError) as error:
        parse_where(text)
    message = str(error.value)
    assert message.startswith(f"filter, character {at}: got {got}, expected ")
    assert expected in message
    assert message.endswith("; e.g. license = 'MIT' and year >= 2020")


@pytest.mark.parametrize(
    "text",
    [
        "(" * 50 + "a = 1" + ")" * 50,
        "not " * 50 + "a = 1",
        "not (" * 25 + "a = 1" + ")" * 25,
        "a = 1 or a = 2 and (" * 49 + "a = 1" + ")" * 49,
        "a = 2 or not (" * 25 + "a = 1 and b = 1" + ")" * 25,
        # Chains of nots that are as deep as the grammar lets them be on each level of the parentheses.
        "".join(f"{'not ' * (50 - i)}a = 1 or {'not ' * (50 - i)}a = 1 and (" for i in range(25)) + "a = 1" + ")" * 25,
        "".join(f"{'not ' * 25}a = 1 or {'not ' * 25}a = 1 and (" for _ in range(25)) + "a = 1" + ")" * 25,
        "(" * 24 + "a = 1 or a = 1" + ") and (a = 1 or a = 2)" * 24,
        " or ".join(["a between 1 and 2"] * 100),
        " and ".join([f"a not in ({', '.join(map(str, range(9)))}, 'x')"] * 100),
    ],
)
def test_sqlite_takes_the_deepest_and_longest_filters(text: str) -> None:
    sql, values = parse_where(text).sql('items."metadata"')
    items = open_items([{"a": 1}])
    inside = f"select key from (select * from items where (modality = 'x' or ((1 = 1 and {sql}) or 1 = 1)))"
    assert (
        len(items.execute(f"select * from items where key is null and key in ({inside}) or 1", values).fetchall()) == 1
    )


@settings(deadline=None, max_examples=50)
@given(st.randoms(use_true_random=False))
def test_sqlite_takes_any_filter_within_the_limits(rng: random.Random) -> None:
    left = 100

    def grow(deep: int) -> str:
        nonlocal left
        if left > 1 and deep < 50 and (chance := rng.random()) < 0.9:
            if chance < 0.2:
                return "not " + grow(deep + 1)
            left -= 1
            word = rng.choice(["and", "or"])
            sides = [grow(deep + 1), grow(deep + 1)]
            return f"({f' {word} '.join(sides)})"
        return "a = 1"

    text = grow(0)
    if len(text) <= 10_000:
        ask(open_items([{"a": 1}]), parse_where(text))


@pytest.mark.parametrize(
    ("just", "beyond", "expected"),
    [
        ("a = 1" + " " * 9_995, "a = 1" + " " * 9_996, "10,000"),
        (" or ".join(["a = 1"] * 100), " or ".join(["a = 1"] * 101), "100 comparisons"),
        (f"{'(' * 50}a = 1{')' * 50}", f"{'(' * 51}a = 1{')' * 51}", "50 parentheses"),
        ("not " * 50 + "a = 1", "not " * 51 + "a = 1", "50 parentheses"),
        (f"a in ({','.join('1' * 1000)})", f"a in ({','.join('1' * 1001)})", "1,000 values"),
        (f"a like '{'x' * 200}'", f"a like '{'x' * 201}'", "200 characters"),
        (f"a like '{'%x' * 10}'", f"a like '{'%x' * 11}'", "10 %"),
    ],
)
def test_each_limit_is_told(just: str, beyond: str, expected: str) -> None:
    ask(open_items([{"a": 1}]), parse_where(just))
    with pytest.raises(InputError, match=f"expected .*at most .*{expected}"):
        parse_where(beyond)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 10_000,
        "not " * 2_500,
        "(" * 5_000 + ")" * 5_000,
        "a = " + "9" * 9_990,
        "'" * 9_999,
        '"' * 9_999,
        "a = '" + "''" * 4_000,
        "a = " + "1" * 5_000 + "x",
        "a = " + "0" * 5_000 + "7",
        "a = 0." + "3" * 5_000,
        "a = 1e" + "9" * 5_000,
        " " * 10_000,
    ],
)
def test_long_nonsense_is_an_answer_or_an_input_error(text: str) -> None:
    check(text)


def check(text: str) -> None:
    """Assert that a text is refused in one line, or that SQLite takes it."""
    try:
        where = parse_where(text)
    except InputError as error:
        message = str(error)
    else:
        ask(open_items([{"a": 1, "year": "x"}]), where)
        return
    assert len(message.splitlines()) == 1
    assert len(message) < 400


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=60) | st.text("a1.'\"()=<>! -,%_\n\\", max_size=30))
def test_any_text_is_refused_in_one_line_or_taken_by_sqlite(text: str) -> None:
    check(text)


PIECES = "a year 'x' 'it''s' \"b c\" 1 -2.5 1e5 ( ) , = != < >= not and or in like between is null true ' \" -- ; ? \0"


@settings(deadline=None, max_examples=200)
@given(st.lists(st.sampled_from([*PIECES.split(" "), "\ud800", "\U0001f600"]), max_size=14), st.sampled_from(["", " "]))
def test_any_row_of_words_is_refused_in_one_line_or_taken_by_sqlite(words: list[str], between: str) -> None:
    check(between.join(words))


@settings(deadline=None, max_examples=200)
@given(TREES, WRITERS, st.data())
def test_a_damaged_filter_is_refused_in_one_line_or_taken_by_sqlite(
    tree: tuple[Any, ...], writer: Writer, data: st.DataObject
) -> None:
    text = writer.write(tree)
    for _ in range(data.draw(st.integers(1, 3))):
        start, stop = sorted(data.draw(st.tuples(st.integers(0, len(text)), st.integers(0, len(text)))))
        put = data.draw(st.sampled_from(["", text[start:stop] * 2, *PIECES.split(" ")]) | st.text(max_size=3))
        text = text[:start] + put + text[min(stop, start + data.draw(st.integers(0, 8))) :]
    check(text)


def test_the_filters_of_the_docs_are_understood() -> None:
    text = (DOCS / "filters.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
    for line in block.splitlines():
        ask(open_items([{}]), parse_where(line))
    for inline in ("license != 'MIT' or license is null", "zip = '01067'", "not license = 'MIT'"):
        assert f"`{inline}`" in text
        parse_where(inline)
