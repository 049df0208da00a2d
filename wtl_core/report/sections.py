"""What stands below the map: what changed, near-duplicates, quality, outliers, refused files, labels, the encoder."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from wtl_core.embedding import vectors
from wtl_core.embedding.chunks import refused as refused_by_encoder
from wtl_core.images.faults import Reason
from wtl_core.labelling import batches, progress
from wtl_core.pool import live_pool
from wtl_core.pool.live_pool import Pool
from wtl_core.refresh import accounts
from wtl_core.workspace import ledger, selections, snapshots
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.storage import Store

_TILES, _GROUPS, _OF_GROUP, _ENDS, _REFUSED_ROWS = 24, 6, 10, 6, 200
_BARS = 40
_SHOWN_NEIGHBOURS, _OF_NEIGHBOURS = 6, 6
_ASKED_FOR = 300
"""Neighbours of which those are shown that are in the pool and no near-duplicates: a burst may have hundreds."""
_PERCENTS = (1, 5, 10, 20)
_MEASURES = (
    ("sharpness", "sharpness", "least sharp", "sharpest", True),
    ("brightness", "brightness", "darkest", "brightest", False),
    ("contrast", "contrast", "least contrast", "most contrast", False),
    ("pixels", "size in megapixels", "smallest", "largest", True),
)
_MEANING = {
    Reason.EMPTY: "The file has no bytes: copy it again.",
    Reason.NOT_AN_IMAGE: "Named like an image, but its bytes are none: rename it or leave it out.",
    Reason.TRUNCATED: "The file ends before the image does: copy it again.",
    Reason.CORRUPT: "The decoder refuses the bytes: take it from its origin again.",
    Reason.UNSUPPORTED: "A format or variant that is not read here: convert it to JPEG or PNG.",
    Reason.TOO_MANY_PIXELS: "More pixels than ingest.max_pixels allows: raise it, or make the image smaller.",
    Reason.TOO_SMALL: "A side is shorter than ingest.min_side_px.",
    Reason.TOO_LARGE: "More bytes than ingest.max_file_bytes allows.",
    Reason.BROKEN_SHARD: "The archive or table ends early or is damaged; what came before was kept: write it again.",
    Reason.MISSING: "It was listed, and gone when it was read: the next run looks again.",
    Reason.ACCESS_DENIED: "It may not be read with these rights: change them; the next run looks again.",
    Reason.READ_ERROR: "Reading failed several times: check disk or network; the next run looks again.",
    Reason.CHANGED: "It was written to while it was read: the next run reads what is there now.",
}


@dataclass(frozen=True)
class Facts:
    """What the sections show; samples by id. `rows` are all samples that are pictured, the first sections first."""

    arrived: set[str]
    out: list[str]
    near: pl.DataFrame
    without_vector: list[str]
    labelled_in_pool: int
    plain: dict[str, Any]
    tiles: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> list[str]:
        """Ids of all samples that the sections picture."""
        return list(dict.fromkeys(_ids(list(self.tiles.values()))))

    def for_template(self, row_of: dict[str, int]) -> dict[str, Any]:
        """What the template takes: samples as rows of the page's columns."""
        return {**self.plain, **{name: _translated(value, row_of) for name, value in self.tiles.items()}}


def gather(
    store: Store, commit: Commit, live: Pool, *, ranking: pl.DataFrame, entries: pl.DataFrame, former: Commit | None
) -> Facts:
    """Everything that the sections show of a refresh; `former` is the one before it. Reads only."""
    samples, labels = live.samples, ledger.labels(entries)
    near = live_pool.near_groups(samples)
    picks = ranking.head(commit.counts.picks)
    refused = accounts.quarantine(live, store, commit.encoder)
    without_vector = refused_by_encoder(store, commit.encoder)["sample_id"].to_list()
    told = progress.run(store, refresh=commit) if labels.height else None
    outliers = _outliers(ranking)
    facts = Facts(
        arrived=arrived(store, samples, former),
        out=sorted({*ledger.sample_ids(entries, "exported")} - {*ledger.settled_ids(entries)}),
        near=near,
        without_vector=without_vector,
        labelled_in_pool=samples.join(labels, on="sample_id", how="semi").height,
        plain={
            "progress": told,
            "classes": [] if told is None else told.classes.to_dicts(),
            "reasons": reasons(refused),
            "refused": refused.unique(maintain_order=True).head(_REFUSED_ROWS).to_dicts(),
            "batches": batches.listed(store, entries=entries).filter(pl.col("out") > 0).to_dicts(),
            "before": _before(commit, former),
            "encoder_text": _encoder_text(commit),
            "outlier_notes": [f"distance {radius:.2f}" for radius in outliers["radius"]],
            "left_notes": [],
            "near_count": near["near_group"].n_unique(),
            "near_images": near.height,
        },
    )
    _add_changes(facts, store, samples, ranking, picks, labels, former)
    facts.tiles["near_groups"] = _near_groups(samples, near, picks)
    facts.tiles["outliers"] = outliers["sample_id"].to_list()
    facts.tiles["quality"] = [_quality(samples, *measure) for measure in _MEASURES]
    facts.tiles["neighbours"] = _neighbours(store, commit, samples, near, without_vector)
    return facts


