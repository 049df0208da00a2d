"""Converts Lightly's selection configuration, so that a recipe file may hold either form.

Under `[selection]` these keys are read, alone or in a table `selection_config`:

| Lightly | here |
|---|---|
| `n_samples`, `n_samples_to_select` | `budget`, as a count |
| `proportion_samples` | `budget`, as a percentage |
| `stopping_condition_minimum_distance` | `minimum_distance`; of several the largest |
| strategy `DIVERSITY` or `DIVERSIFY` | `objective = "k-center"` |
| strategy `TYPICALITY` | `objective = "typicality"` |
| both, or one of them with `WEIGHTS`, `BALANCE` or `SIMILARITY` | `objective = "coverage"`, steered by these |
| input or strategy `RANDOM` | `objective = "random"` |
| strategy `WEIGHTS` on an input with `key` | an entry of `weights`, with its strength |
| strategy `BALANCE` on an input with `key` | `group_by` and `balance` |
| strategy `SIMILARITY` on an input with `sample_ids` | an entry of `similar_to` |

What has no counterpart is refused and never dropped. Lightly multiplies its objectives; here there is one, coverage,
whose picks weights, balance and similarity move.
"""

from decimal import Decimal
from typing import Any

_ALIASES = {
    "budget": ("n_samples", "n_samples_to_select", "proportion_samples"),
    "minimum_distance": ("stopping_condition_minimum_distance",),
}
_OBJECTIVES = {"DIVERSITY": "k-center", "DIVERSIFY": "k-center", "TYPICALITY": "typicality", "RANDOM": "random"}
# By a strategy's type: the type of its input, and what else its input must and its strategy may name.
_STRATEGIES: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "DIVERSITY": ("EMBEDDINGS", (), ("stopping_condition_minimum_distance",)),
    "DIVERSIFY": ("EMBEDDINGS", (), ("stopping_condition_minimum_distance",)),
    "TYPICALITY": ("EMBEDDINGS", (), ()),
    "RANDOM": ("RANDOM", (), ()),
    "WEIGHTS": ("METADATA", ("key",), ("strength",)),
    "BALANCE": ("METADATA", ("key",), ("strength", "target", "distribution")),
    "SIMILARITY": ("EMBEDDINGS", ("sample_ids",), ("strength",)),
}


def from_lightly(values: dict[str, Any]) -> dict[str, Any]:
    """Lightly's selection config in this project's words; a name that means something else there is refused.

    Raises:
        ValueError: a strategy without a counterpart, strategies that exclude each other, a key that means nothing
            here, one thing named twice, or a value of a wrong shape.
    """
    values = dict(values)
    config = _table(values.pop("selection_config", {}), "selection_config")
    for name in config:
        _refuse_both(values, name, f"selection_config.{name}")
    values.update(config)
    for name, aliases in _ALIASES.items():
        given = [alias for alias in (name, *aliases) if alias in values]
        if len(given) > 1:
            raise ValueError(f"{name}: expected it to be named once, found {' and '.join(given)}; keep one of them")
    for alias in ("n_samples", "n_samples_to_select"):
        if alias in values:
            values["budget"] = values.pop(alias)
    if "proportion_samples" in values:
        share = Decimal(str(_number(values.pop("proportion_samples"), "proportion_samples")))
        values["budget"] = f"{(100 * share).normalize():f}%"
    if "stopping_condition_minimum_distance" in values:
        values["minimum_distance"] = values.pop("stopping_condition_minimum_distance")
    if "strategies" in values:
        _refuse_both(values, "objective", "strategies")
        _add_strategies(values, values.pop("strategies"))
    return values


