"""Conditions on the pool's columns, such as `sharpness > 10 and not format = 'gif'`: checked here, evaluated by polars.

Comparisons are joined by `and`, `or`, `not` and brackets. A comparison is a column beside values: `=` or `==`, `!=`,
`<`, `<=`, `>`, `>=`, `in (a, b)`, `between a and b`, `like 'a%'`, `is null`, the last four also with `not`. A value
is a number, a text in quotes of either kind, true or false. `metadata.KEY` is a key of the samples' metadata; a key
that holds more than letters, digits, `_` and `-` is written in quotes, `metadata."KEY"`.

The SQL that polars gets is put together from what these patterns match and nothing else: no function, sub-query or
unknown column can be in it. A comparison with a missing value does not hold, so `not` of it does.
"""

import difflib
import json
import math
import re
from collections.abc import Collection
from dataclasses import dataclass

import polars as pl

from wtl_core.errors import InputError

NUMBER_COLUMNS = ("width", "height", "byte_length", "sharpness", "brightness", "contrast", "entropy")
TEXT_COLUMNS = ("format", "source", "uri", "key", "taken_at")
FLAG_COLUMNS = ("is_first_of_several",)
COLUMNS = NUMBER_COLUMNS + TEXT_COLUMNS + FLAG_COLUMNS
_METADATA = "metadata."
_MOST_CHARACTERS = 1000
_WANTED = {"number": "a number", "text": "a quoted text", "flag": "= true or = false"}

_TEXT = r"""'(?:[^']|'')*'|"[^"]*\""""
_VALUE = rf"(?:[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.])|{_TEXT}|(?:true|false)\b)"
_COMPARISON = re.compile(
    rf"""(?<![\w.\-"'])(?P<column>metadata\.(?:[\w-]+|{_TEXT})|[a-z_]\w*)(?:
    \s*(?P<sign><=|>=|==|!=|<>|=|<|>)\s*(?P<value>{_VALUE})
    |\s+(?P<in>(?:not\s+)?in)\s*\(\s*(?P<members>{_VALUE}(?:\s*,\s*{_VALUE})*)\s*\)
    |\s+(?P<between>(?:not\s+)?between)\s+(?P<least>{_VALUE})\s+and\s+(?P<most>{_VALUE})
    |\s+(?P<like>(?:not\s+)?like)\s+(?P<pattern>{_TEXT})
    |\s+(?P<null>is\s+(?:not\s+)?null)\b)""",
    re.VERBOSE | re.IGNORECASE,
)
_JOINTS = re.compile(r"(?:\s|[()]|(?:and|or|not)\b)*", re.IGNORECASE)
# A whole filter with `=` in place of each comparison. SQL alone would read `width > 10 not` as a column named `not`.
_OPENING = r"(?:[\s(]|not\b)*"
_FORM = re.compile(rf"{_OPENING}=(?:[\s)]*(?:and|or)\b{_OPENING}=)*[\s)]*", re.IGNORECASE)


@dataclass(frozen=True)
class Condition:
    """A checked condition: SQL over `c0`, `c1`, ..., and which column of the pool each of these is.

    Beside the column's name is the kind of value that it is compared with, `number`, `text` or `flag`: metadata may
    hold any of the three.
    """

    sql: str
    columns: tuple[tuple[str, str], ...]

    def holds_for(self, samples: pl.DataFrame) -> pl.Series:
        """Whether the condition holds, for each sample; a comparison with a missing value does not hold.

        Raises:
            InputError: no sample has a metadata key that the condition names; the nearest one is named.
        """
        metadata = _read_metadata(samples, [name for name, _ in self.columns if name.startswith(_METADATA)])
        columns = {}
        for number, (name, kind) in enumerate(self.columns):
            column = metadata[name] if name in metadata else samples[name]
            is_read = kind == "number" and name in metadata
            columns[f"c{number}"] = column.cast(pl.Float64, strict=False).fill_nan(None) if is_read else column
        return pl.DataFrame(columns).select(pl.sql_expr(self.sql)).to_series().alias("holds")


def parse_filter(text: str, *, keys: Collection[str] = ()) -> Condition:
    """Check one condition.

    Args:
        text: The condition.
        keys: Keys of the metadata, where they are known: a message names the one that was meant.

    Raises:
        ValueError: it says what was expected where, and names the nearest valid column.
    """
    if len(text) > _MOST_CHARACTERS:
        raise ValueError(f"filter of {len(text)} characters: at most {_MOST_CHARACTERS} are read; use several filters")
    sql, form, columns, position = "", "", list[tuple[str, str]](), 0
    for found in _COMPARISON.finditer(text):
        joint = _joint(text, position, found.start())
        kind, comparison = _as_sql(text, found, f"c{len(columns)}", keys)
        sql += f"{joint} coalesce({comparison}, false) "
        form += f"{joint}="
        columns.append((_column_name(found["column"]), kind))
        position = found.end()
    joint = _joint(text, position, len(text))
    try:
        if not _FORM.fullmatch(form + joint):
            raise pl.exceptions.SQLSyntaxError("no condition")
        pl.sql_expr(sql + joint)
    except (pl.exceptions.SQLInterfaceError, pl.exceptions.SQLSyntaxError) as error:
        raise ValueError(
            f"filter {text!r}: expected comparisons such as sharpness > 10, `and` or `or` between two of them, and a "
            "closing bracket for each opening one, nested some tens deep at most"
        ) from error
    return Condition(sql + joint, tuple(columns))


