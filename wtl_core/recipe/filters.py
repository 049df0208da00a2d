"""Conditions on the pool's columns, such as `sharpness > 10 and not format == "gif"`: parsed, never evaluated as code.

Grammar: comparisons `column op value` (op: < <= > >= == !=) joined by `not`, `and`, `or` and parentheses. A value is a
number, a quoted text, or true/false. A column `metadata.KEY` is a key of the samples' metadata, of any of the three
kinds. Parsing needs no polars, so that a recipe is checked before anything is imported.
"""

import difflib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

from wtl_core.errors import InputError

NUMBER_COLUMNS = ("width", "height", "byte_length", "sharpness", "brightness", "contrast", "entropy")
TEXT_COLUMNS = ("format", "source", "uri", "key", "taken_at")
FLAG_COLUMNS = ("is_first_of_several",)
COLUMNS = NUMBER_COLUMNS + TEXT_COLUMNS + FLAG_COLUMNS
_METADATA = "metadata."
_MOST_CHARACTERS, _MOST_DEPTH = 1000, 50
_TOKEN = re.compile(
    r"""\s*(?:(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)|(?P<text>"[^"]*"|'[^']*')|(?P<word>[A-Za-z_]\w*(?:\.\w+)?)"""
    r"""|(?P<op><=|>=|==|!=|<|>)|(?P<bracket>[()]))"""
)


@dataclass(frozen=True)
class Condition:
    """A parsed condition: a comparison (`column op value`), or `not`, `and`, `or` over others."""

    op: str
    column: str = ""
    value: float | str | bool = 0.0
    parts: tuple["Condition", ...] = ()


def parse_filter(text: str) -> Condition:
    """Parse one condition.

    Raises:
        ValueError: it says what was expected where, and names the nearest valid column.
    """
    if len(text) > _MOST_CHARACTERS:
        raise ValueError(f"filter of {len(text)} characters, at most {_MOST_CHARACTERS} are read")
    tokens = _Tokens(text)
    condition = _either(tokens, 0)
    if tokens.peek() != ("end", ""):
        raise ValueError(f"filter {text!r}: expected `and`, `or` or the end, found {tokens.peek()[1]!r}")
    return condition


def as_polars(condition: Condition) -> "pl.Expr":
    """The condition as a polars expression over the columns of `with_metadata`; null counts as not fulfilled."""
    import polars as pl

    if condition.op == "not":
        return ~as_polars(condition.parts[0])
    if condition.op in ("and", "or"):
        left, right = (as_polars(part) for part in condition.parts)
        return left & right if condition.op == "and" else left | right
    column, value = pl.col(condition.column), pl.lit(condition.value)
    if condition.column.startswith(_METADATA):
        if isinstance(condition.value, float):
            column = column.cast(pl.Float64, strict=False).fill_nan(None)
        elif isinstance(condition.value, bool):
            value = pl.lit(json.dumps(condition.value))
    comparisons = {
        "<": column < value,
        "<=": column <= value,
        ">": column > value,
        ">=": column >= value,
        "==": column == value,
        "!=": column != value,
    }
    return comparisons[condition.op].fill_null(False)


def with_metadata(samples: "pl.DataFrame", condition: Condition) -> "pl.DataFrame":
    """The samples with a column of text for each metadata key that the condition names; what is no text as JSON.

    Raises:
        InputError: no sample has such a key; the nearest one is named.
    """
    import polars as pl

    names = sorted(_metadata_columns(condition))
    entries = [json.loads(text) if text else {} for text in samples["metadata"]] if names else []
    keys = {_METADATA + key for entry in entries for key in entry}
    for name in names:
        if entries and name not in keys:
            nearest = difflib.get_close_matches(name, keys, n=1)
            advice = f"did you mean {nearest[0]}" if nearest else f"there are {', '.join(sorted(keys)) or 'none'}"
            raise InputError(f"filter column {name}: expected a key of the pool's metadata, found none; {advice}")
        values = [entry.get(name.removeprefix(_METADATA)) for entry in entries]
        texts = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
        samples = samples.with_columns(pl.Series(name, texts, pl.String))
    return samples


