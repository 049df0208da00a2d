import pytest

from wtl_core.errors import ConfigError
from wtl_core.recipe.operating_point import check_point, count_at
from wtl_core.recipe.selection import count_of


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
    assert count_at(point, total) == count
    assert count_of(point if "%" in point else int(point), total) == count


@pytest.mark.parametrize("point", ["0", "0%", "140%", "lots", "", "-3", "2.5", "1e3", "5 percent", "٣%x"])
def test_nonsense_is_refused_before_any_work(point: str) -> None:
    with pytest.raises(ConfigError, match="expected"):
        check_point(point)


def test_more_than_is_ranked_is_refused_with_the_number() -> None:
    with pytest.raises(ConfigError, match="at most the 10 images"):
        count_at("11", 10)
    for digits in (400, 5000):
        with pytest.raises(ConfigError, match="at most the 10 images"):
            count_at("9" * digits, 10)
        with pytest.raises(ConfigError, match="at most 100 %"):
            count_at("9" * digits + "%", 10)
        with pytest.raises(ConfigError, match="a whole number"):
            count_at("9" * digits + ".5", 10)
