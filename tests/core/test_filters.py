"""Conditions on the pool's columns: parsed, applied, and refused with advice."""

import contextlib

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wtl_core.errors import ConfigError, InputError
from wtl_core.recipe.filters import as_polars, parse_filter, with_metadata
from wtl_core.recipe.recipe import parse_recipe

FRAME = pl.DataFrame(
    {
        "sharpness": [5.0, 15.0, 25.0, None],
        "width": [10, 20, 30, 40],
        "format": ["jpeg", "png", "gif", "jpeg"],
        "is_first_of_several": [False, False, True, False],
        "taken_at": ["2020-01-01T00:00:00", None, "2021-01-01T00:00:00", None],
        "metadata": ['{"score": 0.5, "camera": "north"}', '{"score": NaN, "camera": "south", "day": true}', None, "{}"],
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
        ("metadata.score >= 0", [0]),
        ("metadata.camera == 'south' or metadata.score < 1 and width == 10", [0, 1]),
        ("metadata.day == true", [1]),
        ("not metadata.day == true", [0, 2, 3]),
        ("metadata.camera > 1", []),
    ],
)
def test_conditions_choose_rows(text: str, rows: list[int]) -> None:
    condition = parse_filter(text)
    chosen = with_metadata(FRAME.with_row_index(), condition).filter(as_polars(condition))["index"].to_list()
    assert chosen == rows


def test_a_metadata_key_that_no_sample_has_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"did you mean metadata\.camera"):
        with_metadata(FRAME, parse_filter("width > 1 and metadata.camra == 'north'"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sharpnes > 10", "did you mean sharpness"),
        ("label == 3", "columns: width.*metadata.KEY"),
        ("metadata.a.b == 3", "cannot read"),
        ("metadata.a < true", "a number, a quoted text"),
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
