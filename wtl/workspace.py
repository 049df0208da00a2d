"""A workspace, opened: its tables, images and labels, and the next refresh."""

from collections.abc import Mapping, Sequence
from html import escape
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl

from wtl.labels import Labels
from wtl.ladder import Ladder
from wtl.map import Map
from wtl.picks import Form, Picks, images_of
from wtl_core.errors import ConfigError, InputError
from wtl_core.labelling import cut
from wtl_core.pool import live_pool
from wtl_core.recipe.recipe import Recipe, build_recipe, parse_recipe
from wtl_core.workspace import commits, lease, marker, selections, snapshots
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.storage import Store

if TYPE_CHECKING:
    from PIL.Image import Image

    from wtl_core.labelling.skips import Skipped
    from wtl_core.report.summary import Summary
    from wtl_core.workspace.ledger import Reason


class Vectors(NamedTuple):
    """Unit vectors (N, D) float16, and the sample id of each row."""

    ids: list[str]
    array: np.ndarray


def open(place: str | PathLike[str], *, create: bool = False) -> "Workspace":  # noqa: A001, as `wtl.open`
    """The workspace in a folder or below an `s3://` prefix.

    Args:
        place: Where it lies.
        create: It may be new; `Workspace.refresh` then makes it.

    Raises:
        ConfigError: no workspace is there, or a newer program wrote it.
    """
    where = fspath(place)
    return Workspace(marker.probe_workspace(where) if create else marker.open_workspace(where))


