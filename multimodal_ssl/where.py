"""The language of filters: ``license = 'MIT' and year >= 2020`` becomes SQL that holds none of the text it came from.

    either     = both ("or" both)*
    both       = negated ("and" negated)*
    negated    = "not" negated | "(" either ")" | comparison
    comparison = name ("=" | "!=" | "<>" | "<" | "<=" | ">" | ">=") value
               | name ["not"] "like" text
               | name ["not"] "in" "(" value ("," value)* ")"
               | name ["not"] "between" value "and" value
               | name "is" ["not"] "null"
    name       = letters, digits and _, or anything in "double quotes" ("" is a quote)
    value      = text | number | "true" | "false"
    text       = anything in 'single quotes' ('' is a quote)

Keywords are of any case. Logic is that of SQL: a comparison with a field that is missing or null, or of a number with a
text in which no number stands (as in JSON, blanks around it), is neither true nor false, so that ``year != 2020`` does
not select what has no year, nor does ``not year = 2020``. True and false are 1 and 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, final

from multimodal_ssl.errors import InputError

LONGEST = 10_000  # characters
MOST_COMPARISONS = 100
DEEPEST = 50  # parentheses and "not" around one comparison
LONGEST_LIST = 1_000  # values
LONGEST_PATTERN, MOST_PERCENTS = 200, 10  # of "like": characters, and % among them
BUILT_IN = {"key": "key", "group": "grp", "modality": "modality"}
EXAMPLE = "license = 'MIT' and year >= 2020"

Value: TypeAlias = str | float | int

_TOKEN = re.compile(
    r"""\s*+(?:
      (?P<name>[^\W\d]\w*+)
    | (?P<quoted>"(?:[^"]|"")*+")
    | (?P<text>'(?:[^']|'')*+')
    | (?P<number>[+-]?+(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?:[eE][+-]?+[0-9]++)?+(?![\w.]))
    | (?P<sign>[<>!]=|<>|[=<>(),])
    | (?P<end>\Z)
    | (?P<odd>[+-]?[\w.]++|.)
    )""",
    re.VERBOSE | re.DOTALL,
)
_KEYWORDS = {"and", "or", "not", "in", "like", "between", "is", "null", "true", "false"}
_SIGNS = {"=", "!=", "<>", "<", "<=", ">", ">="}
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")  # SQLite ends a text at NUL; lone surrogates are no UTF-8
_PLAIN_NAME = re.compile(r"[ !#-\[\]-~]+")  # written in JSON as it is, whatever wrote it


@dataclass(frozen=True, slots=True)
class Compare:
    """One field against one value; sign is one of ``_SIGNS`` or ``like``."""

    name: str
    sign: str
    value: Value


@dataclass(frozen=True, slots=True)
class OneOf:
    """One field against values that are all texts or all numbers."""

    name: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class IsNull:
    """Whether a field is missing or null."""

    name: str


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite of what is true or false."""

    part: Node


@dataclass(frozen=True, slots=True)
class Joined:
    """Two parts or more, all of which or one of which must be true."""

    word: Literal["and", "or"]
    parts: tuple[Node, ...]


Node: TypeAlias = Compare | OneOf | IsNull | Not | Joined
Place: TypeAlias = Callable[[str], tuple[str, list[Value]]]
"""Turns the name of a field into an SQL expression and its parameters."""


@final
@dataclass(frozen=True, slots=True)
class Where:
    """A filter that was understood.

    Attributes:
        tree: what must be true of an item.
        names: the fields it asks for, so that the caller can tell of one that no item has.
    """

    tree: Node
    names: frozenset[str]

    def sql(self, column: str = "metadata", *, built_in: Mapping[str, str] = BUILT_IN) -> tuple[str, list[Value]]:
        """Return a boolean expression of SQLite in parentheses, and its parameters.

        A comparison takes some microseconds a row, and a stranger may send a hundred: a server limits the time of a
        query (``sqlite3.Connection.set_progress_handler``).

        Args:
            column: holds a JSON object, or null; SQLite refuses NaN and Infinity, which ``json.dumps`` may write.
            built_in: name of a field -> column that holds it. All other fields are those of the JSON object.
        """

        def place(name: str) -> tuple[str, list[Value]]:
            if name in built_in:
                return built_in[name], []
            if _PLAIN_NAME.fullmatch(name):
                return f"json_extract({column}, ?)", [f'$."{name}"']
            # A path can't hold quotes, nor does SQLite 3.40 find by it a name that JSON writes with a backslash.
            return f"(select json_each.value from json_each({column}) where json_each.key = ?)", [name]

        text, values, _ = _render(self.tree, place)
        return f"({text})", values