def arrived(store: Store, samples: pl.DataFrame, former: Commit | None) -> set[str]:
    """The samples that the pool of the refresh before had not; none with the first one, where all are new."""
    if former is None:
        return set()
    known = live_pool.sample_ids(store, snapshots.read_snapshot(store, former.listing)).to_frame()
    return set(samples.join(known, on="sample_id", how="anti")["sample_id"])


def _add_changes(
    facts: Facts,
    store: Store,
    samples: pl.DataFrame,
    ranking: pl.DataFrame,
    picks: pl.DataFrame,
    labels: pl.DataFrame,
    former: Commit | None,
) -> None:
    """Arrivals by rank, picks that came, and picks that left with the reason."""
    first = ranking.filter(pl.col("sample_id").is_in(list(facts.arrived)))["sample_id"].head(_TILES).to_list()
    came: list[str] = []
    left: list[str] = []
    if former is not None and store.exists(f"{former.selection}/ranking.parquet"):
        old = selections.read_ranking(store, former.selection).head(former.counts.picks)
        came = picks.join(old, on="sample_id", how="anti", maintain_order="left")["sample_id"].to_list()
        gone = old.join(picks, on="sample_id", how="anti", maintain_order="left")
        left = gone.join(samples, on="sample_id", how="semi", maintain_order="left")["sample_id"].to_list()
    is_labelled = set(labels["sample_id"])
    left.sort(key=is_labelled.__contains__)  # why these went is plain
    ranks = dict(ranking.filter(pl.col("sample_id").is_in(left[:_TILES])).select("sample_id", "rank").iter_rows())
    facts.plain["left_notes"] = [
        "labelled"
        if sample_id in is_labelled
        else f"now rank {ranks[sample_id] + 1:,}"
        if sample_id in ranks
        else "not ranked"
        for sample_id in left[:_TILES]
    ]
    facts.plain.update({"arrived_count": len(facts.arrived), "came_count": len(came), "left_count": len(left)})
    facts.tiles.update({"arrived": first, "came": came[:_TILES], "left": left[:_TILES]})


def _before(commit: Commit, former: Commit | None) -> list[dict[str, float]]:
    """What some operating points give in this refresh and the one before, as shares of what all labels would give."""
    if former is None:
        return []
    both = [p for p in map(str, _PERCENTS) if p in former.coverage and p in commit.coverage]
    return [
        {
            "percent": int(p),
            "before": former.coverage[p] / (former.coverage.get("100") or 1),
            "now": commit.coverage[p] / (commit.coverage.get("100") or 1),
            "random": commit.random_coverage[p] / (commit.coverage.get("100") or 1),
        }
        for p in both
    ]


def _near_groups(samples: pl.DataFrame, near: pl.DataFrame, picks: pl.DataFrame) -> list[dict[str, Any]]:
    """The largest groups: how many images, of which when and how many are picked, and the first ones by time."""
    known = near.join(samples.select("sample_id", "uri", "taken_at"), on="sample_id", how="left")
    known = known.join(picks.select("sample_id", is_picked=pl.lit(value=True)), on="sample_id", how="left")
    sizes = known.group_by("near_group").agg(pl.len().alias("count"), pl.col("is_picked").sum().alias("picks"))
    largest = sizes.sort(["count", "near_group"], descending=[True, False]).head(_GROUPS)
    found = []
    for name, count, picked in largest.select("near_group", "count", "picks").iter_rows():
        members = known.filter(pl.col("near_group") == name).sort("taken_at", "uri", nulls_last=True)
        times = members["taken_at"].drop_nulls()
        span = "" if times.is_empty() else f"{times[0].replace('T', ' ')} to {times[-1].replace('T', ' ')}"
        rows = {"tiles": members["sample_id"].head(_OF_GROUP).to_list()}
        found.append({"count": count, "picks": picked, "span": span, **rows})
    return found


