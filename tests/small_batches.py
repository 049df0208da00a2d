"""Batches written as `wtl export` writes them, for tests of the formats."""

from pathlib import Path
from typing import Any

from wtl_core.labelling import batch_files
from wtl_core.labelling.batch_files import Written
from wtl_core.labelling.batches import Batch
from wtl_core.workspace.storage import Store


def write_batch(store: Store, batch: Batch, output: Path, form: str | None = None, **how: Any) -> Written:
    wanted = batch_files.wanted(output, form, **how)
    return batch_files.write(store, batch_files.prepared(store, batch.table, wanted), wanted)
