"""What the rooms of the app show, as plain values for JSON. Reads only; samples by id."""

import json
import math
from typing import Any

import numpy as np
import polars as pl

from wtl_core.app.live import OPEN, OUT, STATES, Live
from wtl_core.app.view import NONE, View
from wtl_core.embedding import chunks, vectors
from wtl_core.errors import ConfigError
from wtl_core.labelling import batches, label_errors, progress
from wtl_core.pool import live_pool
from wtl_core.recipe.filters import NUMBER_COLUMNS
from wtl_core.report import decision, sections, version
from wtl_core.workspace import selections, snapshots

_OF_STRIP = 12
MOST_AT_ONCE = 10_000
"""Images that are decided on together; a recipe's filter does for more."""
_MOST_FOUND = 1000
_MORE = 200
"""Neighbours that are asked for, since copies and images that have left the pool are among them."""


def state(live: Live) -> dict[str, Any]:
    """What every room needs: the refresh, what is decided so far, and whether somebody is writing."""
    view, entries = live.view(), live.entries()
    commit = view.commit
    picked = entries.states[view.ranked[: view.picks]]
    work = live.work()
    rungs = selections.read_ladder(live.store, commit.selection)
    return {
        "workspace": live.store.root,
        "version": version.version_text(),
        "refresh": commit.number,
        "created": commit.created,
        "sources": commit.sources,
        "encoder": commit.encoder_name,
        "samples": view.samples.height,
        "ranked": len(view.ranked),
        "picks": view.picks,
        "sentence": decision.read(live.store, commit.selection).sentence,
        "changed": decision.what_changed(commit),
        "entries": entries.length,
        "decided": _states(picked),
        "arrived": int(view.arrived.sum()),
        "quarantined": commit.counts.quarantined,
        "labelled": entries.labels.height,
        "batches": len(set(entries.batch_of.values())),
        "rungs": [] if rungs.is_empty() else _ladder(rungs),
        "groupings": [group.described() for group in view.groupings],
        "work": None if work is None else work.to_json(),
        "is_loading": live.is_loading,
    }


def queue(live: Live, *, start: int, count: int, show: str) -> dict[str, Any]:
    """Ranks from a place of the queue on: all of the ranking, or of the picks those that are open or decided."""
    view, states = live.view(), live.entries().states
    ranks = np.arange(len(view.ranked))
    if show != "all":
        ranks = ranks[: view.picks]
        is_open = states[view.ranked[ranks]] == OPEN
        ranks = ranks[is_open if show == "open" else ~is_open]
    shown = ranks[start : start + count]
    rows = view.ranked[shown]
    told = view.samples.select("sample_id", "uri")[rows]
    pairs = zip(shown.tolist(), told.iter_rows(), states[rows].tolist(), strict=True)
    items = [
        {
            "rank": rank,
            "id": sample_id,
            "name": uri,
            "stands": int(view.ranking["stands_for"][rank]),
            "state": STATES[code],
        }
        for rank, (sample_id, uri), code in pairs
    ]
    return {"total": len(ranks), "start": start, "items": items, "refresh": view.commit.number}


def image(live: Live, row: int) -> dict[str, Any]:
    """What is known of an image without looking for neighbours."""
    view, entries = live.view(), live.entries()
    told = view.samples.row(row, named=True)
    rank = int(view.rank[row])
    is_ranked = rank != NONE
    facts = [
        ("size", f"{told['width']:,} x {told['height']:,} px, {told['format']}, {told['byte_length'] / 1000:,.0f} kB"),
        *((name, sections.figure(told[name])) for name in ("sharpness", "brightness", "contrast")),
        ("source", str(told["source"])),
    ]
    if told["taken_at"]:
        facts.insert(1, ("taken", told["taken_at"].replace("T", " ")))
    metadata = json.loads(told["metadata"]) if told["metadata"] else {}
    facts += [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in metadata.items()]
    covers = view.covered_by(row)
    near = view.near_of(row)
    label = entries.labels.filter(pl.col("sample_id") == told["sample_id"])
    parent = view.parent(row)
    replaced = np.flatnonzero(view.replaced_by == row)
    return {
        "id": told["sample_id"],
        "name": told["uri"],
        "rank": rank if is_ranked else None,
        "state": STATES[entries.states[row]],
        "batch": entries.batch_of.get(told["sample_id"]),
        "classes": None if label.is_empty() or label["classes"][0] is None else label["classes"][0].to_list(),
        "is_new": bool(view.arrived[row]),
        "why": _why(view, row),
        "facts": facts,
        "earlier": None if parent < 0 else _named(view, [parent])[0],
        "covers": _named(view, covers[:_OF_STRIP]),
        "covers_count": len(covers),
        "near": _named(view, near[:_OF_STRIP]),
        "near_count": len(near),
        "replaces": _named(view, view.ranked[replaced[:_OF_STRIP]]),
        "replaces_count": len(replaced),
    }


