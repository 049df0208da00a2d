import pytest

from wtl_core.errors import ConfigError
from wtl_core.recipe.recipe import parse_recipe


def test_a_recipe_file_sets_the_same_fields() -> None:
    recipe = parse_recipe('[selection]\nseed = 3\nbudget = "7.5%"\n[encoder]\nname = "pixels"', name="r.toml")
    assert recipe.selection.seed == 3
    assert recipe.selection.budget == "7.5%"
    assert recipe.encoder.name == "pixels"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[selction]\nseed = 1", "unknown key selction; did you mean selection"),
        ("[selection]\nsed = 1", "unknown key selection.sed; did you mean selection.seed"),
        ("[selection]\nqqq = 1", "valid keys: "),
        ("[selection]\nseed = -1", "selection.seed"),
        ("[selection", "expected TOML"),
        ("[selection]\nbalance = {}", "group_by, the column that they refer to"),
    ],
)
def test_a_wrong_recipe_is_refused_with_the_place_and_the_nearest_key(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=r"r\.toml") as caught:
        parse_recipe(text, name="r.toml")
    assert told in str(caught.value)
    assert "{" not in str(caught.value)  # of what is wrong as a whole no values are told
