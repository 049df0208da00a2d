"""Batches: images that were handed out for labelling, each with a name, in the order in which they were handed out.

A batch holds the first picks of the ranking that no batch has handed out yet, and controls, the first images of one
fixed random order of the pool that no batch has handed out yet (see `selection.control_draw`).
"""

import json
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl

from wtl_core.errors import ConfigError
from wtl_core.labelling import cut
from wtl_core.pool import live_pool
from wtl_core.selection.control_draw import random_order
from wtl_core.workspace import commits, ledger, snapshots
from wtl_core.workspace.sides import TRAIN
from wtl_core.workspace.storage import Store

COLUMNS = ("batch", "place", "is_control", *cut.COLUMNS)


@dataclass(frozen=True)
class Asked:
    """Which images a batch holds.

    Attributes:
        at: An operating point: the images of the ranking up to it that no batch has handed out yet.
        new: The next so many of them; one of both is given.
        control: The share of the batch that is drawn at random: `10%`, or a number of images; None for none.
        name: The batch's name; None takes the next number.
        to: The project of a labelling tool that it is for; None for a file.
        split: The side of the split that they are from.
    """

    at: str | None = None
    new: int | None = None
    control: str | None = None
    name: str | None = None
    to: str | None = None
    split: str = TRAIN


@dataclass(frozen=True)
class Batch:
    """A batch.

    Attributes:
        name: Its name.
        table: Columns `COLUMNS`, in the order in which it is handed out. `why` says of every image why it is in it.
        is_new: It is not in the ledger, or was not before; a batch without images is never new.
        request: What was asked for, as the ledger keeps it.
        due: The day by whose end (UTC) it is to be labelled, as the ledger has it; None without one.
    """

    name: str
    table: pl.DataFrame
    is_new: bool
    request: str
    due: date | None = None


def due_day(text: str, today: date | None = None) -> date:
    """The day that `3d`, `2w` or `2026-12-01` mean, from `today` (in UTC, if not given).

    Raises:
        ConfigError: they mean none, or one that is past.
    """
    today = today or datetime.now(UTC).date()
    days = {"d": 1, "w": 7}.get(text[-1:])
    try:
        day = date.fromisoformat(text) if days is None else today + timedelta(days=int(text[:-1]) * days)
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"expected a day such as 3d, 2w or {today + timedelta(days=7)}, found {text!r}") from error
    if day < today:
        raise ConfigError(f"expected a day from today, {today}, on, found {text!r}")
    return day


def hand_out(store: Store, asked: Asked, *, is_dry: bool = False) -> Batch:
    """What `choose` says, entered in the ledger unless `is_dry`."""
    batch = choose(store, asked)
    if not is_dry:
        enter(store, batch)
    return batch


def choose(store: Store, asked: Asked) -> Batch:
    """The batch that is asked for; the same call on the same ranking gives the same batch. Reads only.

    A call that names a batch which is out gives it again from a later ranking too, in the words of that one, so that a
    file that was lost or not finished can be written: without the images that were skipped or have left the pool since.

    An image is in one batch at most. Images that are labelled or skipped are in none. Picks come by rank; controls
    stand between them in equal distances, so that a batch of which only a part comes back has its share of them.

    Raises:
        ConfigError: the workspace has no ranking yet, what is asked for is none, or the name is that of another batch.
    """
    _check(store, asked)
    last, ranked = cut.latest_ranking(store, split=asked.split)
    wanted = {"at": asked.at, "new": asked.new, "control": asked.control}
    wanted |= {"to": asked.to} if asked.to else {}
    wanted |= {} if asked.split == TRAIN else {"split": asked.split}
    request = json.dumps({**wanted, "name": asked.name, "selection": last.selection})
    entries = ledger.read(store)
    out = entries.filter(pl.col("kind") == "exported")
    earlier = out.filter(pl.col("batch") == asked.name if asked.name else pl.col("request") == request)
    if earlier.height:
        before = json.loads(earlier["request"][0])
        if not wanted.items() <= before.items() or before.get("split", TRAIN) != asked.split:
            told = f"expected the name of a new batch, found {asked.name!r}, which holds other images"
            raise ConfigError(f"{store.root}: {told}; `wtl batches` shows what is out")
        name, due = str(earlier["batch"][0]), earlier["due"][0]
        table = _described(store, last, ranked, name, earlier.select("sample_id", "is_control"), asked.split)
        present = table.filter(~_is_one_of(ledger.sample_ids(entries, "skipped")))
        return Batch(name, present, False, request, None if due is None else date.fromisoformat(due))
    ranked_ids = ranked.select("sample_id").collect()
    ids, controls = _chosen(ranked_ids, ledger.settled_ids(entries), out["sample_id"], asked)
    name = asked.name or next_name(entries)
    chosen = pl.DataFrame(
        {"sample_id": ids, "is_control": [sample_id in controls for sample_id in ids]},
        schema={"sample_id": pl.String, "is_control": pl.Boolean},
    )
    return Batch(name, _described(store, last, ranked, name, chosen, asked.split), bool(ids), request)


