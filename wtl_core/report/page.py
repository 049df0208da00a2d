"""The HTML report of a refresh: one file that loads nothing, where every name that came from outside is escaped.

Text and tables are written here; the map, the pictures and all that the slider moves are drawn by `report.js` and the
modules that it imports, from columns in the same file. Its Content-Security-Policy allows these scripts and this style
and nothing else, so that no name could run or load anything even if it were not escaped.
"""

import base64
import hashlib
import json
import re
import shlex
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
import numpy as np
import polars as pl

from wtl_core.pool.live_pool import Pool
from wtl_core.report import columns, decision, positions, previews, sections, small_pictures, version
from wtl_core.selection.label_weights import is_like, likely_classes
from wtl_core.training import succession
from wtl_core.workspace import commits, ledger, selections
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.storage import Store

_PERCENTS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 75, 100)
_MOST_ROWS, _COMPLETE = 110_000, 60_000
"""Images that a page holds, and ranks that are then complete. Of larger pools the rest is drawn from, so that the page
stays below 15 MB: an image takes some 60 bytes of it."""
_PICTURES, _PICTURE_BYTES = 5000, 6_800_000
"""Small pictures at most, and their bytes; base64 makes them a third larger."""
_WALL = 1500
"""Picks that have a picture, each with two of those that it stands for."""

_MODULES = ("shared.js", "dots.js", "map.js", "grid.js", "page_data.js", "ladder.js", "report.js")
_RUNGS = (
    "percent",
    "count",
    "coverage",
    "random_coverage_mean",
    "random_coverage_low",
    "random_coverage_high",
    "equivalent_random_count",
    "near_duplicate_rate",
)


def render(store: Store, commit: Commit, live: Pool, *, workers: int = 1) -> str:
    """The page for a refresh that is about to be committed.

    Positions and previews of images that have none yet are made and kept in the workspace, so its lease must be held.

    Args:
        store: The workspace.
        commit: The record; its selection is on disk.
        live: The pool that it speaks of.
        workers: Threads that decode pictures.
    """
    ranking = selections.read_ranking(store, commit.selection)
    rungs = selections.read_ladder(store, commit.selection)
    receipt = selections.read_receipt(store, commit.selection)
    entries = ledger.read(store, commit.ledger_length)
    labels = ledger.labels(entries)
    former = next((old for old in commits.readable(store, 2) if old.number < commit.number), None)
    facts = sections.gather(store, commit, live, ranking=ranking, entries=entries, former=former)
    samples, weight = _shown(live.samples, ranking, facts.rows)
    row_of = {sample_id: row for row, sample_id in enumerate(samples["sample_id"])}
    groups = columns.groupings(
        samples, group_by=commit.recipe.selection.group_by, classes=_classes(labels, ranking) if labels.height else {}
    )
    arrays, scales = _arrays(store, commit, samples, ranking, facts, entries, workers)
    texts = {name: columns.encoded(array) for name, array in arrays.items()}
    texts |= {f"group{place}": columns.encoded(group.codes) for place, group in enumerate(groups)}
    first, last = (samples["uri"][0], samples["uri"][-1]) if samples.height else ("", "")
    prefix = first[
        : next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), 0)
    ]  # of sorted names
    texts["names"] = columns.encoded_text([uri.removeprefix(prefix) for uri in samples["uri"]])
    pictures = _pictures(store, samples, ranking, facts.rows)
    chosen = [(row_of[sample_id], data) for sample_id, data in pictures.items()]
    texts["thumbRow"] = columns.encoded(np.array([row for row, _ in chosen], np.uint32))
    texts["thumbSize"] = columns.encoded(np.array([len(data) for _, data in chosen], np.uint16))
    told = {
        "number": commit.number,
        "ranked": ranking.height,
        "picks": commit.counts.picks,
        "labelled": receipt.get("labelled_samples", 0),
        "labelledInPool": facts.labelled_in_pool,
        "out": len(facts.out),
        "prefix": prefix,
        "complete": ranking.height if weight == 1 else _COMPLETE,
        "weight": weight,
        "rungs": rungs.select(_RUNGS).to_dicts(),
        "groupings": [group.described() for group in groups],
        "levels": scales,
        "chart": _chart_in_words(rungs),
    }
    script, style = script_of(*_MODULES), text_of("page.css")
    return _template().render(
        commit=commit,
        decision=decision.read(store, commit.selection).sentence,
        changed=decision.what_changed(commit),
        created=datetime.fromisoformat(commit.created).strftime("%-d %b %Y, %H:%M UTC"),
        version=version.version_text(),
        place=store.root,
        place_in_shell=shlex.quote(store.root),
        encoder_advice=succession.advice(commit),
        rungs=[row for row in rungs.to_dicts() if row["percent"] in _PERCENTS],
        shown=samples.height,
        complete=told["complete"],
        labelled=labels.height,
        labelled_in_pool=facts.labelled_in_pool,
        groupings=groups,
        picks_summary=selections.summary(store, commit.selection),
        receipt=receipt,
        recipe=commit.recipe.model_dump(mode="json"),
        told=as_json(told),
        columns=texts,
        thumbs=base64.b64encode(b"".join(data for _, data in chosen)).decode(),
        script=script,
        style=style,
        script_digest=digest(script),
        style_digest=digest(style),
        **facts.for_template(row_of),
    )