def _joint(text: str, start: int, stop: int) -> str:
    """What stands between two comparisons, if it is nothing but `and`, `or`, `not` and brackets."""
    joined = _JOINTS.match(text, start, stop)
    end = start if joined is None else joined.end()
    if end < stop:
        raise ValueError(
            f"filter {text!r}: expected a comparison such as sharpness > 10, format = 'jpeg' or metadata.KEY >= 0.5, "
            f"found {text[end : end + 20]!r}"
        )
    return text[start:stop]


def _as_sql(text: str, found: re.Match[str], column: str, keys: Collection[str]) -> tuple[str, str]:
    """What a comparison compares with (`number`, `text` or `flag`), and the comparison as SQL."""
    name = _column_name(found["column"])
    is_metadata = name.startswith(_METADATA)
    if name not in COLUMNS and not is_metadata:
        if name in keys:
            raise ValueError(f"filter {text!r}: {name} is a key of the metadata; write {_METADATA}{name}")
        nearest = difflib.get_close_matches(name, COLUMNS, n=1, cutoff=0.5)
        advice = f"did you mean {nearest[0]}" if nearest else f"columns: {', '.join(COLUMNS)}, metadata.KEY"
        raise ValueError(f"filter {text!r}: unknown column {name}; {advice}")
    own = {**dict.fromkeys(NUMBER_COLUMNS, "number"), **dict.fromkeys(TEXT_COLUMNS, "text")}.get(name, "flag")
    if found["null"]:
        return "text" if is_metadata else own, f"{column} {found['null']}"
    given = [found[part] for part in ("value", "least", "most", "pattern") if found[part]]
    given += re.findall(_VALUE, found["members"] or "", re.IGNORECASE)
    kinds = {_kind(value) for value in given}
    kind = kinds.pop() if is_metadata and len(kinds) == 1 else own
    is_equality = found["sign"] in ("=", "==", "!=", "<>")
    if kinds - {kind} or (kind == "flag" and not is_equality) or (found["like"] and kind != "text"):
        wanted = ", ".join(_WANTED.values()) if is_metadata else _WANTED[own]
        raise ValueError(f"filter {text!r}: {name} is compared with {wanted}, found {' and '.join(given)}")
    if kind == "number" and not all(math.isfinite(float(value)) for value in given):
        raise ValueError(f"filter {text!r}: expected finite numbers, found {' and '.join(given)}")
    values = [_value(value, is_metadata=is_metadata) for value in given]
    if found["sign"]:
        sign = {"==": "=", "!=": "<>"}.get(found["sign"], found["sign"])
        return kind, f"{column} {sign} {values[0]}"
    if found["between"]:
        return kind, f"{column} {found['between']} {values[0]} and {values[1]}"
    if found["like"]:
        return kind, f"{column} {found['like']} {values[0]}"
    # Not SQL's `in`: it would compare 0.1 as float64 with a column of float32, which holds another number.
    anyone = " or ".join(f"{column} = {value}" for value in values)
    return kind, f"{'not' if found['in'].lower().startswith('not') else ''} ({anyone})"


def _column_name(written: str) -> str:
    """`metadata."camera id"` without its quotes."""
    key = written.removeprefix(_METADATA)
    return _METADATA + _unquoted(key) if key[0] in "'\"" else written


def _kind(value: str) -> str:
    return "text" if value[0] in "'\"" else "flag" if value.lower() in ("true", "false") else "number"


def _value(value: str, *, is_metadata: bool) -> str:
    """A value as SQL."""
    kind = _kind(value)
    if kind == "number":
        return f"{float(value):.16e}"  # with an exponent, since plain 0.5 is a decimal and no float to SQL
    if kind == "flag":
        return f"'{value.lower()}'" if is_metadata else value  # metadata that is no text is JSON
    return "'" + _unquoted(value).replace("'", "''") + "'"


def _unquoted(text: str) -> str:
    return text[1:-1].replace("''", "'") if text[0] == "'" else text[1:-1]


def _read_metadata(samples: pl.DataFrame, names: list[str]) -> dict[str, pl.Series]:
    """A column of text for each named metadata key; what is no text as JSON."""
    entries = [json.loads(text) if text else {} for text in samples["metadata"]] if names else []
    keys = {_METADATA + key for entry in entries for key in entry}
    columns = {}
    for name in names:
        if entries and name not in keys:
            nearest = difflib.get_close_matches(name, keys, n=1)
            advice = f"did you mean {nearest[0]}" if nearest else f"there are {', '.join(sorted(keys)) or 'none'}"
            raise InputError(f"filter column {name}: expected a key of the pool's metadata, found none; {advice}")
        values = [entry.get(name.removeprefix(_METADATA)) for entry in entries]
        texts = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
        columns[name] = pl.Series(name, texts, pl.String)
    return columns