class Workspace:
    """What a workspace holds, always as the last refresh left it; frames are polars'.

    Attributes:
        labels: Called, it gives the labels; `labels.add` and `labels.undo` change them.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.labels = Labels(store)

    @property
    def place(self) -> str:
        """Where it lies, as an absolute path or an `s3://` prefix."""
        return self._store.root

    def pool(self) -> pl.DataFrame:
        """One row an image, sorted by `sample_id`, without its bytes; the columns are in docs/workspace.md."""
        last = self._last()
        snapshot = snapshots.read_snapshot(self._store, last.listing)
        return live_pool.load(self._store, snapshot, filters=last.recipe.ingest.filters).samples

    def quarantine(self) -> pl.DataFrame:
        """One row a refused file, with the `reason`."""
        return live_pool.load_quarantine(self._store, snapshots.read_snapshot(self._store, self._last().listing))

    def ranking(self) -> pl.DataFrame:
        """One row a rank, best first; every operating point is a prefix."""
        return selections.read_ranking(self._store, self._last().selection)

    def ladder(self) -> Ladder:
        """What each per cent of the ranking covers, beside random picks."""
        key = self._last().selection
        receipt = selections.read_receipt(self._store, key)
        table = selections.read_ladder(self._store, key)
        return Ladder(table, advice=receipt.get("advice", ""), labelled=receipt.get("labelled_samples", 0))

    def vectors(self, ids: Sequence[str] | None = None) -> Vectors:
        """The vectors of these samples, or of all that are ranked, in rank order.

        Raises:
            InputError: a sample without a vector.
        """
        from wtl_core.embedding import vectors  # imports LanceDB

        wanted = self.ranking()["sample_id"].to_list() if ids is None else list(ids)
        return Vectors(wanted, vectors.load(self._store, self._last().encoder, wanted))

    def cut(self, at: int | str, *, split: str = "train") -> Picks:
        """The picks up to an operating point, a count or `"5%"`, without those that were labelled since the ranking.

        Nothing is recorded: `export` hands out batches. Images of `validation` and `test` come in a random order.

        Raises:
            ConfigError: no operating point, more images than are left, or no split.
        """
        return Picks(self._store, cut.run(self._store, str(at), split=split).table)

    def export(
        self,
        output: str | PathLike[str],
        *,
        new: int | None = None,
        at: int | str | None = None,
        form: str | None = None,
        control: str | None = None,
        name: str | None = None,
        due: str | None = None,
        urls: Mapping[str, str] | None = None,
        presign_seconds: int | None = None,
        link: bool = False,
        inline: bool = False,
        split: str = "train",
    ) -> Picks:
        """Hand out a batch for labelling, as `wtl export`: the ledger records it, and no image is in two batches.

        Args:
            output: The file or new folder to write.
            new: How many of the next images that no batch holds yet; or `at`.
            at: The images up to this operating point that no batch holds yet.
            form: A format of docs/labelling.md; the table that the file's ending says if None.
            control: How much of the batch is drawn at random, such as `10%`.
            name: Its name; the next number if None.
            due: When it is to be labelled: `3d`, `2w` or a date.
            urls: Beginnings of URIs, and what stands for them in addresses.
            presign_seconds: Images in a bucket get addresses that anyone can open for so long.
            link: Links to images instead of copies.
            inline: The images themselves in the place of their addresses.
            split: The side of the split.

        Returns:
            Its images in the order in which they are handed out; the columns `batch` and `place` say which and where.

        Raises:
            ConfigError: what is asked for is none, or cannot be written; the message says whether it is recorded.
        """
        from wtl_core.labelling import batch_files, batches, exporting

        if (new is None) == (at is None):
            raise ConfigError("export: expected one of new and at; say how many images")
        how = batch_files.wanted(
            Path(output), form, urls=urls or {}, presign_seconds=presign_seconds, is_link=link, is_inline=inline
        )
        asked = batches.Asked(at=None if at is None else str(at), new=new, control=control, name=name, split=split)
        day = None if due is None else batches.due_day(due)
        return Picks(self._store, exporting.export(self._store, asked, how, due=day).batch.table)

    def batches(self) -> pl.DataFrame:
        """One row a batch: how many of its images are back and out, and whether it is overdue."""
        from wtl_core.labelling import batches

        return batches.listed(self._store)

    def labelled(self, split: str | None = None) -> Picks:
        """The labelled images that are in the pool, or those of one side of the split; `.dataset()` trains on them."""
        known = self.labels().filter(pl.col("uri").is_not_null())
        if split is not None:
            sides = self.split().filter(pl.col("split") == split)
            known = known.join(sides, on="sample_id", how="semi", maintain_order="left")
        return Picks(self._store, known)

    def split(
        self,
        train: float | None = None,
        validation: float | None = None,
        test: float | None = None,
        *,
        group_by: str | Sequence[str] | None = None,
    ) -> pl.DataFrame:
        """The side of each image: `train`, `validation` or `test`; with shares the split is made, as by `wtl split`.

        Args:
            train: Per cent of the images; what the others leave if None.
            validation: Per cent; none if None.
            test: Per cent; none if None.
            group_by: A column or several whose equal values stay on one side; the recipe's if None.

        Raises:
            ConfigError: shares that do not sum to 100, or another split is there.
            InputError: a side would get no image.
        """
        from wtl_core.labelling import split_state

        if (train, validation, test) != (None, None, None):
            from wtl_core.labelling import splits

            columns = [group_by] if isinstance(group_by, str) else group_by
            asked = split_state.asked_of(self._store, (train, validation, test), columns)
            with lease.hold(self._store):
                splits.make(self._store, asked)
        return split_state.listed(self._store)

    def images(self, of: Picks | pl.DataFrame | Sequence[str], form: Form = "pil") -> list[Any]:
        """Pictures, in the order asked for.

        Args:
            of: Picks, a frame with `sample_id`, or sample ids.
            form: `pil` for PIL images in RGB, `tensor` for (3, H, W) uint8 tensors, `bytes` for the files as they are.

        Raises:
            InputError: samples that are not in the pool, or whose bytes can no longer be read.
        """
        if isinstance(of, Picks):
            return of.images(form)
        ids = of["sample_id"].to_list() if isinstance(of, pl.DataFrame) else list(of)
        return images_of(self._store, ids, form)

    def similar(self, image: "str | np.ndarray | bytes | Path | Image", count: int = 20) -> Picks:
        """The images of the pool that are most like a given one, nearest first, with their `similarity`.

        Args:
            image: A sample id or its beginning, or a path, URI or key of the pool's; a vector (D,) of this encoder; or
                an image that need not be in the pool, as a file's bytes, a `Path` or a PIL image.
            count: How many.

        Raises:
            ConfigError: a text that names no sample or several, or an encoder whose weights have been replaced.
            InputError: bytes that are no image, or a vector of another encoder.
        """
        from wtl_core.embedding import similar  # imports LanceDB
        from wtl_core.labelling import sample_names

        last = self._last()
        if isinstance(image, str):
            rows = similar.run(self._store, last, sample_names.find(self._store, image), count=count)
        else:
            vector = image if isinstance(image, np.ndarray) else self._embedded(image)
            rows = similar.by_vector(self._store, last, vector, count=count)
        schema = {"sample_id": pl.String, "uri": pl.String, "similarity": pl.Float64}
        return Picks(self._store, pl.DataFrame(rows, schema=schema))

    def map(self, at: int | str | None = None, *, height: int = 480) -> Map:
        """The map of the pool, for a notebook: a slider lights the first ranks, and labelled images are orange.

        It holds 100,000 images at most, those first that are ranked first, and pictures of the first 400.

        Args:
            at: The operating point that is lit at the beginning, a count or `"5%"`; the recipe's budget if None.
            height: Of the frame, in pixels.

        Raises:
            ConfigError: no operating point, or no refresh has placed the images on a map.
        """
        from wtl_core.report import small_map  # imports torch

        last = self._last()
        picks = last.counts.picks if at is None else cut.parsed(str(at)).within(max(1, last.counts.ranked))
        return Map(small_map.render(self._store, last, picks=picks), height=height)

    def _embedded(self, image: "bytes | Path | Image") -> np.ndarray:
        """The vector of an image from elsewhere, (D,) float32."""
        import torch

        from wtl_core.encoders import loading
        from wtl_core.images.decode import decode_rgb
        from wtl_core.images.faults import ImageError

        if isinstance(image, bytes | Path):
            try:
                planes = decode_rgb(image if isinstance(image, bytes) else image.read_bytes())
            except (ImageError, OSError) as error:
                where = "bytes" if isinstance(image, bytes) else str(image)
                raise InputError(f"{where}: expected an image, found: {error}") from error
        else:
            planes = torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1)
        encoder = loading.last_used(self._store, self._last(), device="cpu")
        if encoder is None:
            raise ConfigError(f"{self.place}: expected the encoder of the last refresh, found other weights; refresh")
        return np.asarray(encoder.encode(encoder.fit(planes).unsqueeze(0))[0])

    def skip(self, ids: Sequence[str], because: "Reason") -> "Skipped":
        """Say that images are `unusable` or `redundant`: neither is picked again, and redundant ones count as covered.

        Raises:
            ConfigError: an id of no image.
        """
        from wtl_core.labelling import skips

        with lease.hold(self._store):
            return skips.skip(self._store, list(ids), because)

    def unskip(self, ids: Sequence[str] = ()) -> "Skipped":
        """Take skips of these images back, or the last call of `skip` if none is named. Raises ConfigError."""
        from wtl_core.labelling import skips

        with lease.hold(self._store):
            return skips.undo(self._store, list(ids))

    def skipped(self) -> pl.DataFrame:
        """One row a skipped image, with the `reason`."""
        from wtl_core.labelling import skips

        return skips.listed(self._store)

    def refresh(
        self,
        *sources: str | PathLike[str],
        recipe: Recipe | Mapping[str, Any] | PathLike[str] | None = None,
        budget: int | str | None = None,
        encoder: str | None = None,
        forget: Sequence[str] = (),
        allow_removal: bool = False,
        workers: int | None = None,
        device: str = "auto",
    ) -> "Summary":
        """Bring it up to date with its sources, in this process and without Prefect: what `wtl run` does.

        Worker processes import the main module, so a script calls this below `if __name__ == "__main__":`.

        Args:
            *sources: Folders, buckets, shards or lists of URIs; all known ones if none is named.
            recipe: A recipe, its values, or the path of its TOML file; the workspace's last recipe if None.
            budget: How many images are picked; the recipe's if None.
            encoder: The encoder's name; the recipe's if None.
            forget: Known sources that leave the workspace with their images.
            allow_removal: Go on although more than half of a source has vanished.
            workers: Processes and threads that decode; one for each core if None.
            device: `auto`, `cpu` or a CUDA device.

        Raises:
            ConfigError, InputError, BusyError, TransientError: as docs/troubleshooting.md explains them.
        """
        from wtl_core import pipeline
        from wtl_core.machine import this_machine
        from wtl_core.report import summary

        before = commits.latest(self._store)
        asked = self._recipe(recipe, budget=budget, encoder=encoder)
        here = this_machine(workers=workers, device=device)
        done = pipeline.refresh_workspace(
            self._store, [fspath(s) for s in sources], asked, here, allow_removal=allow_removal, forget=forget
        )
        return summary.summary(self._store, done, is_new=done != before)

    def _recipe(
        self,
        given: Recipe | Mapping[str, Any] | PathLike[str] | None,
        *,
        budget: int | str | None,
        encoder: str | None,
    ) -> Recipe:
        from wtl_core.refresh import planning

        if isinstance(given, Recipe):
            base = given
        elif given is None:
            base = planning.base_recipe(self._store)
        elif isinstance(given, Mapping):
            base = build_recipe(dict(given), name="recipe")
        else:
            base = parse_recipe(Path(given).read_text(), name=fspath(given))
        return base.changed(budget=budget, encoder=encoder, name="refresh")

    def _last(self) -> Commit:
        last = commits.latest(self._store)
        if last is None:
            raise ConfigError(f"{self._store.root}: expected a refresh, found none yet; `refresh(SOURCE)` makes one")
        return last

    def __repr__(self) -> str:
        return f"wtl.Workspace({self.place!r})"

    def _repr_html_(self) -> str:
        last = commits.latest(self._store)
        if last is None:
            return f"<p>{escape(self.place)}: no refresh yet</p>"
        counts = last.counts
        ladder = self.ladder()
        told = ladder.at(max(1, counts.picks)).sentence if ladder.table.height else "Nothing is left to label."
        facts = {
            "place": self.place,
            "refresh": f"{last.number}, {last.created}",
            "pool": f"{counts.samples:,} images, {counts.quarantined:,} refused",
            "labelled": f"{self.labels().height:,}",
            "ranking": f"{counts.ranked:,} ranked, {counts.picks:,} picked",
            "encoder": f"{last.encoder_name}, {last.encoder[:12]}",
        }
        rows = "".join(f"<tr><th>{name}</th><td>{escape(value)}</td></tr>" for name, value in facts.items())
        return f"<p>{escape(told)}</p><table>{rows}</table>"
