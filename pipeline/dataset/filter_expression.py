"""`quality >= 0.8 and category in ('cat', 'dog')` -> an Arrow expression. Parsed here, never evaluated as code.

    filter     = conjunction {"or" conjunction}
    conjunction = negation {"and" negation}
    negation   = "not" negation | "(" filter ")" | comparison
    comparison = column ("=" | "==" | "!=" | "<>" | "<" | "<=" | ">" | ">=") value
               | column ["not"] "in" "(" value {"," value} ")"
               | column ["not"] "between" value "and" value
               | column ["not"] "like" text              where % stands for any text and _ for one character
               | column "is" ["not"] "null"
    value      = number | 'text', a quote in it doubled | true | false (of crowd, as are 1 and 0)

Words are case-insensitive. A row for which a comparison is unknown (null) is not taken, as in SQL.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import RefusedError
from pipeline.storage.backoff import brief
from schemas.records import MASKS

_TOKEN = re.compile(
    r"\s*(?:(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)|(?P<text>'(?:[^']|'')*')"
    r"|(?P<word>[A-Za-z_]\w*)|(?P<sign><=|>=|<>|!=|==|=|<|>|\(|\)|,))"
)
_COMPARE = {
    "=": lambda column, value: column == value,
    "==": lambda column, value: column == value,
    "!=": lambda column, value: column != value,
    "<>": lambda column, value: column != value,
    "<": lambda column, value: column < value,
    "<=": lambda column, value: column <= value,
    ">": lambda column, value: column > value,
    ">=": lambda column, value: column >= value,
}
MAX_DEPTH = 50
_TRUTH = {"true": True, "false": False, "1": True, "0": False}

COLUMNS: dict[str, pa.DataType] = {field.name: field.type for field in MASKS if not pa.types.is_nested(field.type)}
"""The columns of a result's masks that a filter may name."""

Value = int | float | str
Where: TypeAlias = pc.Expression | str | None
"""Which masks, wherever Python is asked: an Arrow expression, the text of `--where`, or None for all."""


def as_expression(where: Where) -> pc.Expression | None:
    """The filter as Arrow has it. Raises RefusedError for one that masks cannot be chosen by."""
    return parse(where) if isinstance(where, str) else where if where is None else _checked(where, MASKS, str(where))


def _checked(expression: pc.Expression, columns: pa.Schema, said: str) -> pc.Expression:
    """The expression, once Arrow has computed it of no row: what does not fit a column's type is told at once."""
    try:
        columns.empty_table().filter(expression)
    except (pa.ArrowException, TypeError) as error:
        raise RefusedError(f"--where {said!r}: {brief(error)}") from None
    return expression


def parse(text: str, columns: Mapping[str, pa.DataType] = COLUMNS) -> pc.Expression:
    """The filter as an Arrow expression over `columns`. Raises RefusedError that says what is wrong, and where."""
    parser = _Parser(text, columns)
    expression = parser.any_of(0)
    parser.end()
    return _checked(expression, pa.schema(list(columns.items())), text)


class _Parser:
    """Recursive descent over the tokens of one filter."""

    def __init__(self, text: str, columns: Mapping[str, pa.DataType]) -> None:
        self._text = text
        self._columns = columns
        self._tokens = self._split()
        self._next = 0

    def any_of(self, depth: int) -> pc.Expression:
        if depth > MAX_DEPTH:
            raise RefusedError(f"--where {self._text[:80]!r}: more than {MAX_DEPTH} levels of brackets")
        found = self._all_of(depth)
        while self._take("or"):
            found = found | self._all_of(depth)
        return found

    def end(self) -> None:
        if self._next < len(self._tokens):
            raise self._wrong("the end, `and` or `or`")

    def _all_of(self, depth: int) -> pc.Expression:
        found = self._negated(depth)
        while self._take("and"):
            found = found & self._negated(depth)
        return found

    def _negated(self, depth: int) -> pc.Expression:
        if depth > MAX_DEPTH:
            raise RefusedError(f"--where {self._text[:80]!r}: more than {MAX_DEPTH} levels")
        if self._take("not"):
            return ~self._negated(depth + 1)
        if self._take("("):
            found = self.any_of(depth + 1)
            self._need(")")
            return found
        return self._comparison()

    def _comparison(self) -> pc.Expression:
        name = self._word()
        column = pc.field(name)
        if self._take("is"):
            wanted_null = not self._take("not")
            self._need("null")
            return column.is_null() if wanted_null else column.is_valid()
        negated = self._take("not")
        found = self._membership(name, column)
        if found is not None:
            return ~found if negated else found
        kind, sign = self._peek()
        if negated or kind != "sign" or sign not in _COMPARE:
            raise self._wrong("in, between or like" if negated else "a comparison")
        self._next += 1
        return _COMPARE[sign](column, self._value(name))

    def _membership(self, name: str, column: pc.Expression) -> pc.Expression | None:
        if self._take("in"):
            self._need("(")
            values = [self._value(name)]
            while self._take(","):
                values.append(self._value(name))
            self._need(")")
            # without nulls: `x not in (..)` of an unknown x is unknown, so the row is not taken
            return pc.if_else(column.is_valid(), column.isin(values), pa.scalar(None, pa.bool_()))
        if self._take("between"):
            low = self._value(name)
            self._need("and")
            return (column >= low) & (column <= self._value(name))
        if self._take("like"):
            if not pa.types.is_string(self._columns[name]):
                raise RefusedError(f"--where {self._text!r}: `like` is for text, and {name} is none")
            return pc.match_like(column, self._value(name))
        return None

    def _word(self) -> str:
        kind, word = self._peek()
        if kind != "word":
            raise self._wrong("a column")
        if word not in self._columns:
            raise RefusedError(f"--where: there is no column {word!r}; there are {', '.join(self._columns)}")
        self._next += 1
        return word

    def _value(self, column: str) -> Value:
        kind, token = self._peek()
        if pa.types.is_boolean(self._columns[column]):
            if token.lower() not in _TRUTH:
                raise self._wrong("true or false")
            self._next += 1
            return _TRUTH[token.lower()]
        is_text = pa.types.is_string(self._columns[column])
        if kind not in ("number", "text") or (kind == "text") != is_text:
            raise self._wrong("'text' in single quotes" if is_text else "a number")
        if kind == "text":
            self._next += 1
            return token[1:-1].replace("''", "'")
        if abs(float(token)) >= 2**63:
            raise self._wrong("a number below 2^63")
        self._next += 1
        return float(token) if any(mark in token for mark in ".eE") else int(token)

    def _take(self, wanted: str) -> bool:
        kind, token = self._peek()
        found = kind in ("word", "sign") and token.lower() == wanted
        self._next += found
        return found

    def _need(self, wanted: str) -> None:
        if not self._take(wanted):
            raise self._wrong(f"`{wanted}`")

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._next] if self._next < len(self._tokens) else ("end", "")

    def _wrong(self, expected: str) -> RefusedError:
        _, token = self._peek()
        return RefusedError(f"--where {self._text!r}: expected {expected}, found {token or 'the end'}")

    def _split(self) -> list[tuple[str, str]]:
        tokens: list[tuple[str, str]] = []
        place = 0
        text = self._text.rstrip()
        while place < len(text):
            match = _TOKEN.match(text, place)
            if match is None:
                raise RefusedError(f"--where {self._text!r}: cannot read {text[place : place + 20]!r}")
            kind = match.lastgroup or ""
            tokens.append((kind, match[kind]))
            place = match.end()
        return tokens
