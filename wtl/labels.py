"""The labels of a workspace: what the ledger holds, and what enters it."""

from typing import TYPE_CHECKING

import polars as pl

from wtl_core.workspace.storage import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wtl_core.labelling.labels import Undone


class Labels:
    """Called, it gives the present labels; its methods enter some, or take some back.

    Changes hold the workspace's lease for the moment that they take, as `wtl labels` does.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def __call__(self) -> pl.DataFrame:
        """One row a labelled image: `sample_id`, `uri`, `classes`, `created`, `origin`, `entry`.

        `classes` is a list: empty for an image that holds nothing of interest, null where the classes are not known.
        """
        from wtl_core.labelling import labels

        return labels.listed(self._store)

    def undo(self, ids: "Sequence[str]" = (), *, entry: int | None = None) -> "Undone":
        """Take back the labels of these images, or a whole entry of the ledger: the last one if none is given.

        Raises:
            ConfigError: there is nothing to take back.
        """
        from wtl_core.labelling import labels
        from wtl_core.workspace import lease

        with lease.hold(self._store):
            return labels.undo(self._store, list(ids), entry=entry)

    def __repr__(self) -> str:
        return f"Labels({self().height:,} images)"
