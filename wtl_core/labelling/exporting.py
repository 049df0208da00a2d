"""A batch handed out: chosen, entered in the ledger, and written for a labelling tool."""

from contextlib import nullcontext
from dataclasses import dataclass
from datetime import date

from wtl_core.errors import ConfigError
from wtl_core.labelling import batch_files, batches
from wtl_core.labelling.batch_files import Wanted, Written
from wtl_core.labelling.batches import Asked, Batch
from wtl_core.workspace import lease
from wtl_core.workspace.storage import Store


@dataclass(frozen=True)
class Exported:
    """A batch, and what was written of it: nothing of an empty one, and nothing where it was only asked about."""

    batch: Batch
    written: Written


def export(store: Store, asked: Asked, how: Wanted, *, due: date | None = None, is_dry: bool = False) -> Exported:
    """Hand out the batch that is asked for, and write it. The ledger has it before the file is there.

    Args:
        store: The workspace, whose lease is held meanwhile.
        asked: Which images.
        how: From `batch_files.wanted`.
        due: The day by which it is to be labelled.
        is_dry: Enter and write nothing.

    Raises:
        ConfigError: as `batches.choose` and `batch_files.prepared`, and nothing is entered; or it could not be written,
            and the same call with the batch's name writes it.
        BusyError: another process writes to the workspace.
    """
    with nullcontext() if is_dry else lease.hold(store):
        batch = batches.choose(store, asked)
        images = batch_files.prepared(store, batch.table, how)
        if not is_dry:
            batch = batches.enter(store, batch, due=due)
    if is_dry or not batch.table.height:
        return Exported(batch, Written([]))
    try:
        return Exported(batch, batch_files.write(store, images, how))
    except ConfigError as error:
        again = f"the same call with `--name {batch.name}` writes it"
        raise ConfigError(f"{error}; {batch.name} is recorded, and {again}") from error