def parse_where(text: str) -> Where:
    """Understand a filter; raise InputError, and nothing else, if it is none."""
    return _Parser(text).parse()


class _Sql(NamedTuple):
    text: str
    values: list[Value]
    stack: int  # symbols that SQLite's parser holds at most around a comparison


def _render(node: Node, place: Place) -> _Sql:
    match node:
        case Compare(name, sign, value):
            return _guard(place(name), f"{sign} ?", (value,))
        case OneOf(name, values):
            return _guard(place(name), f"in ({', '.join('?' * len(values))})", values)
        case IsNull(name):
            field, parameters = place(name)
            return _Sql(f"{field} is null", parameters, 0)
        case Not(part):
            text, parameters, stack = _enclose(_render(part, place), yes=isinstance(part, Joined))
            return _Sql(f"not {text}", parameters, stack + 1)
        case Joined(word, parts):
            done = [
                _enclose(_render(part, place), yes=word == "and" and isinstance(part, Joined) and part.word == "or")
                for part in parts
            ]
            # SQLite 3.40 parses with a stack of 100 symbols, and all parts but the first have two before them. So the
            # most deeply nested part comes first (Sethi and Ullman, 1970); three-valued logic doesn't mind.
            done.sort(key=lambda part: part.stack, reverse=True)
            text = f" {word} ".join(part.text for part in done)
            return _Sql(text, [one for part in done for one in part.values], max(done[0].stack, done[1].stack + 2))


def _enclose(part: _Sql, *, yes: bool) -> _Sql:
    return _Sql(f"({part.text})", part.values, part.stack + 1) if yes else part


def _guard(field: tuple[str, list[Value]], test: str, values: tuple[Value, ...]) -> _Sql:
    """Return the SQL of a test that is null where the field is not of the type of the values.

    SQLite itself holds every text to be above every number. A text in which a number stands, such as a cell of CSV, is
    that number for a test of numbers.
    """
    text, parameters = field
    if isinstance(values[0], str):
        return _Sql(f"case typeof({text}) when 'text' then {text} {test} end", [*parameters, *parameters, *values], 0)
    small = f"lower({text})"  # for True and 1E6
    number = (
        f"case when typeof({text}) != 'text' then {text} when not json_valid({small}) then null "
        f"when json_type({small}) in ('integer', 'real', 'true', 'false') then json_extract({small}, '$') end"
    )
    return _Sql(f"{number} {test}", [*parameters * 5, *values], 0)


class _Token(NamedTuple):
    kind: str  # a group of _TOKEN, or "keyword"
    text: str
    at: int  # from 0
    word: str  # the text, in lower case if it is a keyword


