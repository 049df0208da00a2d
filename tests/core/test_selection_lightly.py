"""Lightly's selection configuration, as a recipe's `[selection]` may hold it."""

import pytest
from pydantic import ValidationError

from wtl_core.errors import ConfigError
from wtl_core.recipe.recipe import build_recipe, parse_recipe
from wtl_core.recipe.selection import Balance, SelectionParams, WeightBy


@pytest.mark.parametrize(
    ("share", "budget"), [(0.07, "7%"), (1.0, "100%"), (1e-7, "0.00001%"), ("0.123456789", "12.3456789%")]
)
def test_lightlys_proportion_keeps_its_digits(share: float | str, budget: str) -> None:
    assert SelectionParams.model_validate({"proportion_samples": share}).budget == budget


def test_lightlys_names_mean_the_same() -> None:
    config = {
        "selection_config": {
            "proportion_samples": 0.05,
            "strategies": [
                {
                    "input": {"type": "EMBEDDINGS"},
                    "strategy": {"type": "DIVERSITY", "stopping_condition_minimum_distance": 0.1},
                },
                {"input": {"type": "METADATA", "key": "sharpness"}, "strategy": {"type": "WEIGHTS", "strength": 2}},
                {"input": {"type": "METADATA", "key": "camera"}, "strategy": {"type": "BALANCE", "target": "UNIFORM"}},
            ],
        }
    }
    model = SelectionParams.model_validate(config)
    assert (model.budget, model.objective, model.minimum_distance) == ("5%", "coverage", 0.1)
    assert SelectionParams.model_validate({"strategies": [{"strategy": {"type": "DIVERSITY"}}]}).objective == "k-center"
    assert model.weights == (WeightBy(column="sharpness", strength=2),)
    assert (model.group_by, model.balance) == ("camera", Balance(target="uniform"))
    assert SelectionParams.model_validate({"n_samples": 12}).budget == 12
    assert SelectionParams.model_validate({"stopping_condition_minimum_distance": 0.2}).minimum_distance == 0.2
    both = [{"strategy": {"type": kind}} for kind in ("DIVERSITY", "TYPICALITY")]
    assert SelectionParams.model_validate({"strategies": both}).objective == "coverage"
    assert SelectionParams.model_validate({"strategies": [{"input": {"type": "RANDOM"}}]}).objective == "random"


def test_the_order_of_strategies_means_nothing() -> None:
    strategies: list[dict[str, object]] = [
        {"strategy": {"type": "DIVERSITY", "stopping_condition_minimum_distance": 0.1}},
        {"strategy": {"type": "TYPICALITY"}},
        {"strategy": {"type": "DIVERSITY", "stopping_condition_minimum_distance": 0.2}},
        {"input": {"key": "sharpness"}, "strategy": {"type": "WEIGHTS", "strength": 2}},
        {"input": {"key": "age"}, "strategy": {"type": "WEIGHTS"}},
    ]
    models = [SelectionParams.model_validate({"strategies": some}) for some in (strategies, strategies[::-1])]
    assert models[0] == models[1]
    assert (models[0].objective, models[0].minimum_distance) == ("coverage", 0.2)


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (["DIVERSITY", "random"], "objectives that go together, found k-center and random"),
        (["random", "TYPICALITY"], "objectives that go together, found random and typicality"),
        (["BALANCE", "BALANCE"], "expected one balance"),
    ],
)
def test_strategies_that_exclude_each_other_are_refused(kinds: list[str], message: str) -> None:
    entries = [{"input": {"key": "camera"} if kind == "BALANCE" else {}, "strategy": {"type": kind}} for kind in kinds]
    with pytest.raises(ValidationError, match=message):
        SelectionParams.model_validate({"strategies": entries})


@pytest.mark.parametrize(
    "wrong",
    [
        {"strategies": {"type": "DIVERSITY"}},
        {"strategies": 3},
        {"strategies": ["DIVERSITY"]},
        {"strategies": [{"input": "EMBEDDINGS", "strategy": {"type": "DIVERSITY"}}]},
        {"strategies": [{"strategy": ["DIVERSITY"]}]},
        {"strategies": [{"input": {"key": "a"}, "strategy": {"type": "WEIGHTS", "strength": None}}]},
        {"weights": 3, "strategies": [{"input": {"key": "a"}, "strategy": {"type": "WEIGHTS"}}]},
        {"selection_config": [1]},
        {"selection_config": None},
        {"proportion_samples": None},
        {"proportion_samples": "nan"},
    ],
)
def test_lightlys_names_with_values_of_another_shape_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SelectionParams.model_validate(wrong)


