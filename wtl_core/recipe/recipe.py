"""What changes a result: one frozen model per stage, nested in `Recipe`. Nothing here imports torch or reads files.

A recipe file is the same model written as TOML; command-line flags set its fields.
"""

import difflib
import hashlib
import json
import tomllib
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from wtl_core.errors import ConfigError
from wtl_core.recipe import encoder_names
from wtl_core.recipe.filters import parse_filter
from wtl_core.recipe.selection import LadderParams, SelectionParams


class _Params(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class IngestParams(_Params):
    """From shards to parts of the pool."""

    store: Literal["bytes", "reference"] = "bytes"
    """Keep image bytes in the pool, which then outlives its source, or only refer to where they are."""
    part_images: int = Field(5000, ge=1, le=100_000)
    """Images in a part, roughly: small shards and loose files are packed up to it, a larger shard is one part."""
    part_bytes: int = Field(256 << 20, ge=1 << 20, le=8 << 30)
    """Bytes of shards and loose files packed into one part; a larger shard is one part."""
    max_pixels: int = Field(100_000_000, ge=1, le=1_000_000_000)
    """Images that announce more pixels are refused before they are decoded."""
    max_file_bytes: int = Field(256 << 20, ge=1, le=2_000_000_000)
    """Image files with more bytes are refused."""
    min_side_px: int = Field(8, ge=1, le=4096)
    """Images with a shorter side are refused."""
    thumbnail_px: int = Field(128, ge=16, le=512)
    """Longer side of the thumbnails in the pool."""
    thumbnail_bytes: int = Field(16 << 10, ge=0, le=1 << 20)
    """Bytes of one thumbnail at most; images that need more have none."""
    thumbnails_per_part: int = Field(5000, ge=0, le=1_000_000)
    """Thumbnails in one part at most: its first images get them."""
    quarantine_budget: float = Field(1.0, ge=0, le=1)
    """Share of the locations that may be quarantined; above it the run is refused. Changes no part."""
    filters: tuple[str, ...] = ()
    """Conditions that all must hold, such as `sharpness > 10`; other samples are set aside. Changes no part."""

    @field_validator("filters")
    @classmethod
    def _check_filters(cls, filters: tuple[str, ...]) -> tuple[str, ...]:
        for text in filters:
            parse_filter(text)
        return filters

    def part_digest(self) -> str:
        """SHA-256 hex of the fields that shape a part."""
        return digest_of(self.model_dump(mode="json", exclude={"quarantine_budget", "filters"}))


class EncoderParams(_Params):
    """Which network turns an image into a vector, and how one is trained where none is given."""

    name: str = "ssl"
    """`ssl`, `pixels`, `timm:NAME`, `torchvision:NAME`, `file:PATH`, or the path of an encoder in a workspace."""
    seconds: float = Field(300, gt=0, le=30 * 86400)
    """Wall-clock budget of training; turned into a number of steps once, after a warm-up, which a rerun repeats."""
    epochs: float | None = Field(None, gt=0, le=100_000)
    """Passes over the pool's images instead of seconds."""
    side_px: int | None = Field(None, ge=16, le=512)
    """Image side, of `ssl` and of timm's and torchvision's networks; if not given, by the pool's sizes or published."""
    width: int | None = Field(None, ge=8, le=256)
    """Channels of the network's first stage; vectors have eight times as many dimensions. 16 on a CPU, 64 on a GPU."""
    batch_images: int | None = Field(None, ge=8, le=65_536)
    """Images in a training step; taken from the machine where it is not given."""
    start: str | None = None
    """Weights to go on from: an encoder's fingerprint, file or folder, or `timm:NAME`; from scratch if not given."""
    seed: int = Field(0, ge=0, le=2**63 - 1)
    """Feeds weights, order and views."""
    compile: bool = False
    """Compile a network given by name for its GPU: half a minute a run, which pays from about a million images on."""
    retrain: Literal["advise", "automatic", "never"] = "advise"
    """Where the pool has left its `ssl` encoder behind: advise, let the next refresh train the next one, or neither."""
    retrain_growth: float = Field(2.0, gt=1, le=1_000_000)
    """It is left behind by a pool of that many times the images that it had when the encoder was trained."""
    retrain_drift: float = Field(0.6, gt=0.5, le=1)
    """Or by arrivals since, if more of their nearest neighbours are arrivals too: half are where all is alike."""

    @model_validator(mode="after")
    def _check_compile(self) -> Self:
        if self.compile and encoder_names.is_trained_here(self.name):
            raise ValueError(
                f"encoder.compile: expected a network given by name, found {self.name!r}, whose networks are so small "
                "that compiling takes longer than a million images; leave it false"
            )
        return self


class Recipe(_Params):
    """Every parameter that changes a result, by stage."""

    ingest: IngestParams = IngestParams()
    """From shards to parts of the pool."""
    encoder: EncoderParams = EncoderParams()
    """The network behind the vectors."""
    selection: SelectionParams = SelectionParams()
    """From vectors to a ranking."""
    ladder: LadderParams = LadderParams()
    """How a ranking is measured."""


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
    if len(where) > 2:
        return f"unknown key {'.'.join(where)}; the README's tables show the valid ones"
    if len(where) == 2:
        model = fields[where[0]].annotation
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        fields = model.model_fields
    nearest = difflib.get_close_matches(where[-1], list(fields), n=1, cutoff=0.5)
    advice = f"did you mean {'.'.join([*where[:-1], nearest[0]])}" if nearest else f"valid keys: {', '.join(fields)}"
    return f"unknown key {'.'.join(where)}; {advice}"
