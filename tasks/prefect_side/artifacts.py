"""What a run shows in the Prefect UI at the end of each stage: tables, the ladder as a picture, the picks, events."""

import base64
import html
import logging
from collections.abc import Callable, Mapping
from functools import wraps
from typing import ParamSpec

import httpx
from prefect.artifacts import create_image_artifact, create_markdown_artifact, create_table_artifact
from prefect.events import Event, emit_event
from prefect.utilities.urls import url_for

from tasks.prefect_side.asset_events import materialised
from tasks.prefect_side.event_resources import workspace_resource
from wtl_core.embedding.chunks import Embedded
from wtl_core.encoders.encoder_ref import EncoderRef
from wtl_core.report import charts, decision
from wtl_core.workspace import selections
from wtl_core.workspace.accounts import PoolAccounts
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.run import Run
from wtl_core.workspace.selections import SelectionRef
from wtl_core.workspace.storage import Store

_PERCENTS = (1, 2, 5, 10, 20, 50)
_PICKS = 50
_LISTED = 10
_Given = ParamSpec("_Given")

_logger = logging.getLogger("wtl_core.artifacts")


def _without_failing_the_run(publish: Callable[_Given, None]) -> Callable[_Given, None]:
    """Log an error of the server instead of raising it: the stage is finished when its artifacts are published."""

    @wraps(publish)
    def publish_or_log(*args: _Given.args, **kwargs: _Given.kwargs) -> None:
        try:
            publish(*args, **kwargs)
        except httpx.HTTPError as error:
            _logger.warning("%s: the server shows less of this run: %s", publish.__name__, error)

    return publish_or_log


@_without_failing_the_run
def publish_pool(run: Run, accounts: PoolAccounts) -> None:
    """The row accounts after ingest."""
    counts = accounts.model_dump()
    event = materialised(run.store.root, "pool", counts)
    changes = {
        "shards new": run.changes.new,
        "shards changed": run.changes.changed,
        "shards gone": run.changes.gone,
    }
    _publish_rows("pool", f"{accounts.samples:,} samples, {accounts.new_samples:,} new", {**changes, **counts}, event)
    emit_completed(run.store, "ingest", counts)


@_without_failing_the_run
def publish_encoder(run: Run, encoder: EncoderRef) -> None:
    """Which network the vectors come from."""
    rows = {"name": encoder.name, "fingerprint": encoder.fingerprint, "dimensions": encoder.dimensions}
    _publish_rows("encoder", f"Encoder {encoder.name}, {encoder.fingerprint[:12]}", rows, None)
    emit_completed(run.store, "encoder", rows)


@_without_failing_the_run
def publish_vectors(run: Run, encoder: EncoderRef, embedded: Embedded) -> None:
    """How many samples have a vector, and how fast the new ones were made."""
    rate = f"{embedded.images / embedded.seconds:,.0f}" if embedded.seconds else "no new image"
    rows = {
        "vectors": embedded.vectors,
        "refused by the encoder": embedded.refused_samples,
        "images embedded now": embedded.images,
        "seconds": round(embedded.seconds, 1),
        "images a second": rate,
        "dimensions": encoder.dimensions,
        "encoder": encoder.fingerprint[:16],
        "table version": embedded.table_version,
    }
    event = materialised(run.store.root, "vectors", rows)
    _publish_rows("vectors", f"{embedded.vectors:,} vectors", rows, event)
    emit_completed(run.store, "embedding", rows)


@_without_failing_the_run
def publish_ranking(run: Run, selection: SelectionRef) -> None:
    """The ladder as a picture and a table, and the first picks."""
    coverage = {f"coverage at {p} %": selection.coverage[str(p)] for p in (1, 5, 10) if selection.rows}
    event = materialised(run.store.root, "ranking", {"rows": selection.rows, "selection": selection.key, **coverage})
    rows = {"ranked": selection.rows, "picks": selection.picks, "selection": selection.key}
    title = f"{selection.rows:,} ranked" if selection.rows else "Nothing is left to label"
    _publish_rows("ranking", title, rows, event)
    if selection.rows:
        _publish_ladder(run.store, selection)
        _publish_picks(run.store, selection)
    emit_completed(run.store, "selection", {**rows, **coverage})