DISTANCE = {"stopping_condition_minimum_distance": 0.1}


def one(kind: str, source: dict[str, object] | None = None, **more: object) -> dict[str, object]:
    return {"strategies": [{"input": source or {}, "strategy": {"type": kind, **more}}]}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (one("DIVERSITY", stopping_condition_minimum_distence=0.1), "found 'stopping_condition_minimum_distence'"),
        (one("DIVERSITY", strength=2), "found 'strength'"),
        (one("TYPICALITY", **DISTANCE), "found 'stopping_condition_minimum_distance'"),
        (one("WEIGHTS", {"key": "a"}, treshold=2), "found 'treshold'"),
        (one("WEIGHTS", {"key": "a", "task": "b"}), "found 'task'"),
        ({"strategies": [{"strategy": {"type": "DIVERSITY"}, "name": "a"}]}, "found 'name'"),
        (one("DIVERSITY", {"type": "METADATA"}), "type EMBEDDINGS for DIVERSITY, found METADATA"),
        (one("DIVERSITY", {"type": "PREDICTIONS", "task": "a"}), "type EMBEDDINGS for DIVERSITY, found PREDICTIONS"),
        (one("WEIGHTS", {"type": "SCORES", "key": "a"}), "type METADATA for WEIGHTS, found SCORES"),
        (one("DIVERSITY", {"type": "RANDOM"}), "type EMBEDDINGS for DIVERSITY, found RANDOM"),
        (one("WEIGHTS", {"type": "RANDOM", "random_seed": 3}), "found 'random_seed'"),
        (one("BALANCE", {"key": "a"}, target={"b": 1}, distribution="UNIFORM"), "target: expected it or distribution"),
        ({"n_samples": 3, "proportion_samples": 0.1}, "found n_samples and proportion_samples"),
        ({"n_samples": 3, "budget": 5}, "found budget and n_samples"),
        ({"budget": 5, "selection_config": {"n_samples": 3}}, "found budget and n_samples"),
        ({"n_samples": 5, "selection_config": {"n_samples": 3}}, "expected it or selection_config.n_samples"),
        ({"minimum_distance": 0.2, **DISTANCE}, "found minimum_distance and stopping"),
        ({"minimum_distance": 0.2, **one("DIVERSITY", **DISTANCE)}, "minimum_distance: expected it or stopping"),
        ({"objective": "coverage", **one("DIVERSITY")}, "objective: expected it or strategies"),
        ({"group_by": "site", **one("BALANCE", {"key": "camera"})}, "group_by: expected it or BALANCE by 'camera'"),
        ({"selection_config": {"n_sampels": 3}}, "n_sampels"),
    ],
)
def test_what_would_be_dropped_of_lightlys_config_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        build_recipe({"selection": wrong}, name="recipe.toml")
    assert "\n" not in str(refused.value)


def test_what_lightly_spells_in_two_ways_is_taken() -> None:
    random = SelectionParams.model_validate(one("WEIGHTS", {"type": "RANDOM"}))
    assert random.objective == "random"
    balance = SelectionParams.model_validate(
        one("BALANCE", {"type": "METADATA", "key": "camera"}, target={"a": 1}, distribution="TARGET")
    )
    assert balance.balance == Balance(target={"a": 1})


def test_a_strategy_without_a_counterpart_is_refused() -> None:
    with pytest.raises(ValidationError, match="strategies: expected DIVERSITY"):
        SelectionParams.model_validate({"strategies": [{"strategy": {"type": "THRESHOLD"}}]})


def test_a_recipe_file_may_hold_lightlys_configuration() -> None:
    text = """
        [selection.selection_config]
        n_samples = 50
        [[selection.selection_config.strategies]]
        input = {type = "EMBEDDINGS"}
        strategy = {type = "DIVERSITY"}
    """
    found = parse_recipe(text, name="recipe.toml").selection
    assert (found.budget, found.objective) == (50, "k-center")