def enter(store: Store, batch: Batch, *, due: date | None = None) -> Batch:
    """Enter a batch in the ledger that is not in it yet; its images are then handed out.

    Returns:
        The batch with the day by which it is due: of one that is in the ledger, the day that it was entered with.

    Raises:
        TransientError: another process appended at the same moment.
    """
    if not batch.is_new:
        return batch
    controls = set(batch.table.filter("is_control")["sample_id"])
    ids, day = batch.table["sample_id"].to_list(), None if due is None else due.isoformat()
    ledger.append_batch(store, batch.name, ids, controls=controls, request=batch.request, due=day)
    return replace(batch, due=due)


def listed(store: Store, today: date | None = None, *, entries: pl.DataFrame | None = None) -> pl.DataFrame:
    """The batches, oldest first: `batch`, `created`, `images`, `controls`, and how many are `back`, `skipped` or `out`.

    An image is back when it is labelled; `last_back` is when the last label came, null for none. `due` is the day by
    which the batch was to be back, null for none, and `is_overdue` says that images are out after it; `today` is the
    day in UTC if not given. Exports of before there were batches are not in the table. `entries` is what `ledger.read`
    returns, all of the ledger if not given.
    """
    today = today or datetime.now(UTC).date()
    entries = ledger.read(store) if entries is None else entries
    labelled = ledger.labels(entries).select("sample_id", labelled_at="created")
    rows = entries.filter(pl.col("kind") == "exported", pl.col("batch").is_not_null())
    rows = rows.join(labelled, on="sample_id", how="left", maintain_order="left")
    counts = rows.group_by("batch", maintain_order=True).agg(
        pl.col("created", "due").first(),
        images=pl.len(),
        controls=pl.col("is_control").sum(),
        back=pl.col("labelled_at").count(),
        skipped=_is_one_of(ledger.sample_ids(entries, "skipped")).sum(),
        last_back=pl.col("labelled_at").max(),
    )
    out = counts.with_columns(out=pl.col("images") - pl.col("back") - pl.col("skipped"))
    is_late = (pl.col("due") < today.isoformat()).fill_null(value=False)
    return out.with_columns(is_overdue=is_late & (pl.col("out") > 0))


def next_name(entries: pl.DataFrame) -> str:
    """The next number as a batch's name that no batch has.

    Args:
        entries: What `ledger.read` returns.
    """
    known = set(entries["batch"].drop_nulls())
    number = len(known) + 1
    while f"batch-{number:03d}" in known:
        number += 1
    return f"batch-{number:03d}"


def meant_for(entries: pl.DataFrame, to: str) -> dict[str, Asked]:
    """The batches that are for a project of a labelling tool, by their names, oldest first, as they were asked for.

    Args:
        entries: What `ledger.read` returns.
        to: The project, as `Asked.to` names it.
    """
    named = entries.filter(pl.col("request").is_not_null()).unique("batch", keep="first", maintain_order=True)
    found = {batch: json.loads(request) for batch, request in named.select("batch", "request").iter_rows()}
    return {
        batch: Asked(at=request["at"], new=request["new"], control=request["control"], name=batch, to=to)
        for batch, request in found.items()
        if request.get("to") == to
    }