def _add_strategies(values: dict[str, Any], strategies: Any) -> None:
    """A list of {"input": {"type": ...}, "strategy": {"type": ..., "strength": ...}}, in any order."""
    if not isinstance(strategies, list | tuple):
        raise ValueError(f"strategies: expected a list of tables, found {strategies!r}")
    objectives: set[str] = set()
    distances: list[float] = []
    # Sorted, since products of weights would otherwise depend on the order in their last bits.
    for entry in sorted((_table(entry, "strategies") for entry in strategies), key=repr):
        source, strategy = _table(entry.get("input", {}), "input"), _table(entry.get("strategy", {}), "strategy")
        kind = _kind(entry, source, strategy)
        if "stopping_condition_minimum_distance" in strategy:
            distances.append(_number(strategy["stopping_condition_minimum_distance"], "minimum distance"))
        if kind in _OBJECTIVES:
            objectives.add(_OBJECTIVES[kind])
        else:
            _add_steering(values, kind, source, strategy)
    if distances:
        _refuse_both(values, "minimum_distance", "stopping_condition_minimum_distance in strategies")
        values["minimum_distance"] = max(distances)
    # Lightly multiplies its objectives; here it is coverage whose picks weights, balance and similarity can move.
    is_steered = any(values.get(name) for name in ("weights", "balance", "similar_to", "quotas"))
    if objectives == {"k-center", "typicality"} or (len(objectives) == 1 and is_steered and objectives != {"random"}):
        values["objective"] = "coverage"
    elif len(objectives) > 1:
        raise ValueError(f"strategies: expected objectives that go together, found {' and '.join(sorted(objectives))}")
    elif objectives:
        [values["objective"]] = objectives


def _kind(entry: dict[str, Any], source: dict[str, Any], strategy: dict[str, Any]) -> str:
    """The type of a strategy, all of whose keys mean something here: one that is dropped would not be missed."""
    named, given = str(strategy.get("type", "")).upper(), str(source.get("type", "")).upper()
    kind = "RANDOM" if given == "RANDOM" and named in ("", "WEIGHTS") else named  # Lightly draws by WEIGHTS of RANDOM
    wanted, needed, allowed = _STRATEGIES.get(kind, ("", (), ()))
    if not wanted or any(key not in source for key in needed):
        raise ValueError(
            f"strategies: expected DIVERSITY, TYPICALITY, WEIGHTS or BALANCE (input with a key), SIMILARITY (input "
            f"with sample_ids) or an input of type RANDOM, found strategy {named or 'without a type'} on input {source}"
        )
    if given not in ("", wanted):
        raise ValueError(f"strategies: expected input of type {wanted} for {kind}, found {given}; leave it out")
    parts = (
        ("an entry", entry, ("input", "strategy")),
        (f"the input of {kind}", source, ("type", *needed)),
        (f"the strategy {kind}", strategy, ("type", *allowed)),
    )
    for where, table, known in parts:
        for key in table:
            if key not in known:
                raise ValueError(
                    f"strategies: expected {', '.join(known)} in {where}, found {key!r}; correct or drop it"
                )
    return kind


def _add_steering(values: dict[str, Any], kind: str, source: dict[str, Any], strategy: dict[str, Any]) -> None:
    """WEIGHTS and BALANCE by a column, SIMILARITY to given images."""
    strength = _number(strategy.get("strength", 1.0), "strength")
    if kind == "WEIGHTS":
        _append(values, "weights", {"column": source["key"], "strength": strength})
    elif kind == "BALANCE":
        if "balance" in values:
            raise ValueError("strategies: expected one balance, found another beside it; name one column")
        if values.get("group_by") not in (None, source["key"]):
            _refuse_both(values, "group_by", f"BALANCE by {source['key']!r}")
        if "target" in strategy and str(strategy.get("distribution", "TARGET")).upper() != "TARGET":
            _refuse_both(strategy, "target", "distribution")
        target = strategy.get("target", strategy.get("distribution", "uniform"))
        values["group_by"] = source["key"]
        values["balance"] = {"target": target.lower() if isinstance(target, str) else target, "strength": strength}
    else:
        _append(values, "similar_to", {"sample_ids": source["sample_ids"], "strength": strength})


def _refuse_both(values: dict[str, Any], name: str, other: str) -> None:
    if name in values:
        raise ValueError(f"{name}: expected it or {other}, found both; keep one of them")


def _append(values: dict[str, Any], name: str, entry: dict[str, Any]) -> None:
    earlier = values.get(name, ())
    if not isinstance(earlier, list | tuple):
        raise ValueError(f"{name}: expected a list of tables, found {earlier!r}")
    values[name] = (*earlier, entry)


def _table(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name}: expected a table of names and values, found {value!r}")
    return value


def _number(value: Any, name: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected a number, found {value!r}") from error
