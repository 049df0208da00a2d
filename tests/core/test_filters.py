"""Conditions on the pool's columns: parsed, applied, and refused with advice."""

import contextlib

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wtl_core.errors import ConfigError
from wtl_core.filters import as_polars, parse_filter
from wtl_core.recipe import parse_recipe

FRAME = pl.DataFrame(
    {
        "sharpness": [5.0, 15.0, 25.0, None],
        "width": [10, 20, 30, 40],
        "format": ["jpeg", "png", "gif", "jpeg"],
        "is_first_of_several": [False, False, True, False],
        "taken_at": ["2020-01-01T00:00:00", None, "2021-01-01T00:00:00", None],
    }
)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("sharpness > 10", [1, 2]),
        ("sharpness>=15 and width != 30", [1]),
        ("sharpness < 10 or format == 'gif'", [0, 2]),
        ('not (width <= 20) and not format == "gif"', [3]),
        ("width > 1e1 and width < +3.5e+1", [1, 2]),
        ("is_first_of_several == true", [2]),
        ("taken_at >= '2020-06-01'", [2]),
        ("not sharpness > 10", [0, 3]),
        ("width == 10 or width == 20 and sharpness > 100", [0]),
    ],
)
def test_conditions_choose_rows(text: str, rows: list[int]) -> None:
    chosen = FRAME.with_row_index().filter(as_polars(parse_filter(text)))["index"].to_list()
    assert chosen == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sharpnes > 10", "did you mean sharpness"),
        ("label == 3", "columns: width"),
        ("sharpness", "expected < <="),
        ("sharpness > 'a'", "a number"),
        ("format > 3", "a quoted text"),
        ("sharpness > 10 width > 3", "expected `and`"),
        ("(sharpness > 10", "closing bracket"),
        ("__import__('os').system('x')", "cannot read"),
        ("sharpness > 10; drop", "cannot read"),
        ("", "expected a column"),
        ("(" * 60 + "width > 1" + ")" * 60, "nested deeper"),
        ("width > 1 or " * 100 + "width > 2", "at most"),
    ],
)
def test_mistakes_are_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_filter(text)


def test_a_recipe_with_a_wrong_filter_is_refused_with_the_nearest_column() -> None:
    with pytest.raises(ConfigError, match="did you mean sharpness"):
        parse_recipe('[ingest]\nfilters = ["sharpnes > 10"]', name="r.toml")


@given(st.text(max_size=80))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        parse_filter(text)
