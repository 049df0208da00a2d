"""Hands out the next batch in a project of Label Studio when few tasks wait there, each image once.

The batch is entered in the ledger first, then pushed, and then the ledger notes which task shows which image. A run
that was killed in between is made good by the next one: what is in the project already is found there by the sample id
that every task carries, and only what is missing is pushed.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import polars as pl

from wtl_core.errors import ConfigError, TransientError
from wtl_core.labelling import addresses, batch_images, batches
from wtl_core.labelling.batches import Asked
from wtl_core.labelling.formats import rows
from wtl_core.labelling.tools import label_studio
from wtl_core.labelling.tools.label_studio import Project
from wtl_core.labelling.tools.params import ToolParams
from wtl_core.pool import live_pool
from wtl_core.workspace import ledger
from wtl_core.workspace.storage import Store

_CHUNK_TASKS = 100
"""In one request: what is lost, and pushed again, with an answer that does not come."""
_IMPORT_SECONDS, _LOOK_SECONDS = 120.0, 2.0
"""How long tasks may take to be there after the server has taken them, and between two looks."""


@dataclass(frozen=True)
class HandedOut:
    """What a look at the project came to.

    Attributes:
        project: Its address.
        waiting: Tasks that waited there before.
        batch: The new batch; None if enough tasks wait, or nothing is left to hand out.
        pushed: Images that became tasks.
        controls: Those of them that were drawn at random.
        found: Images that were there already, from a run that was cut short.
        doubled: Tasks beyond the first of an image, which somebody added by other ways.
        left_out: URIs of images to upload that are gone from their source, or that no browser shows.
        is_low: Fewer tasks waited than should.
    """

    project: str
    waiting: int
    batch: str | None = None
    pushed: int = 0
    controls: int = 0
    found: int = 0
    doubled: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    is_low: bool = False

    @property
    def is_due(self) -> bool:
        """Whether there was something to push, or to note in the ledger."""
        return bool(self.pushed or self.found)

    def told(self, *, is_dry: bool = False) -> str:
        """What was done, in a few words."""
        waited = f"{self.waiting:,} waited"
        if self.is_due:
            again = f", {self.found:,} were there already" if self.found else ""
            name = f"{self.batch}: " if self.batch else ""
            return f"{name}{self.pushed:,} {'to push' if is_dry else 'pushed'}{again}, {waited}"
        return f"nothing is left to hand out, {waited}" if self.is_low else f"nothing is due, {waited}"

    def to_json(self) -> dict[str, Any]:
        """What `wtl hand-out --json` prints."""
        return asdict(self)


def run(
    store: Store, project: Project, params: ToolParams, *, check: Callable[[], object] = lambda: None, is_dry: bool
) -> HandedOut:
    """Push what earlier runs did not, and a new batch if fewer than `params.low` tasks then wait.

    Args:
        store: The workspace, whose lease is held.
        project: The project.
        params: How large a batch is, how its images are addressed, and when it is due.
        check: Called before each request that adds tasks; raises if the lease is lost.
        is_dry: Enter and push nothing; say what would be.

    Raises:
        ConfigError: the workspace has no ranking, the tool cannot open an image that is not to be uploaded, or what
            `Project` raises.
        TransientError: what `Project` raises, or the tasks were taken and did not appear.
    """
    image_field, waiting = project.image_field(), project.waiting()
    entries = ledger.read(store)
    tables = _unplaced(store, project, entries)
    is_low = waiting + sum(table.height for table in tables) < params.low
    asked = Asked(new=params.batch, control=params.control, name=batches.next_name(entries), to=project.link)
    new = batches.choose(store, asked) if is_low else None
    tables += [new.table] if new else []
    tables = [_addressed(store, table, params) for table in tables if table.height]
    if not tables:
        return HandedOut(project.link, waiting, is_low=is_low)
    if new and not is_dry:
        batches.enter(store, new)
    images, there = pl.concat(tables), _by_sample(project.tasks())
    is_there = pl.col("sample_id").is_in(list(there))
    found, missing = images.filter(is_there), images.filter(~is_there)
    is_shown = pl.col("url").is_not_null() | pl.col("format").is_in(label_studio.UPLOADED)
    left_out = missing.filter(~is_shown)["uri"].to_list()
    pushed = missing.filter(is_shown)
    if not is_dry:
        gone = _push(store, project, pushed, image_field, there, check)
        left_out += gone
        pushed = pushed.filter(~pl.col("uri").is_in(gone))
        ids = pl.concat([found, pushed])["sample_id"].to_list()
        if ids:
            origins = [project.task_link(there[sample_id][0]) for sample_id in ids]
            ledger.append_from_tool(store, "placed", ids, origins=origins)
    return HandedOut(
        project.link,
        waiting,
        batch=new.name if new and new.table.height else None,
        pushed=pushed.height,
        controls=int(pushed["is_control"].sum()),
        found=found.height,
        left_out=left_out,
        doubled=[project.task_link(task) for tasks in there.values() for task in tasks[1:]],
        is_low=is_low,
    )


def _unplaced(store: Store, project: Project, entries: pl.DataFrame) -> list[pl.DataFrame]:
    """Of each batch for this project the images that no task is known of and that still want a label."""
    is_placed = (pl.col("kind") == "placed") & pl.col("origin").str.starts_with(f"{project.link}/")
    done = {*entries.filter(is_placed)["sample_id"], *ledger.settled_ids(entries)}
    is_open = ~pl.col("sample_id").is_in(done)
    tables = []
    for name, asked in batches.meant_for(entries, project.link).items():
        if entries.filter(pl.col("batch") == name, is_open).height:
            tables.append(batches.choose(store, asked).table.filter(is_open))
    return tables


def _addressed(store: Store, table: pl.DataFrame, params: ToolParams) -> pl.DataFrame:
    """What `batch_images.located` says of a batch's images, and `url`: null for those that are to be uploaded."""
    images = batch_images.located(store, table)
    urls: list[str | None] = []
    for uri, object_uri, key in images.select("uri", "object_uri", "key").iter_rows():
        url = addresses.address(uri, params.urls)
        is_inside = bool(key) and len(addresses.beginning(uri, params.urls) or "") <= len(object_uri)
        can_open = label_studio.can_open(url) and not is_inside
        if not (can_open or params.upload):
            raise ConfigError(
                f"expected an address of an image that Label Studio can open, found {url!r}; map its beginning in "
                '[labelling.urls] of the site file, such as "/data/photos/" = "http://files.example/", or '
                '"/data/a.tar#" = "http://files.example/a/" where an archive was unpacked, or let images be uploaded '
                "(upload = true); nothing is entered"
            )
        urls.append(url if can_open else None)
    return images.with_columns(url=pl.Series(urls, dtype=pl.String))