def neighbours(live: Live, row: int) -> dict[str, Any]:
    """The images most like it by vector, and the labelled one that is most like it."""
    view, entries = live.view(), live.entries()
    encoder, sample_id = view.commit.encoder, view.ids(np.array([row]))[0]
    if chunks.refused(live.store, encoder).filter(pl.col("sample_id") == sample_id).height:
        return {"neighbours": [], "labelled": None}
    vector = vectors.load(live.store, encoder, [sample_id])[0]
    found = vectors.similar(live.store, encoder, vector, _MORE)
    rows = [(view.row_of(other.sample_id), other.similarity) for other in found]
    rows = [(other, alike) for other, alike in rows if other >= 0 and other != row]
    shown = rows[:_OF_STRIP]
    named = _named(view, [other for other, _ in shown], states=entries.states)
    for item, (_, alike) in zip(named, shown, strict=True):
        item["similarity"] = round(alike, 3)
    return {"neighbours": named, "labelled": _nearest_labelled(live, vector, sample_id)}


def near_groups(live: Live, *, start: int, count: int) -> dict[str, Any]:
    """Groups of near-duplicates, the largest first."""
    view, states = live.view(), live.entries().states
    rows, starts, stops = view.near_order
    groups = []
    for first, stop in zip(starts[start : start + count].tolist(), stops[start : start + count].tolist(), strict=True):
        members = rows[first:stop]
        ranks = view.rank[members]
        members = members[np.argsort(ranks, kind="stable")]
        times = view.samples["taken_at"].gather(members).drop_nulls().sort()
        groups.append(
            {
                "count": stop - first,
                "picks": int((ranks < view.picks).sum()),
                "states": _states(states[members]),
                "span": "" if times.is_empty() else f"{times[0]} to {times[-1]}".replace("T", " "),
                "items": _named(view, members[:_OF_STRIP], states=states),
            }
        )
    return {"total": len(starts), "images": len(rows), "start": start, "groups": groups}


def near_group(live: Live, row: int) -> list[dict[str, Any]]:
    """The images of a row's group of near-duplicates, the best ranked first, at most `MOST_AT_ONCE`."""
    view = live.view()
    members = np.append(view.near_of(row), row)
    members = members[np.lexsort((members, view.rank[members]))][:MOST_AT_ONCE]
    return _named(view, members, states=live.entries().states)


def find(live: Live, text: str) -> dict[str, Any]:
    """The images with a text in their name, capitals aside, or at the beginning of their id; the first ranks first."""
    view, wanted = live.view(), text.strip().lower()
    names = view.samples.select(
        name=pl.col("uri").str.to_lowercase().str.contains(wanted, literal=True),
        id=pl.col("sample_id").str.starts_with(wanted),
    )
    rows = np.flatnonzero((names["name"] | names["id"]).to_numpy())
    rows = rows[np.argsort(view.rank[rows], kind="stable")]
    return {"total": len(rows), "items": _named(view, rows[:_MOST_FOUND], states=live.entries().states)}


def names(live: Live, ids: list[str]) -> dict[str, str]:
    """The names of samples by id, those that are in the pool alone."""
    view = live.view()
    return dict(view.samples.select("sample_id", "uri")[view.rows_of(ids)].iter_rows())


