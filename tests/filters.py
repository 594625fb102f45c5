"""A second implementation of filters: trees of tuples, evaluated over dictionaries with SQL's three-valued logic."""

from __future__ import annotations

import json
import operator
import random
import re
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from multimodal_ssl.where import Where, parse_where

SQL_WORDS = (
    r"[(),?]|and|or|not|case|when|then|else|end|typeof|in|=|!=|<>|<|<=|>|>=|like|is|null|lower|'\$'|'text'|'integer'"
    r"|'real'|'true'|'false'|json_valid|json_type|json_extract|json_each|json_each\.key|json_each\.value|select|from|where|metadata|key|grp|modality"
)
BUILT_IN = ("key", "group", "modality")
COMPARE = {
    "=": operator.eq, "!=": operator.ne, "<>": operator.ne,
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip

Row = Mapping[str, Any]


def evaluate(tree: tuple[Any, ...], row: Row) -> bool | None:
    match tree:
        case ("and", *parts):
            found = [evaluate(part, row) for part in parts]
            return False if False in found else None if None in found else True
        case ("or", *parts):
            found = [evaluate(part, row) for part in parts]
            return True if True in found else None if None in found else False
        case ("not", part):
            return opposite(evaluate(part, row))
        case ("null", name, negated):
            return (row.get(name) is None) is not negated
        case ("in", name, values, negated):
            answer = evaluate(("or", *(("compare", name, "=", value) for value in values)), row)
            return opposite(answer) if negated else answer
        case ("between", name, least, most, negated):
            answer = evaluate(("and", ("compare", name, ">=", least), ("compare", name, "<=", most)), row)
            return opposite(answer) if negated else answer
        case ("like", name, pattern, negated):
            answer = like(row[name], pattern) if isinstance(row.get(name), str) else None
            return opposite(answer) if negated else answer
        case ("compare", name, sign, value):
            given = row.get(name) if isinstance(value, str) else number(row.get(name))
            if given is None or isinstance(given, str) is not isinstance(value, str):
                return None
            return bool(COMPARE[sign](given, value))
    raise AssertionError(tree)


def number(given: Any) -> Any:
    """Return a number, also one that stands in a text, or None."""
    if not isinstance(given, str):
        return given
    try:
        value = json.loads(given.lower())
    except ValueError:
        return None
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return float(value)
    return value if isinstance(value, int | float) else None


def opposite(answer: bool | None) -> bool | None:
    return None if answer is None else not answer


def like(text: str, pattern: str) -> bool:
    if not pattern:
        return not text
    if pattern[0] == "%":
        return like(text, pattern[1:]) or (bool(text) and like(text[1:], pattern))
    return bool(text) and (pattern[0] == "_" or small(pattern[0]) == small(text[0])) and like(text[1:], pattern[1:])


def small(character: str) -> str:
    return character.lower() if "A" <= character <= "Z" else character


class Writer:
    """Writes a tree as text, with cases, blanks and needless parentheses of its own."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def write(self, tree: tuple[Any, ...], around: int = 0) -> str:
        """Return the text of a tree inside of nothing or "or" (0), "and" (1) or "not" (2)."""
        match tree:
            case ("and" | "or" as word, *parts):
                rank = 1 if word == "and" else 0
                text = self.word(word).join(self.write(part, rank) for part in parts)
            case ("not", part):
                rank, text = 2, self.word("not") + self.write(part, 2)
            case _:
                rank, text = 3, self.leaf(tree)
        return f"({self.blank()}{text}{self.blank()})" if rank < around or self.rng.random() < 0.1 else text

    def leaf(self, tree: tuple[Any, ...]) -> str:
        name = self.name(tree[1])
        match tree:
            case ("null", _, negated):
                return name + self.word("is") + (self.word("not") if negated else "") + self.word("null")
            case ("in", _, values, negated):
                inside = f"{self.blank()},{self.blank()}".join(map(self.value, values))
                return name + self.word("not", negated) + self.word("in") + f"({inside})"
            case ("between", _, least, most, negated):
                ends = self.value(least) + self.word("and") + self.value(most)
                return name + self.word("not", negated) + self.word("between") + ends
            case ("like", _, pattern, negated):
                return name + self.word("not", negated) + self.word("like") + self.value(pattern)
            case ("compare", _, sign, value):
                return name + self.blank() + sign + self.blank() + self.value(value)
        raise AssertionError(tree)

    def word(self, word: str, there: bool = True) -> str:
        return self.rng.choice([f" {word} ", f"\n{word.upper()}\t", f" {word.title()} "]) if there else ""

    def blank(self) -> str:
        return self.rng.choice(["", " ", "\n "])

    def name(self, name: str) -> str:
        simple = re.fullmatch(r"[A-Za-zö-ÿß_][A-Za-zö-ÿß_0-9]*", name) and name.lower() not in ("in", "null")
        return name if simple and self.rng.random() < 0.8 else '"' + name.replace('"', '""') + '"'

    def value(self, value: str | float | bool) -> str:
        if isinstance(value, str):
            return "'" + value.replace("'", "''") + "'"
        if isinstance(value, bool):
            return str(value).upper() if self.rng.random() < 0.5 else str(value).lower()
        return self.rng.choice(["", "+"] if value > 0 else [""]) + repr(value)


def open_items(rows: Sequence[Row], *, ascii_only: bool = False) -> sqlite3.Connection:
    """Return a table of items as an index keeps them."""
    items = sqlite3.connect(":memory:")
    items.execute("create table items (key text, grp text, modality text, metadata text)")
    for row in rows:
        metadata = {name: value for name, value in row.items() if name not in BUILT_IN}
        cells = [row.get(name) for name in BUILT_IN] + [json.dumps(metadata, ensure_ascii=ascii_only)]
        items.execute("insert into items values (?, ?, ?, ?)", cells)
    return items


def ask(items: sqlite3.Connection, where: Where) -> list[bool | None]:
    """Return what a filter says of each item, having checked that its SQL holds nothing but words of our own."""
    sql, values = where.sql()
    assert all(re.fullmatch(SQL_WORDS, word) for word in re.findall(r"[(),?]|[^\s(),?]+", sql))
    assert sql.count("?") == len(values)
    answers = [
        None if answer is None else bool(answer) for (answer,) in items.execute(f"select {sql} from items", values)
    ]
    selected = [row for (row,) in items.execute(f"select rowid - 1 from items where {sql} order by rowid", values)]
    assert selected == [row for row, answer in enumerate(answers) if answer]
    return answers


def select(rows: Sequence[Row], text: str) -> list[int]:
    """Return the numbers of the rows that a filter selects."""
    return [row for row, answer in enumerate(ask(open_items(rows), parse_where(text))) if answer]
