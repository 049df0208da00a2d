"""The commit point of a refresh: `refreshes/<n>.json`, made once and never changed; the highest number is now.

Readers are lenient: fields that a newer version added are kept and passed by. A recipe with keys that this version does
not know can be shown, but `recipe_of` refuses to run by it, since the run would drop them without a word.
"""

import json
from contextlib import suppress

from pydantic import BaseModel, ConfigDict, Field

from wtl_core.errors import ConfigError, CorruptArtifactError, TransientError
from wtl_core.recipe.recipe import Recipe, read_recorded
from wtl_core.workspace import marker
from wtl_core.workspace.accounts import Accounts, SourceAccounts
from wtl_core.workspace.encoder_check import EncoderCheck
from wtl_core.workspace.forecasts import Forecast
from wtl_core.workspace.storage import Store

_FOLDER = "refreshes"
DIFFERENCE = "-on-"
"""In the key of a listing that is written as its difference to another: `listings/<digest>-on-<digest>.parquet`."""
_DIGITS = 6


class WeightsFile(BaseModel):
    """The file or files that an encoder's weights, or its factory, came from.

    `size` (bytes) and `mtime_ns` (last change) show without reading whether they are still those of `sha256`.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    size: int
    mtime_ns: int
    sha256: str


class Age(BaseModel):
    """How far a pool has moved from the one that its encoder was trained on."""

    model_config = ConfigDict(frozen=True, extra="allow")

    images_then: int
    """Distinct images of the pool at the training."""
    images_now: int
    """Distinct images of it now."""
    own_share: float | None = None
    """How far the images that came since the training form clusters of their own: the share of their nearest neighbours
    that came since too, among these images and as many older ones. 0.5 if old and new look alike, 1 if nothing of the
    new looks like the old; None where too few came."""


class PickChanges(BaseModel):
    """What became of the picks of the refresh before, for a person who works through them."""

    model_config = ConfigDict(frozen=True, extra="allow")

    open: int
    """Picks of the refresh before that are neither labelled nor skipped since."""
    stay: int
    """Of these, how many are picks now."""
    new: int
    """Picks now that were none before."""

    def in_words(self) -> str:
        """One clause, as `11 of the 14 open picks stay, 9 are new`."""
        new = f"{self.new:,} {'is' if self.new == 1 else 'are'} new"
        if not self.open:
            return f"no pick was open, {new}"
        picks = "pick stays" if self.stay == 1 and self.open == 1 else "picks stay"
        return f"{self.stay:,} of the {self.open:,} open {picks}, {new}"


class Changes(BaseModel):
    """What came and went since the refresh before; everything came with the first one."""

    model_config = ConfigDict(frozen=True, extra="allow")

    added: int
    """Samples that were not in the pool."""
    gone: int
    """Samples that are no longer in it."""
    refused: int
    """Locations that are quarantined now and were not before, those aside that the encoder refused."""
    refused_examples: list[tuple[str, str]] = []
    """URI and reason of the first of these."""
    labelled: int
    """Samples that were labelled meanwhile."""
    relabelled: int = 0
    """Labelled samples whose classes are others now, or known now."""
    unlabelled: int = 0
    """Samples whose labels were taken back."""
    skipped: int = 0
    """Samples that were skipped meanwhile."""
    handed_out: int = 0
    """Samples that batches handed out meanwhile, which keep their rank from then on; labelled ones count too."""

    def named(self) -> str:
        """The refused examples, as `broken.jpg: truncated`, and an ellipsis if there are more."""
        shown = [f"{uri.rpartition('/')[2]}: {reason.replace('_', ' ')}" for uri, reason in self.refused_examples]
        return ", ".join([*shown, *(["..."] if self.refused > len(shown) else [])])


class Commit(BaseModel):
    """What a refresh ended with. Keys of files are relative to the workspace."""

    model_config = ConfigDict(frozen=True, extra="allow")

    number: int
    """1 for the first refresh of a workspace."""
    created: str
    """Time of the commit, ISO 8601 in UTC."""
    sources: list[str]
    """Every source that the pool draws on."""
    listing: str
    """Key of the listing snapshot: each known object with its identity and its part."""
    recipe: Recipe
    """The whole recipe of the run, as far as this version of `wtl` knows it; to run by it again, use `recipe_of`."""
    unknown_recipe_keys: list[str] = Field(default=[], exclude=True)
    """Keys of the recorded recipe that this version does not know, as `selection.seed`; not a field of the file."""
    encoder: str
    """Fingerprint of the encoder."""
    encoder_name: str
    """Name of the encoder in the recipe."""
    encoder_file: WeightsFile | None = None
    """The weights file, or the source of the factory, that `encoder_name` points to; None if it points to none."""
    encoder_age: Age | None = None
    """How far the pool has changed since the encoder was trained; None where its training pool is not known."""
    encoder_check: EncoderCheck | None = None
    """How much the encoder's features say about the pool; None where that was not measured."""
    vector_table_version: int
    """LanceDB's version of the table of vectors after the run; it is for people, and no code reads it."""
    ledger_length: int
    """Entries of the ledger that the ranking saw."""
    selection: str
    """Key of the selection's folder."""
    selection_version: int = 0
    """Version of the code that made the selection; the next run of another version makes it anew."""
    report: str
    """Key of the HTML report."""
    counts: Accounts
    """The row accounts."""
    by_source: dict[str, SourceAccounts] = {}
    """`read`, `locations`, `quarantined` and `ignored` of each source; empty in commits older than this count."""
    budget: int | str | None
    """The operating point that marks the picks."""
    picks_kept: float | None = None
    """How many of the last refresh's picks are still picks: the Jaccard index of those that are neither labelled nor
    skipped since, and of as many first images of this ranking. 1 if they are the same; None where there is nothing to
    compare."""
    pick_changes: PickChanges | None = None
    """The same in counts; None if there was no refresh before, or if its ranking was deleted."""
    changes: Changes | None = None
    """What came and went since the refresh before; None in commits older than this count."""
    coverage: dict[str, float]
    """The ladder's coverage by per cent, `1` to `100`; empty if nothing is left to label."""
    random_coverage: dict[str, float]
    """Mean coverage of random picks of the same number, by the same per cents."""
    seconds: dict[str, float]
    """Wall-clock seconds of each stage."""
    forecast: Forecast | None = None
    """What the refresh was expected to take before it began; None in commits older than forecasts, and where a Ray
    cluster was to do the work."""


