"""What changes a result: one frozen model per stage, nested in `Recipe`. Nothing here imports torch or reads files.

A recipe file is the same model written as TOML; command-line flags set its fields.
"""

import difflib
import hashlib
import json
import tomllib
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wtl_core.errors import ConfigError


class _Params(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class IngestParams(_Params):
    """From shards to parts of the pool."""

    store: Literal["bytes", "reference"] = "bytes"
    """Keep image bytes in the pool, which then outlives its source, or only refer to where they are."""


class EncoderParams(_Params):
    """Which network turns an image into a vector, and how one is trained where none is given."""

    name: str = "ssl"
    """`ssl`, `pixels`, `timm:NAME`, `torchvision:NAME`, `file:PATH`, or the path of an encoder in a workspace."""


class EmbeddingParams(_Params):
    """From images to vectors."""


class SelectionParams(_Params):
    """From vectors to a ranking."""

    seed: int = Field(0, ge=0)
    """Feeds every random choice of the stage."""


class LadderParams(_Params):
    """How a ranking is measured."""

    random_draws: int = Field(5, ge=2, le=100)
    """Random orders that the ranking is compared with."""


class Recipe(_Params):
    """Every parameter that changes a result, by stage."""

    ingest: IngestParams = IngestParams()
    """From shards to parts of the pool."""
    encoder: EncoderParams = EncoderParams()
    """The network behind the vectors."""
    embedding: EmbeddingParams = EmbeddingParams()
    """From images to vectors."""
    selection: SelectionParams = SelectionParams()
    """From vectors to a ranking."""
    ladder: LadderParams = LadderParams()
    """How a ranking is measured."""

    def digest(self) -> str:
        """SHA-256 hex of the recipe in canonical JSON."""
        return digest_of(self.model_dump(mode="json"))


def digest_of(value: Any) -> str:
    """SHA-256 hex of a JSON-like value in canonical form (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def parse_recipe(text: str, *, name: str) -> Recipe:
    """A recipe from TOML.

    Raises:
        ConfigError: not TOML, an unknown key (the nearest valid one is named), or a value out of range.
    """
    try:
        return build_recipe(tomllib.loads(text), name=name)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: expected TOML, found a mistake: {error}; mend it there") from error


def build_recipe(values: dict[str, Any], *, name: str) -> Recipe:
    """A recipe from nested values, with errors that say where and name the nearest valid key."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{name}: " + "; ".join(_explain(dict(detail)) for detail in error.errors())) from error


def _explain(detail: dict[str, Any]) -> str:
    where = [str(step) for step in detail["loc"]]
    if detail["type"] != "extra_forbidden":
        return f"{'.'.join(where)}: {detail['msg']}, found {detail['input']!r}"
    fields = Recipe.model_fields
    if len(where) > 1:
        model = fields[where[0]].annotation
        assert model is not None
        assert issubclass(model, BaseModel)
        fields = model.model_fields
    nearest = difflib.get_close_matches(where[-1], list(fields), n=1, cutoff=0.5)
    advice = f"did you mean {'.'.join([*where[:-1], nearest[0]])}" if nearest else f"valid keys: {', '.join(fields)}"
    return f"unknown key {'.'.join(where)}; {advice}"
