"""The grid's cells and their results on disk: one small Parquet file for each finished cell.

The file is named by everything that the result depends on, so a rerun finds it, and a change makes another file.
Not here: which cells there are (`grid`), and how one is measured (`work`).
"""

import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from wtl_core.benchmark.params import LOOPS, RANKED, STEERED, WAITING, WITHOUT_VECTORS
from wtl_core.recipe.base import digest_of
from wtl_core.workspace.storage import Store

VERSION = 2
"""Raise when a cell would give another result."""
LOOP_VERSIONS = {"mc-dropout": 2}  # 2: by the entropy of the mean of 100 draws, judged without dropout
"""Raise when a cell of this loop alone would give another result."""
_NEAREST_VERSION = "2"  # 2: votes weighted by similarity
_PROBE_VERSION = "2"  # 2: vectors scaled as a whole

_COLUMNS = {
    "pool": "string", "strategy": "string", "judge": "string", "labels": "int64", "seed": "int64",
    "pool_size": "int64", "accuracy": "float64", "validation_accuracy": "float64", "usable": "int64",
    "classes": "int64", "rounds": "int64", "label_waits": "int64", "selection_seconds": "float64",
    "train_seconds": "float64", "device": "string",
}  # fmt: skip


@dataclass(frozen=True)
class GridCell:
    """One measurement: so many `labels` by a strategy out of a pool, judged once with one seed."""

    pool: str
    strategy: str
    judge: str
    labels: int
    seed: int

    @property
    def model(self) -> str:
        """Of a loop, the judge whose model chooses: `nearest` judges what a loop by `probe` chose."""
        return "probe" if self.judge == "nearest" else self.judge


@dataclass(frozen=True)
class Identity:
    """What results depend on beside the cell, as digests.

    Each enters only the cells that it matters to, so that a larger grid adds cells and keeps those that are finished.

    Attributes:
        pools: By kind: the set, the pool, its vectors, and the share of it that a seed has.
        images: By kind: the same without the vectors, for strategies and a judge that do not see them.
        scratch: The recipe of the network trained from scratch.
        loop: Rounds and candidates of loops.
        budgets: By kind of pool, rising; a cell of a strategy that waits for labels depends on those up to its own.
        ranking: The version of the selection that ranks.
        device: `cpu` or `cuda`.
    """

    pools: dict[str, str]
    images: dict[str, str]
    scratch: str
    loop: str
    budgets: dict[str, list[int]]
    ranking: str
    device: str

    def key(self, cell: GridCell) -> str:
        """Where a cell's result lies."""
        judges = {"scratch": self.scratch, "nearest": _NEAREST_VERSION, "probe": _PROBE_VERSION}
        is_ranked = cell.strategy in (*RANKED, STEERED)
        choice = self.loop if cell.strategy in LOOPS else self.ranking if is_ranked else ""
        sees_vectors = cell.judge != "scratch" or cell.strategy not in WITHOUT_VECTORS
        pool = (self.pools if sees_vectors else self.images)[cell.pool]
        identity = [VERSION, pool, judges[cell.judge], choice, self.device, *asdict(cell).values()]
        if cell.strategy in WAITING:
            earlier = [labels for labels in self.budgets[cell.pool] if labels <= cell.labels]
            identity += [earlier, LOOP_VERSIONS.get(cell.strategy, 1)]
        if cell.strategy in LOOPS and cell.model == "probe":
            identity.append(_PROBE_VERSION)
        return f"cells/{digest_of(identity)[:32]}.parquet"


@dataclass(frozen=True)
class Result:
    """The result of a cell.

    Attributes:
        cell: The cell.
        pool_size: Images to choose from.
        accuracy: On the test split, 0 to 1; 0 where no label names a class.
        validation_accuracy: On the validation split; NaN without one, and for loops by the judge that chooses.
        usable: Labels that name a class; the rest were outliers.
        classes: Classes among them.
        rounds: Models trained, or rankings steered, before the last label was asked for.
        label_waits: Times that somebody had to be asked.
        selection_seconds: All that was spent before the last label was asked for, encoder and vectors excluded.
        train_seconds: The judge's own training, without judging; of a loop with dropout, that of the model that asks.
        device: What it ran on.
        picks: Rows labelled; kept where a loop goes on from there.
    """

    cell: GridCell
    pool_size: int
    accuracy: float
    validation_accuracy: float
    usable: int
    classes: int
    rounds: int
    label_waits: int
    selection_seconds: float
    train_seconds: float
    device: str
    picks: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64), compare=False)


def write(store: Store, identity: Identity, result: Result) -> None:
    """Write a finished cell's file, at once as a whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = {**asdict(result.cell), **{name: value for name, value in vars(result).items() if name in _COLUMNS}}
    schema = pa.schema(
        [*((name, getattr(pa, kind)()) for name, kind in _COLUMNS.items()), ("picks", pa.list_(pa.int64()))]
    )
    table = pa.Table.from_pylist([{**row, "picks": result.picks.tolist()}], schema=schema)
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    store.write_bytes(identity.key(result.cell), buffer.getvalue())


def read(store: Store, identity: Identity, cell: GridCell) -> dict[str, Any] | None:
    """The row of a finished cell, None for an unfinished one."""
    import pyarrow.parquet as pq

    try:
        data = store.read_bytes(identity.key(cell))
    except FileNotFoundError:
        return None
    row: dict[str, Any] = pq.read_table(io.BytesIO(data)).to_pylist()[0]
    return row


def finished(store: Store) -> set[str]:
    """Keys of all finished cells, in one listing."""
    return {f"cells/{name}" for name in store.names("cells")}


def gather(store: Store, identity: Identity, cells: Iterable[GridCell]) -> list[dict[str, Any]]:
    """Rows of the finished ones among `cells`, in their order, without picks; also kept as `results.parquet`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [row for cell in cells if (row := read(store, identity, cell)) is not None]
    for row in rows:
        del row["picks"]
    buffer = io.BytesIO()
    schema = pa.schema([(name, getattr(pa, kind)()) for name, kind in _COLUMNS.items()])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), buffer)
    store.write_bytes("results.parquet", buffer.getvalue())
    return rows