def _check(store: Store, asked: Asked) -> None:
    """Refuse what no batch can be. Raises ConfigError."""
    told = None
    if (asked.at is None) == (asked.new is None):
        told = "expected one of an operating point and a number of new images, found both or none"
    elif asked.new is not None and asked.new < 1:
        told = f"expected at least one new image, found {asked.new}"
    elif asked.name is not None and not _is_text(asked.name):
        told = f"expected the name of a batch in UTF-8, found {asked.name!r}"
    elif asked.control is not None and asked.split != TRAIN:
        told = f"expected no controls of {asked.split}, all of whose images are drawn at random; leave them out"
    if told:
        raise ConfigError(f"{store.root}: {told}; nothing is entered")


def _is_text(name: str) -> bool:
    """Whether it can be written down: an argument in another encoding cannot."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _chosen(
    ranked: pl.DataFrame, settled: list[str], handed_out: pl.Series, asked: Asked
) -> tuple[list[str], set[str]]:
    """The ids of a new batch in its order, and which of them are controls."""
    unsettled = ranked.filter(~_is_one_of(settled))
    is_out = pl.col("sample_id").is_in(handed_out.implode())
    open_ids = unsettled.filter(~is_out)["sample_id"].to_list()
    if asked.at is not None and unsettled.height:
        size = unsettled.head(cut.parsed(asked.at).within(unsettled.height)).filter(~is_out).height
    else:
        size = min(asked.new or 0, len(open_ids))
    if not size:
        return [], set()
    number = 0 if asked.control is None else cut.parsed(asked.control).of(size)
    controls = random_order(open_ids)[:number] if number else []  # seconds for a million
    drawn = set(controls)
    picks = [sample_id for sample_id in open_ids if sample_id not in drawn][: size - number]
    places = np.concatenate([(np.arange(len(ids)) + 0.5) / max(1, len(ids)) for ids in (picks, controls)])
    together = [*picks, *controls]
    return [together[place] for place in np.argsort(places, kind="stable")], drawn


def _described(
    store: Store, last: commits.Commit, ranked: pl.LazyFrame, name: str, chosen: pl.DataFrame, split: str
) -> pl.DataFrame:
    """The rows of a batch, with what the ranking says of them, without those that have left the pool."""
    ranks = ranked.filter(pl.col("sample_id").is_in(chosen["sample_id"].implode())).collect()
    rows = chosen.join(ranks, on="sample_id", how="left", maintain_order="left")
    told = cut.described(store, last, ranked, rows).with_columns(
        batch=pl.lit(name), is_control=chosen["is_control"], place=pl.int_range(1, pl.len() + 1)
    )
    picked = pl.format("stands for {} images", pl.col("stands_for").fill_null(0))
    is_ranked = pl.col("rank").is_not_null()
    picked = pl.when(is_ranked).then(picked).otherwise(pl.lit("picked from an earlier ranking"))
    picked = picked if split == TRAIN else pl.lit(f"drawn at random, for {split}")
    why = pl.when("is_control").then(pl.lit("drawn at random, as a control")).otherwise(pl.coalesce("why", picked))
    told = told.with_columns(why=why).select(COLUMNS)
    if told["uri"].null_count():  # the ranking holds no image that was labelled before it was made
        unranked = told.filter(pl.col("uri").is_null())["sample_id"]
        first = live_pool.first_uris(store, snapshots.read_snapshot(store, last.listing), unranked)
        told = told.join(first, on="sample_id", how="left", maintain_order="left")
        told = told.with_columns(uri=pl.coalesce("uri", "first_uri")).filter(pl.col("uri").is_not_null())
    return told.select(COLUMNS)


def _is_one_of(ids: list[str]) -> pl.Expr:
    return pl.col("sample_id").is_in(pl.Series(ids, dtype=pl.String).implode())