def _metadata_columns(condition: Condition) -> set[str]:
    own = {condition.column} if condition.column.startswith(_METADATA) else set()
    return own.union(*(_metadata_columns(part) for part in condition.parts))


class _Tokens:
    """The tokens of a condition, one ahead."""

    def __init__(self, text: str) -> None:
        self.text, self._found, position = text, list[tuple[str, str]](), 0
        while text[position:].strip():
            match = _TOKEN.match(text, position)
            if match is None or match.lastgroup is None:
                raise ValueError(
                    f"filter {text!r}: cannot read {text[position:].strip()[:20]!r}; example: sharpness > 10"
                )
            self._found.append((match.lastgroup, match[match.lastgroup]))
            position = match.end()
        self._found.append(("end", ""))

    def peek(self) -> tuple[str, str]:
        return self._found[0]

    def take(self) -> tuple[str, str]:
        return self._found.pop(0) if len(self._found) > 1 else self._found[0]


def _either(tokens: _Tokens, depth: int) -> Condition:
    left = _both(tokens, depth)
    while tokens.peek() == ("word", "or"):
        tokens.take()
        left = Condition("or", parts=(left, _both(tokens, depth)))
    return left


def _both(tokens: _Tokens, depth: int) -> Condition:
    left = _single(tokens, depth)
    while tokens.peek() == ("word", "and"):
        tokens.take()
        left = Condition("and", parts=(left, _single(tokens, depth)))
    return left


def _single(tokens: _Tokens, depth: int) -> Condition:
    if depth > _MOST_DEPTH:
        raise ValueError(f"filter {tokens.text[:40]!r}...: nested deeper than {_MOST_DEPTH}")
    kind, word = tokens.take()
    if (kind, word) == ("word", "not"):
        return Condition("not", parts=(_single(tokens, depth + 1),))
    if word == "(":
        inner = _either(tokens, depth + 1)
        if tokens.take()[1] != ")":
            raise ValueError(f"filter {tokens.text!r}: expected a closing bracket")
        return inner
    if kind != "word":
        raise ValueError(f"filter {tokens.text!r}: expected a column, found {word or 'the end'!r}")
    return _comparison(tokens, word)


def _comparison(tokens: _Tokens, column: str) -> Condition:
    is_metadata = column.startswith(_METADATA)
    if column not in COLUMNS and not is_metadata:
        nearest = difflib.get_close_matches(column, COLUMNS, n=1, cutoff=0.5)
        advice = f"did you mean {nearest[0]}" if nearest else f"columns: {', '.join(COLUMNS)}, metadata.KEY"
        raise ValueError(f"filter {tokens.text!r}: unknown column {column}; {advice}")
    kind, op = tokens.take()
    if kind != "op":
        raise ValueError(
            f"filter {tokens.text!r}: expected < <= > >= == or != after {column}, found {op or 'the end'!r}"
        )
    value_kind, word = tokens.take()
    if (column in NUMBER_COLUMNS or is_metadata) and value_kind == "number":
        return Condition(op, column, float(word))
    if (column in TEXT_COLUMNS or is_metadata) and value_kind == "text":
        return Condition(op, column, word[1:-1])
    if (column in FLAG_COLUMNS or is_metadata) and word in ("true", "false") and op in ("==", "!="):
        return Condition(op, column, word == "true")
    wanted = (
        "a number"
        if column in NUMBER_COLUMNS
        else "a quoted text"
        if column in TEXT_COLUMNS
        else "== true or == false"
        if column in FLAG_COLUMNS
        else "a number, a quoted text, == true or == false"
    )
    raise ValueError(f"filter {tokens.text!r}: {column} is compared with {wanted}, found {word or 'the end'!r}")