def decided(live: Live, *, start: int, count: int, show: str) -> dict[str, Any]:
    """What people decided and is still so, entry by entry of the ledger, the last one first."""
    view, entries = live.view(), live.entries()
    table = entries.decided if show == "all" else entries.decided.filter(reason=show)
    grouped = table.group_by("entry").agg(
        pl.col("reason", "created", "request").first(), pl.len().alias("count"), pl.col("sample_id")
    )
    shown = grouped.sort("entry", descending=True).slice(start, count)
    told = []
    for row in shown.to_dicts():
        rows = view.rows_of(row["sample_id"])
        rows = rows[np.argsort(view.rank[rows], kind="stable")]
        told.append(
            {
                **{name: row[name] for name in ("entry", "created", "count")},
                "decision": row["reason"],
                "by": row["request"] or "",
                "picks": int((view.rank[rows] < view.picks).sum()),
                "items": _named(view, rows[:_OF_STRIP], states=entries.states),
            }
        )
    counts = dict(entries.decided.group_by("reason").len().iter_rows())
    return {"total": grouped.height, "images": table.height, "counts": counts, "start": start, "entries": told}


def decided_by(live: Live, entry: int) -> list[dict[str, Any]]:
    """The images of the pool that an entry of the ledger decides on, the first ranks first."""
    view, entries = live.view(), live.entries()
    rows = view.rows_of(entries.decided.filter(entry=entry)["sample_id"])
    rows = rows[np.argsort(view.rank[rows], kind="stable")][:MOST_AT_ONCE]
    return _named(view, rows, states=entries.states)


def arrivals(live: Live, *, start: int, count: int) -> dict[str, Any]:
    """What came with the last refresh, in the order in which the ranking wants it, and how unlike the rest it is."""
    view, states = live.view(), live.entries().states
    rows = np.flatnonzero(view.arrived)
    ordered = rows[np.argsort(view.rank[rows], kind="stable")]
    shown = ordered[start : start + count]
    items = _named(view, shown, states=states)
    for item, row in zip(items, shown.tolist(), strict=True):
        radius = None if view.rank[row] == NONE else view.ranking["radius"][int(view.rank[row])]
        item["distance"] = None if radius is None else round(float(radius), 3)
    radii = view.ranking["radius"].drop_nulls()
    middle = radii.median()
    return {
        "total": len(rows),
        "picks": int((view.rank[rows] < view.picks).sum()),
        "start": start,
        "median_distance": middle if isinstance(middle, float) and math.isfinite(middle) else None,
        "changed": decision.what_changed(view.commit),
        "is_first": view.former is None,
        "items": items,
    }


def quarantine(live: Live, *, start: int, count: int, reason: str) -> dict[str, Any]:
    """Files that were refused, by reason, with what would help."""
    view = live.view()
    kept = ("uri", "reason", "message")
    by_ingest = live_pool.load_quarantine(live.store, snapshots.read_snapshot(live.store, view.commit.listing))
    refused = pl.concat(
        [by_ingest.select(kept), chunks.refused(live.store, view.commit.encoder).select(kept)], how="vertical_relaxed"
    ).sort("reason", "uri")
    shown = refused.filter(pl.col("reason") == reason) if reason else refused
    return {
        "total": shown.height,
        "all": refused.height,
        "start": start,
        "reasons": sections.reasons(refused),
        "items": shown.slice(start, count).to_dicts(),
    }


def labels(live: Live) -> dict[str, Any]:
    """Batches, classes, and what the labels show."""
    view, entries = live.view(), live.entries()
    told = progress.run(live.store) if entries.labels.height else None
    classes = [] if told is None else told.classes.to_dicts()
    return {
        "batches": batches.listed(live.store).to_dicts(),
        "labelled": entries.labels.height,
        "accuracy": None if told is None or told.accuracy is None else _rounded(vars(told.accuracy)),
        "lacking": "" if told is None or told.accuracy is not None else told.lacking,
        "classes": [_rounded(row) for row in classes],
        "short": [] if told is None else told.short,
        "short_below": progress.SHORT,
        "out": int((entries.states[view.ranked] == OUT).sum()) if len(view.ranked) else 0,
    }


