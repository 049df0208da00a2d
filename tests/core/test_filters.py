"""Conditions on the pool's columns: parsed, applied, and refused with advice."""

import contextlib

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wtl_core.errors import ConfigError, InputError
from wtl_core.recipe.filters import parse_filter
from wtl_core.recipe.recipe import parse_recipe

FRAME = pl.DataFrame(
    {
        "sharpness": pl.Series([5.0, 15.0, 25.0, None], dtype=pl.Float32),  # as the pool holds it
        "width": [10, 20, 30, 40],
        "format": ["jpeg", "png", "gif", "jpeg"],
        "is_first_of_several": [False, False, True, False],
        "taken_at": ["2020-01-01T00:00:00", None, "2021-01-01T00:00:00", None],
        "metadata": [
            '{"score": 0.5, "camera": "north", "of it\'s lens": 1.8}',
            '{"score": NaN, "camera": "south", "day": true}',
            None,
            '{"camera-id": "c-1", "of it\'s lens": 0.5}',
        ],
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
        ("format = 'gif' OR Not width <> 40", [2, 3]),
        ("format in ('gif', \"png\")", [1, 2]),
        ("format not in ('gif', 'png') and width in (10, 20.0)", [0]),
        ("width between 15 and 30 and not sharpness > 20", [1]),
        ("width not between 15 and 30", [0, 3]),
        ("taken_at like '2020-%'", [0]),
        ("taken_at not like '2020-%'", [2]),
        ("taken_at is null", [1, 3]),
        ("metadata.camera is not null", [0, 1]),
        ("sharpness not in (5)", [1, 2]),
        ("NOT(not ( width > 10 ))AND( not(width = 20)or\twidth = 20 )", [1, 2, 3]),
        ("metadata.camera-id == 'c-1'", [3]),
        ("metadata.\"of it's lens\" > 1.5 or metadata.'of it''s lens' < 1", [0, 3]),
    ],
)
def test_conditions_choose_rows(text: str, rows: list[int]) -> None:
    assert parse_filter(text).holds_for(FRAME).arg_true().to_list() == rows


@pytest.mark.parametrize("text", ["sharpness = 10.1", "sharpness in (10.1)", "format = 'it''s'", 'format = "it\'s"'])
def test_values_are_compared_as_the_column_holds_them(text: str) -> None:
    frame = pl.DataFrame({"sharpness": pl.Series([10.1, 10.0], dtype=pl.Float32), "format": ["it's", "its"]})
    assert parse_filter(text).holds_for(frame).to_list() == [True, False]


def test_a_metadata_key_that_no_sample_has_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"did you mean metadata\.camera"):
        parse_filter("width > 1 and metadata.camra == 'north'").holds_for(FRAME)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sharpnes > 10", "did you mean sharpness"),
        ("label == 3", "columns: width.*metadata.KEY"),
        ("metadata.a.b == 3", r"expected a comparison.*found 'metadata\.a\.b == 3'"),
        ("metadata.a < true", "a number, a quoted text"),
        ("sharpness", "expected a comparison such as sharpness > 10.*found 'sharpness'"),
        ("sharpness > 'a'", "a number"),
        ("format > 3", "a quoted text"),
        ("sharpness > 10 width > 3", "`and` or `or` between two"),
        ("(sharpness > 10", "closing bracket"),
        ("__import__('os').system('x')", 'expected a comparison.*found "__import__'),
        ("sharpness > 10; drop", "expected a comparison.*found '; drop'"),
        ("", "expected comparisons such as sharpness > 10"),
        ("(" * 60 + "width > 1" + ")" * 60, "nested some tens deep at most"),
        ("width > 1 or " * 100 + "width > 2", "at most"),
    ],
)
def test_mistakes_are_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_filter(text)


@pytest.mark.parametrize(
    "text",
    [
        "width > 10 not",
        "and",
        "not",
        "()",
        " ",
        "format = 'x' and not",
        "width > 5 and not",
        "width > 5 or",
        "and width > 5",
        "width > 10 ()",
        "() width > 10",
        "width > 10 (and) width < 20",
        "width > 10 not and width < 20",
        "width > 10 and or width < 20",
        "width > 10 not width < 20",
        "width > 10)",
        "width > 10) and (width < 20",
    ],
)
def test_words_and_brackets_that_join_no_comparisons_are_refused_at_once(text: str) -> None:
    with pytest.raises(ValueError, match="expected comparisons such as sharpness > 10, `and` or `or` between two"):
        parse_filter(text)


def test_a_recipe_with_a_wrong_filter_is_refused_with_the_nearest_column() -> None:
    with pytest.raises(ConfigError, match="did you mean sharpness"):
        parse_recipe('[ingest]\nfilters = ["sharpnes > 10"]', name="r.toml")


@given(st.text(max_size=80))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        parse_filter(text)


@pytest.mark.parametrize(
    "text",
    [
        "max(width) > 3",
        "width > (select 1)",
        "exists (select 1)",
        "row_number() over (order by width) > 1",
        "read_csv('x') = 1",
        "cast(width as text) = '1'",
        "width > 1 -- a comment",
        "case when width > 1 then true end",
        "width > 1 as c0",
        "c0 > 1",
        "width",
        "true",
        "width * 2 > 3",
        "width > height",
        "'width > 1'",
        'width > "height"',
        "coalesce(width > 1, true)",
        "format = 'a' || 'b'",
        "width > 1e999",
        "is_first_of_several > false",
        "is_first_of_several in (true)",
        "width like '1%'",
        "metadata.a in (1, 'b')",
    ],
)
def test_nothing_but_comparisons_of_a_column_with_values_passes(text: str) -> None:
    with pytest.raises(ValueError, match=r"^filter .*(expected|compared with|unknown column)"):
        parse_filter(text)


def test_a_condition_holds_for_no_row_of_an_empty_pool() -> None:
    assert parse_filter("metadata.camera = 'north' or width > 1").holds_for(FRAME.clear()).to_list() == []


def test_a_key_of_the_metadata_without_its_beginning_is_told_how_to_write_it() -> None:
    with pytest.raises(ValueError, match=r"camera is a key of the metadata; write metadata\.camera$"):
        parse_filter("camera = 'gate'", keys=["camera"])
