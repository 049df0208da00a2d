"""What changes a result: one frozen model per stage, nested in `Recipe`. Nothing here imports torch or reads files.

A recipe file is the same model written as TOML; command-line flags set its fields.
"""

import difflib
import tomllib
from typing import Any, Self

from pydantic import BaseModel, ValidationError

from wtl_core.errors import ConfigError
from wtl_core.recipe import encoder_names
from wtl_core.recipe.base import Params, message_of
from wtl_core.recipe.encoder import EncoderParams
from wtl_core.recipe.ingest import IngestParams
from wtl_core.recipe.selection import REMOVED, LadderParams, SelectionParams


class Recipe(Params):
    """Every parameter that changes a result, by stage."""

    ingest: IngestParams = IngestParams()
    """Which images are read, refused and kept."""
    encoder: EncoderParams = EncoderParams()
    """The network that computes the vectors."""
    selection: SelectionParams = SelectionParams()
    """How the images are ranked, and how many are picked."""
    ladder: LadderParams = LadderParams()
    """How a ranking is measured."""

    def with_absolute_paths(self) -> Self:
        """The recipe with the files that its encoder's names say as absolute paths.

        For a recipe that a user gives now: its paths are relative to the current folder, as sources are. A recipe that
        a workspace keeps stays as it was written. Raises ConfigError if an encoder's name has no valid form.
        """
        return self.model_copy(update={"encoder": self.encoder.with_absolute_paths()})

    def changed(self, *, budget: int | str | None, encoder: str | None, name: str) -> "Recipe":
        """The recipe with another budget and encoder where they are given, checked; `name` says where they are from.

        Raises ConfigError as `build_recipe` does.
        """
        values = self.model_dump(mode="json")
        if budget is not None:
            values["selection"]["budget"] = budget
        if encoder is not None:
            values["encoder"]["name"] = encoder_names.absolute(encoder)
        return build_recipe(values, name=name)


def parse_recipe(text: str, *, name: str) -> Recipe:
    """The recipe of a TOML file, with the paths of an encoder's files made absolute.

    Raises:
        ConfigError: not TOML, an unknown key (the nearest valid one is named), a value out of range, or an encoder's
            name of unknown form.
    """
    try:
        return build_recipe(tomllib.loads(text), name=name).with_absolute_paths()
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: expected TOML, found a mistake: {error}; mend it there") from error


def build_recipe(values: dict[str, Any], *, name: str) -> Recipe:
    """A recipe from nested values, with errors that say where and name the nearest valid key."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{name}: " + "; ".join(_explain(dict(detail)) for detail in error.errors())) from error


def read_recorded(values: dict[str, Any]) -> tuple[Recipe, list[str]]:
    """A recipe that some version of wtl wrote into a workspace, and the keys whose names or values are unknown here.

    Such a key, as `selection.seed`, has its default in the recipe that is returned: do not run by it if there is one.
    Keys that an earlier version had, and that are removed, are passed by.
    """
    left = {stage: dict(fields) for stage, fields in values.items()}
    for name in REMOVED:
        left.get("selection", {}).pop(name, None)
    unknown: list[str] = []
    while True:
        try:
            return Recipe.model_validate(left), sorted(unknown)
        except ValidationError as error:
            for stage, *field in {detail["loc"][:2] for detail in error.errors()}:
                unknown.append(".".join(map(str, [stage, *field])))
                parent, key = (left[str(stage)], field[0]) if field else (left, stage)
                parent.pop(str(key), None)


def _explain(detail: dict[str, Any]) -> str:
    where = [str(step) for step in detail["loc"]]
    if detail["type"] != "extra_forbidden":
        found = "" if isinstance(detail["input"], dict) else f", found {detail['input']!r}"  # of a whole table no value
        return f"{'.'.join(where)}: {message_of(detail)}{found}"
    fields = Recipe.model_fields
    if len(where) > 2:
        return f"unknown key {'.'.join(where)}; docs/recipe.md shows the valid ones"
    if len(where) == 2:
        model = fields[where[0]].annotation
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        fields = model.model_fields
    nearest = difflib.get_close_matches(where[-1], list(fields), n=1, cutoff=0.5)
    advice = f"did you mean {'.'.join([*where[:-1], nearest[0]])}" if nearest else f"valid keys: {', '.join(fields)}"
    return f"unknown key {'.'.join(where)}; {advice}"
