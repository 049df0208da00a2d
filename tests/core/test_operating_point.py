import pytest

from wtl_core.errors import ConfigError
from wtl_core.recipe.operating_point import OperatingPoint, percents_of


@pytest.mark.parametrize(
    ("point", "total", "count"),
    [
        ("1%", 3000, 30),
        ("7.5%", 3025, 227),
        ("100", 3000, 100),
        ("100%", 7, 7),
        ("0.01%", 50, 1),
        ("2.5%", 100, 3),
        ("64.6%", 250, 162),
        ("9.2%", 375, 35),
        (".5 %", 300, 2),
        (f"0.{'0' * 5000}1%", 300, 1),
    ],
)
def test_points_count_by_the_rule(point: str, total: int, count: int) -> None:
    assert OperatingPoint.parse(point).of(total) == count
    assert OperatingPoint.parse(point).within(total) == count
    assert OperatingPoint.parse(OperatingPoint.parse(point).written).of(total) == count


@pytest.mark.parametrize(
    "point", ["0", "0%", "140%", "lots", "", "-3", "2.5", "1e3", "5 percent", "٣%x", "٣%", True, 0, -3]
)
def test_nonsense_is_refused_before_any_work(point: int | str) -> None:
    with pytest.raises(ValueError, match="expected"):
        OperatingPoint.parse(point)


def test_more_than_is_ranked_is_refused_with_the_number() -> None:
    with pytest.raises(ConfigError, match="at most the 10 images"):
        OperatingPoint.parse("11").within(10)
    assert OperatingPoint.parse("11").of(10) == 10
    for digits in (400, 5000):
        with pytest.raises(ConfigError, match="at most the 10 images"):
            OperatingPoint.parse("9" * digits).within(10)
        with pytest.raises(ValueError, match="at most 100 %"):
            OperatingPoint.parse("9" * digits + "%")
        with pytest.raises(ValueError, match="a whole number"):
            OperatingPoint.parse("9" * digits + ".5")


@pytest.mark.parametrize(("value", "written"), [(500, 500), (" 500 ", 500), ("7.50 %", "7.50%"), (".5%", ".5%")])
def test_a_point_is_written_as_recipes_hold_it(value: int | str, written: int | str) -> None:
    assert OperatingPoint.parse(value).written == written


def test_whole_percents_round_like_any_other() -> None:
    assert percents_of(250) == [OperatingPoint.parse(f"{percent}%").of(250) for percent in range(1, 101)]
    assert percents_of(1) == [1] * 100
