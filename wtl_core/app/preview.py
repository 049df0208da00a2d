"""What a changed recipe would pick: computed in memory as a refresh would, and written nowhere.

One preview at a time for the whole server; another one ends it. It takes as long as the selection of a refresh does.
"""

import json
import threading
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from wtl_core.app.live import Live
from wtl_core.app.view import NONE, View
from wtl_core.embedding import chunks
from wtl_core.errors import WtlError
from wtl_core.pool import live_pool
from wtl_core.recipe.recipe import Recipe, build_recipe
from wtl_core.selection import columns, stage, stage_inputs
from wtl_core.selection.stage import Selected
from wtl_core.workspace import commits, ledger, snapshots
from wtl_core.workspace.commits import Commit


class _EndedError(Exception):
    """Another preview was asked for."""


@dataclass
class Job:
    """A preview under way, or done: with `error` in words, or with what was `made`.

    `since` says why its figures are not those of the refresh, where the ledger has moved since.
    """

    number: int
    recipe: Recipe
    view: View
    done: int = 0
    total: int = 0
    error: str = ""
    made: Selected | None = None
    since: str = ""
    is_ended: bool = False
    thread: threading.Thread | None = field(default=None, repr=False)


class Previews:
    """The server's one preview."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._lock = threading.Lock()
        self._job: Job | None = None

    def start(self, selection: dict[str, Any]) -> int:
        """Begin a preview of the recipe with other parameters of the selection; returns its number.

        Raises:
            ConfigError: a parameter is unknown or out of range.
        """
        view = self._live.view()
        values = commits.recipe_of(view.commit).model_dump(mode="json")
        values["selection"] |= selection
        recipe = build_recipe(values, name="recipe")
        with self._lock:
            if self._job is not None:
                self._job.is_ended = True
            job = Job(0 if self._job is None else self._job.number + 1, recipe, view)
            job.thread = threading.Thread(target=self._work, args=(job,), name="wtl-app-preview", daemon=True)
            self._job = job
            job.thread.start()
        return job.number

    def current(self) -> Job | None:
        """The preview that was asked for last."""
        return self._job

    def _work(self, job: Job) -> None:
        store, commit = self._live.store, job.view.commit

        def progress(done: int, total: int | None) -> None:
            job.done, job.total = done, total or 0
            if job.is_ended:
                raise _EndedError

        try:
            snapshot = snapshots.read_snapshot(store, commit.listing)
            samples = live_pool.load(store, snapshot, filters=job.recipe.ingest.filters).samples
            entries = ledger.length(store)
            settled = ledger.settled_ids(ledger.read(store, entries))
            job.since = _since(commit, settled, ledger.settled_ids(ledger.read(store, commit.ledger_length)))
            columns.check(samples, job.recipe.selection, settled=settled)
            inputs = stage_inputs.read_inputs(
                store,
                chunks.embeddable(store, samples, commit.encoder),
                job.recipe,
                encoder=commit.encoder,
                near_copy_distance=job.view.receipt.get("near_copy_distance"),
                ledger_length=entries,
            )
            job.made = stage.make(
                store, inputs, scale=job.view.receipt.get("scale"), device="cpu", on_progress=progress
            )
        except _EndedError:
            job.error = "another preview was asked for"
        except WtlError as error:
            job.error = str(error)
        except Exception as error:  # noqa: BLE001, a thread's error would be seen by nobody
            job.error = f"internal error, {type(error).__name__}: {error}"


def told(job: Job | None) -> dict[str, Any]:
    """A preview as the page reads it: its progress, and beside the ranking that stands what it would pick."""
    if job is None:
        return {"number": None, "is_done": True, "error": "", "result": None, "selection": None}
    result = None if job.made is None else _result(job, job.made)
    is_done = result is not None or bool(job.error)
    return {"number": job.number, "is_done": is_done, "done": job.done, "total": job.total, "error": job.error,
            "result": result, "selection": job.recipe.selection.model_dump(mode="json"),
            "refresh": job.view.commit.number}  # fmt: skip


def picks(job: Job, *, start: int, count: int) -> list[dict[str, Any]]:
    """The picks of a finished preview, each with the rank that it has now (`was`), None where it has none."""
    if job.made is None:
        return []
    rows = job.made.ranking.head(job.made.facts["picks"]).slice(start, count)
    places = [job.view.row_of(sample_id) for sample_id in rows["sample_id"]]
    ranks = [None if row < 0 or job.view.rank[row] == NONE else int(job.view.rank[row]) for row in places]
    told_of = rows.select("sample_id", "uri", "rank", "stands_for").iter_rows()
    return [
        {"id": sample_id, "name": uri, "rank": rank, "stands": stands, "was": was}
        for (sample_id, uri, rank, stands), was in zip(told_of, ranks, strict=True)
    ]


def as_toml(recipe: Recipe) -> str:
    """What of a recipe is not the default, as the TOML file that gives it."""
    lines: list[str] = []
    for section, values in recipe.model_dump(mode="json", exclude_defaults=True).items():
        _write_table(lines, section, values)
    return "\n".join(lines).strip() + "\n"


def _write_table(lines: list[str], name: str, values: dict[str, Any]) -> None:
    tables = {key: value for key, value in values.items() if isinstance(value, dict) or _are_tables(value)}
    lines.append(f"[{name}]")
    lines += [
        f"{_key(key)} = {_value(value)}" for key, value in values.items() if key not in tables and value is not None
    ]
    lines.append("")
    for key, value in tables.items():
        if isinstance(value, dict):
            _write_table(lines, f"{name}.{_key(key)}", value)
            continue
        for row in value:
            lines.append(f"[[{name}.{_key(key)}]]")
            lines += [f"{_key(inner)} = {_value(cell)}" for inner, cell in row.items() if cell is not None]
            lines.append("")


def _are_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else json.dumps(name)


def _value(value: Any) -> str:
    return json.dumps(value)


def _result(job: Job, made: Selected) -> dict[str, Any]:
    view, count = job.view, int(made.facts["picks"])
    now = set(view.ids(view.ranked[: view.picks]))
    then = made.ranking["sample_id"].head(count).to_list()
    return {
        "picks": count,
        "ranked": made.ranking.height,
        "before": view.picks,
        "stay": len(now.intersection(then)),
        "advice": made.facts["advice"],
        "is_short": bool(job.recipe.selection.quotas) and int(made.facts["quotas_until"]) < count,
        "since": job.since,
        "stop": made.facts["stop"].get("reason"),
        "coverage": _coverage_at(made.ladder, count),
        "random": _coverage_at(made.ladder, count, "random_coverage_mean"),
        "everything": _coverage_at(made.ladder, made.ranking.height),
        "groups": _groups(job, then),
        "toml": as_toml(job.recipe),
    }


def _since(commit: Commit, now: list[str], then: list[str]) -> str:
    """Why the figures are not those of the refresh: images that were labelled or skipped since, or are no more."""
    count = len(set(now) ^ set(then))
    if not count:
        return ""
    return (
        f"Since refresh {commit.number}, {count:,} {'image was' if count == 1 else 'images were'} labelled, skipped or "
        "taken back: the preview counts that, and the map's figures do not yet."
    )


def _coverage_at(ladder: pl.DataFrame, count: int, name: str = "coverage") -> float | None:
    """Coverage at the first rung of the ladder that has so many images."""
    rows = ladder.filter(pl.col("count") >= count)
    return round(float(rows[name][0]), 4) if rows.height else None


def _groups(job: Job, then: list[str]) -> list[dict[str, Any]]:
    """Of each group that the recipe divides by: its images, its picks now and by the preview."""
    view = job.view
    name = job.recipe.selection.group_by
    found = next((group for group in view.groupings if group.name == name), None)
    if found is None:
        return []
    rows = {"pool": found.codes, "now": found.codes[view.ranked[: view.picks]], "then": found.codes[view.rows_of(then)]}
    return [
        {"group": value, **{kind: int((codes == place).sum()) for kind, codes in rows.items()}}
        for place, value in enumerate(found.values)
    ]