def as_json(value: Any) -> str:
    """JSON that may stand in a page: `<` and its like are escaped, so that no text in it can end the element."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def _shown(samples: pl.DataFrame, ranking: pl.DataFrame, needed: list[str]) -> tuple[pl.DataFrame, float]:
    """The samples that the page holds, by name, and for how many each one of the incomplete ranks stands.

    Ids are digests of content, so the smallest of them are a uniform draw.
    """
    ordered = samples.sort("uri", "sample_id")
    if samples.height <= _MOST_ROWS:
        return ordered, 1.0
    first = [*ranking["sample_id"].head(_COMPLETE), *needed]
    others = samples.filter(~pl.col("sample_id").is_in(first)).sort("sample_id")
    drawn = max(1, _MOST_ROWS - _COMPLETE)
    kept = [*first, *others["sample_id"].head(drawn)]
    return ordered.filter(pl.col("sample_id").is_in(kept)), max(1.0, others.height / drawn)


def _arrays(
    store: Store,
    commit: Commit,
    samples: pl.DataFrame,
    ranking: pl.DataFrame,
    facts: sections.Facts,
    entries: pl.DataFrame,
    workers: int,
) -> tuple[dict[str, np.ndarray], dict[str, list[float]]]:
    """The columns by name, and the values that the levels of the measures stand for."""
    embedded = samples.filter(~pl.col("sample_id").is_in(facts.without_vector))["sample_id"].to_list()
    placed = positions.update(store, commit.encoder, embedded)
    placed = samples.select("sample_id").join(placed, on="sample_id", how="left", maintain_order="left")
    by_rank = columns.ranks(samples, ranking)
    ids = samples["sample_id"]
    flags = np.zeros(samples.height, np.uint8)
    for bit, found in (
        (columns.LABELLED, ids.is_in(ledger.sample_ids(entries, "labelled")).to_numpy()),
        (columns.SKIPPED, ids.is_in(ledger.sample_ids(entries, "skipped")).to_numpy()),
        (columns.OUT, ids.is_in(facts.out).to_numpy()),
        (columns.ARRIVED, ids.is_in(list(facts.arrived)).to_numpy()),
        (columns.FILTERED, samples["is_filtered"].to_numpy()),
        (columns.REPEAT, by_rank["repeat"]),
    ):
        flags |= np.where(found, np.uint8(bit), np.uint8(0))
    x, y = columns.places(placed)
    arrays = {
        "x": x,
        "y": y,
        "rank": by_rank["rank"],
        "parent": by_rank["parent"],
        "stands": by_rank["stands"],
        "flags": flags,
        "near": columns.near_codes(samples, facts.near),
        "preview": previews.read(store, samples, workers=workers),
    }
    scales = {}
    for name in columns.MEASURES:
        arrays[name], scales[name] = columns.levels(samples[name].to_numpy())
    return arrays, scales


def _pictures(store: Store, samples: pl.DataFrame, ranking: pl.DataFrame, needed: list[str]) -> dict[str, bytes]:
    """Small pictures by id: those of the sections, then picks with two that they stand for each, then others."""
    wall = ranking.head(_WALL)["sample_id"].to_list()
    near = ranking.filter(pl.col("nearest_earlier").is_in(wall))
    near = near.sort("rank", descending=True).group_by("nearest_earlier", maintain_order=True).head(2)
    of_pick: dict[str, list[str]] = {}
    for pick, other in near.select("nearest_earlier", "sample_id").iter_rows():
        of_pick.setdefault(pick, []).append(other)
    wanted = [*needed, *(sample_id for pick in wall for sample_id in [pick, *of_pick.get(pick, [])])]
    others = samples.sort("sample_id")["sample_id"].head(_PICTURES).to_list()
    ordered = pl.DataFrame({"sample_id": list(dict.fromkeys([*wanted, *others]))[:_PICTURES]})
    chosen = ordered.join(samples, on="sample_id", how="inner", maintain_order="left")
    side = small_pictures.side_for(chosen.height, _PICTURE_BYTES)
    return small_pictures.read(store, chosen, side=side, budget_bytes=_PICTURE_BYTES)


def _classes(labels: pl.DataFrame, ranking: pl.DataFrame) -> dict[str, str]:
    """The class of each labelled sample whose class is known, several joined, and of others what labels say of them."""
    known = labels.filter(pl.col("classes").is_not_null()).select("sample_id", "classes")
    names = {name for found in known["classes"] for name in found}
    said = {reason: likely_classes(reason, names) for reason in ranking["why"].drop_nulls().unique()}
    likely = {
        sample_id: ", ".join(said[reason]) if is_like(reason) or len(said[reason]) == 1 else "(unsure)"
        for sample_id, reason in ranking.select("sample_id", "why").iter_rows()
        if reason is not None and said[reason]
    }
    return likely | {sample_id: ", ".join(found) or "(empty)" for sample_id, found in known.iter_rows()}


def _chart_in_words(rungs: pl.DataFrame) -> str:
    if rungs.is_empty():
        return ""
    shown = rungs.filter(pl.col("percent").is_in([1, 5, 10, 50]))
    points = [
        f"{row['percent']} % of the pool: {row['coverage']:.3f}, at random {row['random_coverage_mean']:.3f}"
        for row in shown.to_dicts()
    ]
    return f"Coverage by images to label. {'; '.join(points)}."


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("wtl_core.report", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.globals["share"] = _share
    return environment.get_template("page.html.j2")


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


@cache
def script_of(*names: str) -> str:
    """Modules of this folder as one, in this order: within a single file a module cannot import another one."""
    text = "\n".join(text_of(name) for name in names)
    return re.sub(r"^import [^;]*;\n|^export ", "", text, flags=re.MULTILINE)


def text_of(name: str) -> str:
    """A file of this folder that a page is made of."""
    return files("wtl_core.report").joinpath(name).read_text()


def digest(text: str) -> str:
    """As a Content-Security-Policy names a script or a style."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