def _by_sample(tasks: Iterable[tuple[int, dict[str, Any]]]) -> dict[str, list[int]]:
    """The tasks of each sample id, first ones first."""
    found: dict[str, list[int]] = {}
    for task, data in tasks:
        if isinstance(sample_id := data.get("sample_id"), str):
            found.setdefault(sample_id, []).append(task)
    return found


def _push(
    store: Store,
    project: Project,
    images: pl.DataFrame,
    image_field: str,
    there: dict[str, list[int]],
    check: Callable[[], object],
) -> list[str]:
    """Add a task for each image, wait until all are in `there`, and return the URIs of those whose bytes are gone."""
    last = max((task for tasks in there.values() for task in tasks), default=0)
    gone, ids = list[str](), list[str]()
    for chunk in images.iter_slices(_CHUNK_TASKS):
        check()
        uploaded = _upload(store, project, chunk.filter(pl.col("url").is_null()))
        shown = [url or uploaded.get(uri) for url, uri in chunk.select("url", "uri").iter_rows()]
        gone += [uri for url, uri in zip(shown, chunk["uri"], strict=True) if url is None]
        data = [
            {**told, image_field: url} for url, told in zip(shown, rows.picks_of(chunk), strict=True) if url is not None
        ]
        if data:
            check()
            project.push(data)
        ids += [held["sample_id"] for held in data]
    deadline = time.monotonic() + _IMPORT_SECONDS
    while missing := [sample_id for sample_id in ids if sample_id not in there]:
        there.update(_by_sample(project.tasks(after=last)))
        if time.monotonic() > deadline:
            raise TransientError(
                f"{project.link}: expected {len(ids):,} new tasks, found {len(missing):,} of them missing "
                f"{_IMPORT_SECONDS:.0f} s after the server took them; the next run looks again"
            )
        if any(sample_id not in there for sample_id in ids):
            time.sleep(_LOOK_SECONDS)
    return gone


def _upload(store: Store, project: Project, images: pl.DataFrame) -> dict[str, str]:
    """The addresses of images that were stored in the project, by their URIs, without those whose bytes are gone."""
    found: dict[str, str] = {}
    for (part,), chosen in images.group_by("part", maintain_order=True):
        of_row = {row: (uri, name) for row, uri, name in chosen.select("row", "uri", "file_name").iter_rows()}
        for row, data in live_pool.read_images(store, str(part), list(of_row)):
            uri, name = of_row[row]
            if data is not None:
                found[uri] = project.upload(name, data)
    return found