def doubtful(live: Live, *, count: int) -> dict[str, Any]:
    """Labels to look at again; `why_not` says what is missing where none can be checked."""
    try:
        found = label_errors.check(live.store)
    except ConfigError:
        why_not = (
            f"There are too few labels to compare: it takes two classes with at least {label_errors.FOLDS} labelled "
            "images each. Add labels with their classes by `wtl labels add FILE`, and look again."
        )
        return {"checked": 0, "items": [], "total": 0, "why_not": why_not}
    rows = found.table.head(count).select("sample_id", "uri", "label", "suggestion", "probability", "reason")
    items = [{"id": row.pop("sample_id"), "name": row.pop("uri"), **_rounded(row)} for row in rows.to_dicts()]
    return {"checked": found.checked, "items": items, "total": found.table.height, "why_not": ""}


def recipe(live: Live) -> dict[str, Any]:
    """The recipe of the latest refresh, and what of the pool can steer it."""
    view = live.view()
    return {
        "selection": view.commit.recipe.selection.model_dump(mode="json"),
        "groupings": [group.described() for group in view.groupings],
        "numbers": [name for name in NUMBER_COLUMNS if name in view.samples.columns],
        "keys": view.metadata_keys,
        "picks": view.picks,
        "samples": view.samples.height,
        "workspace": live.store.root,
    }


def _why(view: View, row: int) -> list[str]:
    """Why an image has its rank, in sentences."""
    rank = int(view.rank[row])
    if rank == NONE:
        return ["It is not ranked: it is labelled or skipped, a filter leaves it out, or the encoder refused it."]
    told = view.ranking.row(rank, named=True)
    said = []
    if told["why"]:
        said.append(f"Labels: {told['why']}.")
    if rank == 0:
        said.append("The first pick: no other image stands for as many.")
    stands = int(told["stands_for"])
    if stands:
        said.append(
            f"When it was picked, {stands:,} image{'s were' if stands > 1 else ' was'} nearest to it of all picks."
        )
    else:
        said.append("When it was picked, an earlier pick was as near to every image.")
    radius = told["radius"]
    if radius is not None and math.isfinite(radius) and not (rank == 0 and not view.receipt.get("labelled_samples")):
        middle = view.ranking["radius"].head(max(view.picks, 1)).median()
        beside = f"; the median of all picks is {middle:.2f}" if isinstance(middle, float) else ""
        said.append(f"It is {radius:.2f} away from the nearest image picked or labelled before{beside}.")
    return said


def _named(view: View, rows: "np.ndarray | list[int]", *, states: np.ndarray | None = None) -> list[dict[str, Any]]:
    at = np.asarray(rows, np.int64)
    told = view.samples.select("sample_id", "uri")[at]
    named: list[dict[str, Any]] = [
        {"id": sample_id, "name": uri, "rank": None if rank == NONE else rank}
        for (sample_id, uri), rank in zip(told.iter_rows(), view.rank[at].tolist(), strict=True)
    ]
    if states is not None:
        for item, code in zip(named, states[at].tolist(), strict=True):
            item["state"] = STATES[code]
    return named


def _states(codes: np.ndarray) -> dict[str, int]:
    """How many images are in each state."""
    return {name: int((codes == code).sum()) for code, name in enumerate(STATES)}


def _nearest_labelled(live: Live, vector: np.ndarray, sample_id: str) -> dict[str, Any] | None:
    matrix, ids = live.labelled_vectors()
    if not len(ids):
        return None
    alike = matrix @ vector.astype(np.float32) / max(float(np.linalg.norm(vector.astype(np.float32))), 1e-9)
    order = [int(place) for place in np.argsort(-alike, kind="stable")[:2] if ids[place] != sample_id]
    if not order:
        return None
    view, found = live.view(), ids[order[0]]
    row = view.row_of(found)
    label = live.entries().labels.filter(pl.col("sample_id") == found)["classes"]
    return {
        "id": found,
        "name": view.samples["uri"][row] if row >= 0 else found,
        "rank": None,
        "similarity": round(float(alike[order[0]]), 3),
        "classes": None if label.is_empty() or label[0] is None else label[0].to_list(),
    }


def _ladder(rungs: pl.DataFrame) -> list[dict[str, Any]]:
    random = ("random_coverage_mean", "random_coverage_low", "random_coverage_high", "equivalent_random_count")
    return rungs.select("percent", "count", "coverage", *random).to_dicts()


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    """The values with floats that JSON can hold."""
    return {
        name: (round(value, 4) if math.isfinite(value) else None) if isinstance(value, float) else value
        for name, value in row.items()
    }