@final
class _Parser:
    """Descends through the grammar, one method a rule; each takes how deep it stands."""

    def __init__(self, text: str) -> None:
        if len(text) > LONGEST:
            raise InputError(f"the filter has {len(text):,} characters, expected at most {LONGEST:,}; e.g. {EXAMPLE}")
        self._tokens = _split(text)
        self._next = 0
        self._comparisons = 0
        self._names: set[str] = set()

    def parse(self) -> Where:
        tree = self._either(0)
        if self._here.kind != "end":
            raise _wrong(self._here, "`and`, `or` or the end")
        return Where(tree, frozenset(self._names))

    @property
    def _here(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, *words: str) -> str:
        """Step over one of these keywords or signs and return it, or return "" and stay."""
        token = self._here
        if token.kind not in ("keyword", "sign") or token.word not in words:
            return ""
        self._next += 1
        return token.word

    def _demand(self, word: str, expected: str) -> None:
        if not self._take(word):
            raise _wrong(self._here, expected)

    def _either(self, depth: int) -> Node:
        parts = [self._both(depth)]
        while self._take("or"):
            parts.append(self._both(depth))
        return parts[0] if len(parts) == 1 else Joined("or", tuple(parts))

    def _both(self, depth: int) -> Node:
        parts = [self._negated(depth)]
        while self._take("and"):
            parts.append(self._negated(depth))
        return parts[0] if len(parts) == 1 else Joined("and", tuple(parts))

    def _negated(self, depth: int) -> Node:
        token = self._here
        word = self._take("not", "(")
        if not word:
            return self._comparison()
        if depth == DEEPEST:
            raise _wrong(token, f"at most {DEEPEST} parentheses and nots inside each other")
        if word == "not":
            return Not(self._negated(depth + 1))
        inner = self._either(depth + 1)
        self._demand(")", "`and`, `or` or `)`")
        return inner

    def _comparison(self) -> Node:
        token = self._here
        if token.kind not in ("name", "quoted"):
            raise _wrong(token, 'the name of a field, such as license or "file name"')
        self._comparisons += 1
        if self._comparisons > MOST_COMPARISONS:
            raise _wrong(token, f"at most {MOST_COMPARISONS} comparisons")
        self._next += 1
        name = token.text if token.kind == "name" else token.text[1:-1].replace('""', '"')
        self._names.add(name)
        if sign := self._take(*_SIGNS):
            return Compare(name, sign, self._value())
        if self._take("is"):
            negated = self._take("not")
            expected = "`null`" if negated else "`null` or `not null`"
            self._demand("null", f"{expected}; values are compared with = and !=")
            return Not(IsNull(name)) if negated else IsNull(name)
        negated = self._take("not")
        if self._take("like"):
            node: Node = Compare(name, "like", self._pattern())
        elif self._take("in"):
            node = self._one_of(name)
        elif self._take("between"):
            least = self._value()
            self._demand("and", "`and` and the upper value")
            node = Joined("and", (Compare(name, ">=", least), Compare(name, "<=", self._value())))
        elif negated:
            raise _wrong(self._here, "`in`, `like` or `between`")
        else:
            raise _wrong(self._here, "a comparison: = != < <= > >= `like` `in` `between` `is`")
        return Not(node) if negated else node

    def _one_of(self, name: str) -> Node:
        self._demand("(", "a list such as ('MIT', 'CC0')")
        values = [self._value()]
        while self._take(","):
            if len(values) == LONGEST_LIST:
                raise _wrong(self._here, f"at most {LONGEST_LIST:,} values in a list")
            values.append(self._value())
        self._demand(")", "`,` or `)`")
        texts = tuple(value for value in values if isinstance(value, str))
        numbers = tuple(value for value in values if not isinstance(value, str))
        parts = tuple(OneOf(name, some) for some in (texts, numbers) if some)
        return parts[0] if len(parts) == 1 else Joined("or", parts)

    def _value(self) -> Value:
        token = self._here
        if word := self._take("true", "false"):
            return int(word == "true")
        if token.kind == "text":
            self._next += 1
            return token.text[1:-1].replace("''", "'")
        if token.kind == "number":
            self._next += 1
            return _read_number(token)
        if token.word == "null":
            raise _wrong(token, "a value; what is missing is found by `is null`")
        if token.kind in ("name", "quoted"):
            raise _wrong(token, "a number, true, false or a text in 'single quotes'")
        raise _wrong(token, "a value such as 'MIT', 2020 or true")

    def _pattern(self) -> str:
        token = self._here
        if token.kind != "text":
            raise _wrong(token, "a pattern such as 'CC-%' (% is any text, _ any character)")
        pattern = str(self._value())
        if len(pattern) > LONGEST_PATTERN or pattern.count("%") > MOST_PERCENTS:
            raise _wrong(token, f"a pattern of at most {LONGEST_PATTERN} characters and {MOST_PERCENTS} %")
        return pattern


def _split(text: str) -> list[_Token]:
    """Return the tokens of a filter, the last of which is the end."""
    if found := _UNSTORABLE.search(text):
        raise _wrong(_Token("odd", found[0], found.start(), ""), "text without NUL and lone surrogates")
    tokens = []
    for found in _TOKEN.finditer(text):
        kind = str(found.lastgroup)
        raw, word = found[kind], found[kind].lower()
        token = _Token("keyword" if kind == "name" and word in _KEYWORDS else kind, raw, found.start(kind), word)
        if kind == "odd":
            if raw in ("'", '"'):
                raise _wrong(token, f"a closing {raw} (inside of quotes, {raw}{raw} is a quote)")
            raise _wrong(token, "a word, number or sign of the language; names may be \"quoted\", texts are 'quoted'")
        tokens.append(token)
        if kind == "end":
            break
    return tokens


def _read_number(token: _Token) -> float | int:
    number = float(token.text)
    if math.isinf(number):
        raise _wrong(token, "a number below 1.8e308")
    # Whole numbers stay exact as far as SQLite's do; Python reads no int of more than 4,300 digits.
    sign, digits = token.text.startswith("-"), token.text.lstrip("+-").lstrip("0") or "0"
    if len(digits) < 20 and digits.isdigit() and int(digits) < 2**63:
        return -int(digits) if sign else int(digits)
    return number


def _wrong(token: _Token, expected: str) -> InputError:
    got = "the end" if token.kind == "end" else repr(token.text if len(token.text) <= 40 else token.text[:37] + "...")
    return InputError(f"filter, character {token.at + 1:,}: got {got}, expected {expected}; e.g. {EXAMPLE}")
