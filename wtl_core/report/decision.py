"""The sentence that decides, and the one about what changed, for the command line, the report and Prefect.

Coverage is the ladder's, here and everywhere: of other images, without an image itself and its near-duplicates.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from wtl_core.workspace import selections
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.storage import Store

_EXAMPLE_PERCENT = 5
"""The cut that stands for a ranking of which everything is picked."""


@dataclass(frozen=True)
class Decision:
    """What labelling the first images of a ranking gives, by its ladder.

    Attributes:
        labels: The images to label that the figures speak of; 0 where nothing can be said.
        random_labels: Images at random that would cover as much.
        reached: Coverage as a share of what labelling everything would give, 0 to 1.
        more: As many labels again, or as many as are left.
        reached_with_more: The share with these too.
        sentence: All of it for a person.
    """

    labels: int
    random_labels: int
    reached: float
    more: int
    reached_with_more: float
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """The fields as a dictionary."""
        return asdict(self)


def read(store: Store, selection: str, picks: int | None = None, *, settled: int = 0) -> Decision:
    """The decision about the first `picks` of a selection, its own picks if None; for `settled` see `decide`."""
    if not store.exists(f"{selection}/receipt.json"):
        return _nothing("The ranking was deleted; `wtl run` makes one.")
    receipt, rungs = selections.read_receipt(store, selection), selections.read_ladder(store, selection)
    count = receipt["picks"] if picks is None else picks
    labelled = receipt.get("labelled_samples", 0)
    return decide(rungs, picks=count, rows=receipt["samples"], labelled=labelled, settled=settled)


def decide(rungs: pl.DataFrame, *, picks: int, rows: int, labelled: int, settled: int = 0) -> Decision:
    """The decision about the first `picks` of `rows` ranked images.

    Between two per cents of the ladder, figures lie on a straight line. Below its first one, and where all rows are
    picked, the sentence speaks of another number of labels than `picks`, and says so.

    Args:
        rungs: The ladder, as `ladder.parquet` holds it.
        picks: Images to label, from the first on.
        rows: Images that are ranked.
        labelled: Images that are labelled already.
        settled: Images among the first `picks` that were labelled or skipped since: the figures count them, and the
            sentence says so.
    """
    if rungs.is_empty():
        images = "1 image is" if labelled == 1 else f"{labelled:,} images are"
        return _nothing(f"Nothing is left to label: {images} labelled.")
    if not picks:
        return _nothing("No image is picked: the stop condition holds already.")
    last = rungs.unique("count", keep="last", maintain_order=True)  # in a small pool several per cents are one pick
    count, coverage = last["count"].to_numpy(), last["coverage"].to_numpy()
    whole = coverage[-1]
    if whole <= 0:
        return _nothing(f"{picks:,} are picked; the pool is too small or too much alike to say what they cover.")
    labels, before = picks, ""
    if picks >= rows:
        labels, before = int(rungs["count"][_EXAMPLE_PERCENT - 1]), f"All {rows:,} images are picked. "
    elif picks < count[0]:
        labels, before = int(count[0]), "Measured from 1 % on: "
    more = min(labels, rows - labels)
    reached, with_more = (float(np.interp(at, count, coverage)) / whole for at in (labels, labels + more))
    at_random = round(float(np.interp(labels, count, last["equivalent_random_count"].to_numpy())))
    beside = f" more, beside {labelled:,} that {'is' if labelled == 1 else 'are'} there," if labelled else ""
    new = labels - settled if picks == labels else labels
    if new < labels:
        beside = f"{beside or ','} with {settled:,} that {'was' if settled == 1 else 'were'} labelled or skipped since,"
    sentence = (
        f"{before}{new:,} {'label' if new == 1 else 'labels'}{beside} {'covers' if new == 1 else 'cover'} as "
        f"much as {at_random:,} random {'one' if at_random == 1 else 'ones'}: {_share(reached)} of what labelling "
        "everything would."
    )
    if more:
        sentence += f" {more:,} more: {_share(with_more)}."
    return Decision(new, at_random, round(reached, 4), more, round(with_more, 4), sentence)


def what_changed(commit: Commit) -> str:
    """What came and went since the refresh before, in counts; empty for the first refresh and where not known."""
    if commit.number == 1 or commit.changes is None:
        return ""
    changes = commit.changes
    parts = [f"+{changes.added:,} {'image' if changes.added == 1 else 'images'}"] if changes.added else []
    parts += [f"-{changes.gone:,}"] if changes.gone else []
    parts += [f"{changes.refused:,} refused ({changes.named()})"] if changes.refused else []
    parts += [f"{changes.handed_out:,} handed out"] if changes.handed_out else []
    parts += [f"{changes.labelled:,} labelled"] if changes.labelled > 0 else []
    parts += [f"{changes.relabelled:,} with other classes"] if changes.relabelled > 0 else []
    parts += [f"labels of {changes.unlabelled:,} taken back"] if changes.unlabelled > 0 else []
    parts += [f"{changes.skipped:,} skipped"] if changes.skipped else []
    sentence = f"Since refresh {commit.number - 1}: {', '.join(parts) or 'the same images and labels'}"
    if commit.pick_changes is not None:
        sentence += f"; {commit.pick_changes.in_words()}"
    return f"{sentence}."


def _nothing(sentence: str) -> Decision:
    return Decision(labels=0, random_labels=0, reached=0.0, more=0, reached_with_more=0.0, sentence=sentence)


def _share(value: float) -> str:
    """A share in whole per cents; less than all is never shown as all."""
    return f"{min(round(100 * value), 100 if value >= 1 else 99)} %"
