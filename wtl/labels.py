"""The labels of a workspace: what the ledger holds, and what enters it."""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from wtl_core.workspace.storage import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wtl_core.labelling.labels import Added, Undone


class Labels:
    """Called, it gives the present labels; its methods enter some, or take some back.

    Changes hold the workspace's lease for the moment that they take, as `wtl labels` does.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def __call__(self) -> pl.DataFrame:
        """One row a labelled image: `sample_id`, `uri`, `classes`, `created`, `origin`, `entry`, `split`.

        `classes` is a list: empty for an image that holds nothing of interest, null where the classes are not known.
        """
        from wtl_core.labelling import labels

        return labels.listed(self._store)

    def add(
        self,
        labels: "pl.DataFrame | str | PathLike[str]",
        *,
        column: str | None = None,
        class_column: str | None = None,
        partial: bool = False,
        distinct: bool = False,
        rename: Mapping[str, str] | None = None,
        origin: str = "a frame",
    ) -> "Added":
        """Enter labels from a frame, or from a file as `wtl labels add` reads it. All are entered, or none.

        Args:
            labels: A row for each image: a column such as `sample_id`, `uri` or `path` names it, one such as `label`
                or `classes` has its class, or a list of them (empty: it holds nothing of interest). Or a file's path.
            column: The column that names images, where its title does not say so.
            class_column: The column that has classes, likewise.
            partial: Leave out rows that name no image or several; else they refuse all.
            distinct: Classes whose names differ in case, blanks, dashes or underscores alone are different ones.
            rename: Other names for classes.
            origin: What the ledger says of where a frame's labels are from.

        Raises:
            ConfigError: no column names images, or a file that cannot be read.
            InputError: names of no image, contradicting classes, or a class in two spellings; nothing is entered.
        """
        from wtl_core.labelling import labels as core
        from wtl_core.labelling.formats.rows import Reading
        from wtl_core.workspace import lease

        reading = Reading(column=column, class_column=class_column, renamed=dict(rename or {}))
        with lease.hold(self._store):
            if isinstance(labels, pl.DataFrame):
                return core.add_frame(
                    self._store, labels, reading, is_partial=partial, are_distinct=distinct, origin=origin
                )
            return core.add(self._store, Path(labels), reading, is_partial=partial, are_distinct=distinct)

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