@_without_failing_the_run
def publish_stages(store: Store, commit: Commit) -> None:
    """Row accounts and seconds by stage."""
    accounts = [{"what": name, "count": f"{count:,}"} for name, count in commit.counts.model_dump().items()]
    create_table_artifact(key="accounts", table=accounts, description=f"Refresh {commit.number}: row accounts")
    times = [{"stage": stage, "seconds": seconds} for stage, seconds in commit.seconds.items()]
    create_table_artifact(key="stages", table=times, description=f"Refresh {commit.number}: seconds by stage")
    emit_completed(
        store, "refresh", {"number": commit.number, "report": store.path(commit.report), **commit.counts.model_dump()}
    )


@_without_failing_the_run
def publish_report(store: Store, commit: Commit, sheet: bytes | None, address: str | None) -> None:
    """What the run has changed, its picture, and the way to its report, below the sentence that decides.

    Browsers follow no `file:` or `s3:` link from a page of the server, so a link needs the `address` of a server of
    reports; without one the command is shown that opens the report.
    """
    decided, changed = decision.read(store, commit.selection).sentence, html.escape(decision.what_changed(commit))
    path = html.escape(store.path(commit.report))
    way = f"`wtl report -w {html.escape(store.root)} --open` opens it: {path}"
    if address is not None:
        way = f"[Open the report]({address.rstrip('/')}/{commit.report})"
    picture = ""
    if sheet is not None:
        picture = f"![The first picks, and what arrived](data:image/jpeg;base64,{base64.b64encode(sheet).decode()})"
    parts = filter(None, [changed, picture, f"Report of refresh {commit.number}. {way}"])
    create_markdown_artifact(key="report", markdown="\n\n".join(parts), description=decided)


@_without_failing_the_run
def publish_tool(key: str, project: str, counts: Mapping[str, object]) -> None:
    """What a look at a labelling tool's project did, with a link to it. Names in it come from outside."""
    shown = {name.replace("_", " "): value for name, value in counts.items() if name != "project"}
    lines = [f"| {name} | {html.escape(_listed(value))} |" for name, value in shown.items()]
    table = "\n".join(["| what | found |", "|---|---|", *lines])
    create_markdown_artifact(key=key, markdown=f"[{project}]({project})\n\n{table}\n", description=project)


def _listed(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{count:,} {name}" for name, count in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value[:_LISTED])) + (f" and {len(value) - _LISTED:,} more" if value[_LISTED:] else "")
    return _shown(value)


def emit_completed(store: Store, stage: str, payload: Mapping[str, object]) -> None:
    """Send the event `wtl.<stage>.completed`, for automations."""
    resource = {"prefect.resource.id": workspace_resource(store.root), "prefect.resource.name": store.root}
    emit_event(f"wtl.{stage}.completed", resource=resource, payload=dict(payload))


def _publish_rows(key: str, description: str, rows: Mapping[str, object], event: Event | None) -> None:
    lines = [f"| {name} | {html.escape(_shown(value))} |" for name, value in rows.items()]
    table = "\n".join(["| what | value |", "|---|---|", *lines])
    # The UI finds an event by its day and id; url_for would write the whole time, and break the link.
    link = None if event is None else url_for("received-event", obj_id=event.id, occurred=event.occurred.date())
    footer = "" if link is None else f"\n\n[The event of this asset]({link})"
    create_markdown_artifact(key=key, markdown=f"{table}{footer}\n", description=description)


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _publish_ladder(store: Store, selection: SelectionRef) -> None:
    rungs = selections.read_ladder(store, selection.key)
    picture = base64.b64encode(charts.ladder_svg(rungs).encode()).decode()
    create_image_artifact(
        key="ladder-picture", image_url=f"data:image/svg+xml;base64,{picture}", description="Coverage against random"
    )
    shown = [row for row in rungs.to_dicts() if row["percent"] in _PERCENTS]
    names = ("percent", "count", "coverage", "random_coverage_mean", "equivalent_random_count")
    table = [{name: round(row[name], 4) for name in names} for row in shown]
    create_table_artifact(key="ladder", table=table, description="Coverage at each operating point, beside random's")


def _publish_picks(store: Store, selection: SelectionRef) -> None:
    """The first picks. File names come from outside, so they are escaped."""
    head = selections.read_ranking(store, selection.key).head(_PICKS)
    rows = [
        {
            "rank": row["rank"],
            "uri": html.escape(row["uri"]),
            "gain": round(row["gain"], 6),
            "pool coverage": round(row["coverage"], 4),
        }
        for row in head.to_dicts()
    ]
    create_table_artifact(key="picks", table=rows, description=f"The first {len(rows)} of {selection.rows:,} ranked")
