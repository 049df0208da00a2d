"""The files of a finished selection, `selections/<id>/`: ranking, ladder, receipt. Imports no torch."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import polars as pl

from wtl_core.errors import CorruptArtifactError
from wtl_core.workspace import marker
from wtl_core.workspace.commits import PickChanges
from wtl_core.workspace.storage import Store

VERSION = 13
"""Raised when the same inputs would give another ranking, ladder or receipt."""


@dataclass(frozen=True)
class SelectionRef:
    """A finished selection: `key` is its folder; coverage by per cent, `1` to `100`; entries of the ledger it is by.

    Where nothing is left to label there are no rows, no picks and no coverage.
    """

    key: str
    rows: int
    picks: int
    coverage: dict[str, float]
    random_coverage: dict[str, float]
    ledger_length: int


@dataclass(frozen=True)
class Summary:
    """What a selection says to a person; None where it has nothing to say.

    Attributes:
        advice: Sentences about what the next picks add and where choosing helps.
        stop_reason: What ended the picks: `budget`, a stop condition, `quotas`, or that nothing is left to label.
        quotas_until: Quotas hold for that many picks; None without quotas.
        quota_cost: Coverage at the budget that the quotas cost; None without quotas.
    """

    advice: str | None
    stop_reason: str | None
    quotas_until: int | None
    quota_cost: float | None


def reference(store: Store, key: str, *, ledger_length: int) -> SelectionRef:
    """What later stages need of a finished selection."""
    receipt, rungs = read_receipt(store, key), read_ladder(store, key)
    percents = [str(percent) for percent in rungs["percent"]]
    return SelectionRef(
        key=key,
        rows=receipt["samples"],
        picks=receipt["picks"],
        coverage=dict(zip(percents, rungs["coverage"].to_list(), strict=True)),
        random_coverage=dict(zip(percents, rungs["random_coverage_mean"].to_list(), strict=True)),
        ledger_length=ledger_length,
    )


def read_ranking(store: Store, key: str) -> pl.DataFrame:
    """The ranking of a selection, rank 0 first. `why` is null in rankings of before version 9, which lack it."""
    with _present(store, f"{key}/ranking.parquet"):
        ranking = store.read_frame(f"{key}/ranking.parquet")
    return ranking if "why" in ranking.columns else ranking.with_columns(why=pl.lit(None, pl.String))


def scan_ranking(store: Store, key: str) -> pl.LazyFrame:
    """What `read_ranking` returns, to be read in part: from a folder only the rows and columns that are collected."""
    with _present(store, f"{key}/ranking.parquet"):
        ranking = store.scan_frame(f"{key}/ranking.parquet")
        titles = ranking.collect_schema().names()
    return ranking if "why" in titles else ranking.with_columns(why=pl.lit(None, pl.String))


def read_ladder(store: Store, key: str) -> pl.DataFrame:
    """The ladder of a selection, 1 % first."""
    with _present(store, f"{key}/ladder.parquet"):
        return store.read_frame(f"{key}/ladder.parquet")


def read_receipt(store: Store, key: str) -> dict[str, Any]:
    """What the ranking was made from; keys of newer versions stay in it. A ConfigError if this one cannot read it."""
    with _present(store, f"{key}/receipt.json"):
        receipt: dict[str, Any] = json.loads(store.read_bytes(f"{key}/receipt.json"))
    marker.check_format(receipt.get("format", 1), where=store.path(f"{key}/receipt.json"))
    return receipt


def summary(store: Store, key: str) -> Summary:
    """What the receipt of a selection says to a person; all None if the selection was deleted."""
    receipt = read_receipt(store, key) if store.exists(f"{key}/receipt.json") else {}
    has_quotas = bool(receipt and receipt["selection"]["quotas"])
    return Summary(
        advice=receipt.get("advice"),
        stop_reason=receipt["stop"]["reason"] if "stop" in receipt else None,
        quotas_until=receipt.get("quotas_until") if has_quotas else None,
        quota_cost=receipt.get("quota_cost") if has_quotas else None,
    )


def kept_share(store: Store, old: str, new: str, *, settled: Sequence[str]) -> float | None:
    """Jaccard index of the open picks of the selection `old` and as many first ones of the ranking `new`.

    Old picks that are `settled` by now, labelled or skipped, are not open. None where the old ranking was deleted or no
    pick of it is open.
    """
    if not store.exists(f"{old}/ranking.parquet"):
        return None
    open_picks = _open_picks(store, old, settled)[: read_receipt(store, new)["picks"]]
    before, after = set(open_picks), set(_first(store, new, len(open_picks)))
    return len(before & after) / len(before | after) if before else None


def pick_changes(store: Store, old: str, new: str, *, settled: Sequence[str]) -> PickChanges | None:
    """How many open picks of a selection are picks of another one too; None where the old ranking was deleted.

    Old picks that are `settled` by now, labelled or skipped, are not open.
    """
    if not store.exists(f"{old}/ranking.parquet"):
        return None
    before, after = set(_picks(store, old)), set(_picks(store, new))
    still_open = set(_open_picks(store, old, settled))
    return PickChanges(open=len(still_open), stay=len(still_open & after), new=len(after - before))


def _open_picks(store: Store, key: str, settled: Sequence[str]) -> list[str]:
    closed = set(settled)
    return [pick for pick in _picks(store, key) if pick not in closed]


def _picks(store: Store, key: str) -> list[str]:
    return _first(store, key, read_receipt(store, key)["picks"])


def _first(store: Store, key: str, count: int) -> list[str]:
    """The samples of the first `count` ranks."""
    with _present(store, f"{key}/ranking.parquet"):
        return store.read_frame(f"{key}/ranking.parquet", ["sample_id"])["sample_id"].head(count).to_list()


@contextmanager
def _present(store: Store, key: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise CorruptArtifactError(
            f"{store.path(key)}: expected a selection's file, found none; delete its folder and run `wtl run` again"
        ) from error