def latest(store: Store) -> Commit | None:
    """The newest commit; None before the first.

    Raises:
        CorruptArtifactError: the file is not what `write` made.
        ConfigError: a newer version wrote it in a form that this one cannot read.
    """
    found = newest(store, 1)
    return found[0] if found else None


def newest(store: Store, count: int) -> list[Commit]:
    """The last `count` commits, newest first. Raises what `latest` does."""
    return [_read(store, key) for key in _newest_keys(store, count)]


def readable(store: Store, count: int) -> list[Commit]:
    """Those of the last `count` commits that can be read, newest first, for what goes on without the others."""
    found = []
    for key in _newest_keys(store, count):
        with suppress(CorruptArtifactError, ConfigError):
            found.append(_read(store, key))
    return found


def _newest_keys(store: Store, count: int) -> list[str]:
    names = sorted((name for name in store.names(_FOLDER) if name.endswith(".json")), reverse=True)
    return [f"{_FOLDER}/{name}" for name in names[:count]]


def write(store: Store, commit: Commit) -> None:
    """Publish a commit.

    Raises:
        TransientError: its number is taken, so another process committed meanwhile.
    """
    values = commit.model_dump(mode="json")
    if DIFFERENCE in commit.listing:  # versions that know format 1 alone would take it for a whole one
        values["format"] = 2
    data = json.dumps(values, indent=1).encode() + b"\n"
    key = f"{_FOLDER}/{commit.number:0{_DIGITS}d}.json"
    # Ours may be there already: a store's answer can be lost, and its client asks again.
    if not store.create(key, data) and store.read_bytes(key) != data:
        raise TransientError(f"{store.root}: refresh {commit.number} was committed by another process; run again")


def recipe_of(commit: Commit) -> Recipe:
    """The recipe of a commit, to run by again.

    Raises:
        ConfigError: a newer version wrote it with keys that this one does not know, and that a run would lose.
    """
    if commit.unknown_recipe_keys:
        raise ConfigError(
            f"the recipe of refresh {commit.number} was written by a newer wtl (this one does not know "
            f"{', '.join(commit.unknown_recipe_keys)}): update wtl, or run without these keys by --recipe FILE"
        )
    return commit.recipe


def unknown_fields(commit: Commit) -> list[str]:
    """The fields that a newer version wrote into a commit and this one passes by; empty for our own."""
    fields = [name for name in commit.model_extra or {} if name != "format"]  # of every record, read before the rest
    return [*fields, *(f"recipe.{key}" for key in commit.unknown_recipe_keys)]


def _read(store: Store, key: str) -> Commit:
    try:
        values = json.loads(store.read_bytes(key))
        marker.check_format(values.get("format", 1), where=store.path(key))
        recipe, unknown = read_recorded(values["recipe"])
        return Commit.model_validate({**values, "recipe": recipe, "unknown_recipe_keys": unknown})
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise CorruptArtifactError(
            f"{store.path(key)}: expected a commit, found something else; restore the file, or delete it to fall back "
            "to the refresh before it"
        ) from error