def _outliers(ranking: pl.DataFrame) -> pl.DataFrame:
    """`sample_id` and `radius` of images that stand for nothing but themselves, the farthest from earlier picks first.

    Early picks are far from each other because nothing is picked yet; so those of the first tenth do not count.
    """
    later = ranking.slice(ranking.height // 10).filter(
        pl.col("radius").is_not_null(), pl.col("duplicate_of").is_null(), pl.col("stands_for") <= 1
    )
    middle = ranking["radius"].drop_nulls().median()
    far = later.filter(pl.col("radius") > (middle if isinstance(middle, float) else 0.0))
    return far.sort(["radius", "rank"], descending=[True, False]).select("sample_id", "radius").head(_TILES // 2)


def _quality(samples: pl.DataFrame, column: str, name: str, low: str, high: str, is_log: bool) -> dict[str, Any]:
    """The histogram of a measure, in per cents of its highest bar, and examples at both ends."""
    values = (
        samples["width"].to_numpy() * samples["height"].to_numpy() / 1e6
        if column == "pixels"
        else samples[column].to_numpy()
    )
    values = values.astype(np.float64)
    order = np.lexsort((samples["sample_id"].to_numpy(), values))
    shown = np.log10(np.maximum(values, 1e-6)) if is_log else values
    near, far = np.quantile(shown, [0.002, 0.998])
    counts, _ = np.histogram(np.clip(shown, near, far), _BARS, range=(near, max(far, near + 1e-9)))
    least, middle, most = (figure(float(np.quantile(values, q))) for q in (0.002, 0.5, 0.998))
    ids = samples["sample_id"].gather(np.concatenate([order[:_ENDS], order[::-1][:_ENDS]]))
    return {
        "name": name[0].upper() + name[1:],
        "bars": [round(100 * count / max(counts.max(), 1), 1) for count in counts.tolist()],
        "low": least,
        "middle": middle,
        "high": most,
        "filter": ""
        if column == "pixels"
        else f'filters = ["{column} > {float(f"{np.quantile(values, 0.01):.4g}"):.10g}"]',
        "lowest": low[0].upper() + low[1:],
        "highest": high[0].upper() + high[1:],
        "alt": f"Histogram of {name}: {least} to {most}, half of the images below {middle}",
        "low_tiles": ids[: len(ids) // 2].to_list(),
        "high_tiles": ids[len(ids) // 2 :].to_list(),
    }


def figure(value: float) -> str:
    """A measure for a person: three digits, and never as a power of ten."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _neighbours(
    store: Store, commit: Commit, samples: pl.DataFrame, near: pl.DataFrame, without: list[str]
) -> list[list[Any]]:
    """Images that content draws, each with those nearest to it that are no near-duplicates of it: these are easy."""
    some = samples.filter(~pl.col("sample_id").is_in(without)).sort("sample_id")["sample_id"]
    chosen = some.head(_SHOWN_NEIGHBOURS).to_list()
    if some.len() <= _OF_NEIGHBOURS:
        return []
    present, group_of = set(some), dict(near.iter_rows())
    found: list[list[Any]] = []
    for sample_id, vector in zip(chosen, vectors.load(store, commit.encoder, chosen), strict=True):
        own = group_of.get(sample_id, sample_id)
        like = [other.sample_id for other in vectors.similar(store, commit.encoder, vector, _ASKED_FOR)]
        names = [name for name in like if name in present and name != sample_id and group_of.get(name, name) != own]
        found.append([sample_id, names[:_OF_NEIGHBOURS]])
    return found


def reasons(refused: pl.DataFrame) -> list[dict[str, Any]]:
    """How many files were refused for each `reason`, most frequent first, and what it means and would help."""
    counts = refused["reason"].value_counts(sort=True)
    counts = counts.sort(["count", "reason"], descending=[True, False])
    return [
        {"reason": reason, "count": count, "meaning": _MEANING.get(reason, "The encoder refused it: see its message.")}
        for reason, count in counts.iter_rows()
    ]


def _encoder_text(commit: Commit) -> str:
    """What is known of the encoder, in sentences."""
    said = [f"The ranking sees images by {commit.encoder_name}, fingerprint {commit.encoder[:12]}."]
    if commit.encoder_age is not None:
        age = commit.encoder_age
        said.append(f"It was made from {age.images_then:,} distinct images; there are {age.images_now:,} now.")
    if commit.encoder_check is not None:
        check = commit.encoder_check
        said.append(
            f"An image and another view of it share {check.shared_neighbours:.0%} of their ten nearest neighbours; by "
            f"colours and shapes alone, without any learning, {check.by_pixels:.0%}."
        )
    return " ".join(said)


def _ids(value: Any) -> list[str]:
    """All sample ids in a nest of lists and of `tiles` in dictionaries."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = [part for name, part in value.items() if name.endswith("tiles")]
    return [sample_id for part in value for sample_id in _ids(part)]


def _translated(value: Any, row_of: dict[str, int]) -> Any:
    """The same nest with rows in place of ids, as `rows` in place of `tiles`."""
    if isinstance(value, str):
        return row_of[value]
    if isinstance(value, list):
        return [_translated(part, row_of) for part in value]
    return {
        name.replace("tiles", "rows"): _translated(part, row_of) if name.endswith("tiles") else part
        for name, part in value.items()
    }
