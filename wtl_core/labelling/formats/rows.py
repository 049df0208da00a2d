"""What each reader of label files takes and returns, and how a value in a file becomes names of classes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from wtl_core.recipe.selection import EMPTY

Classes = tuple[str, ...] | None
"""Classes of an image: none for one that was looked at and holds nothing of interest, None where they are not known."""
PICK_COLUMNS = ("sample_id", "uri", "batch", "place", "rank", "is_control", "why", "stands_for", "split")
"""What is told of each image of a batch in formats that hold more than its name."""
_MOST_CHARACTERS = 200
"""Of a class name: what is longer is another column, such as a caption or an image as text."""
_SHOWN, _SHOWN_CHARACTERS = 3, 60


@dataclass(frozen=True)
class Reading:
    """How a file of labels is read, where its content leaves a choice.

    Attributes:
        column: Title of the column that names samples, if it is another one than those that are known.
        class_column: The same of the column that holds classes; in Label Studio's JSON the name of a control.
        separator: What stands between several classes in one text; None takes each text for one class.
        adds_up: Rows of one image give it several classes, as in a table of boxes; else they must agree.
        bare_is_empty: Images that a file lists without any annotation hold nothing of interest; else they are not
            labelled.
        renamed: Class names that are taken for others.
    """

    column: str | None = None
    class_column: str | None = None
    separator: str | None = None
    adds_up: bool = False
    bare_is_empty: bool = False
    renamed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LabelRows:
    """The labels in a file, in its order.

    Attributes:
        names: What names the image of each row, as it stands there; names may repeat.
        classes: Of each row.
        bare: Images that the file lists without a label; they are not among the rows.
        are_stems: The names are paths without an ending, of which the folders in front may be the tool's own.
        tasks: How the address of a name's task in a labelling tool ends; it counts where the name fits no sample.
    """

    names: list[str]
    classes: Sequence[Classes]
    bare: int = 0
    are_stems: bool = False
    tasks: Mapping[str, str] = field(default_factory=dict)


def classes_of(value: Any, separator: str | None = None) -> Classes:
    """The classes that a value gives, None for a blank one: a text, a whole number, a list, a value of Label Studio.

    `EMPTY` stands for none where it is alone; beside others it stays, since they contradict it.

    Raises:
        ValueError: a value that is no class, such as a fraction, a long text, or bytes that are no UTF-8.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, Mapping):
        return classes_of(_of_control(value))
    if isinstance(value, list | tuple):
        given = [names for names in (classes_of(item, separator) for item in value) if names is not None]
        return None if value and not given else _together(given)
    if isinstance(value, bytes):
        value = value.decode()  # text in Parquet that its writer did not mark as such
    if isinstance(value, float) and not value.is_integer():
        raise ValueError(f"the number {value:g} where the name of a class was expected")
    text = str(int(value)) if isinstance(value, float) else str(value)
    if not text.strip():
        return None
    if text.strip().lower() == EMPTY:
        return ()
    if separator is not None:
        return classes_of([part.strip() for part in text.split(separator)])
    if len(text) > _MOST_CHARACTERS:
        raise ValueError(f"a text of {len(text):,} characters where the name of a class was expected")
    return (text,)


def collect(
    labels: Sequence[tuple[str, Classes]], *, bare_is_empty: bool = False, are_stems: bool = False
) -> LabelRows:
    """The rows of a file in which images without a label have None as their classes."""
    kept = [(name, classes or ()) for name, classes in labels if bare_is_empty or classes is not None]
    names = [name for name, _ in kept]
    return LabelRows(names, [classes for _, classes in kept], bare=len(labels) - len(kept), are_stems=are_stems)


def required(entry: Any, key: str, what: str) -> Any:
    """The value of `key`. Raises LookupError if `entry`, called `what` in the message, is no object or lacks it."""
    if not isinstance(entry, Mapping) or key not in entry:
        raise LookupError(f"{what} without {key!r}")
    return entry[key]


def picks_of(images: pl.DataFrame) -> list[dict[str, Any]]:
    """`PICK_COLUMNS` of each image of a batch, as dictionaries."""
    return images.select(PICK_COLUMNS).to_dicts()


def shown(names: Sequence[str]) -> str:
    """The first few names for a message, long ones cut."""
    cut = [name if len(name) <= _SHOWN_CHARACTERS else f"{name[: _SHOWN_CHARACTERS - 3]}..." for name in names[:_SHOWN]]
    return ", ".join(map(repr, cut)) + (", ..." if len(names) > _SHOWN else "")


def _of_control(value: Mapping[str, Any]) -> Any:
    """What a result of Label Studio holds under the name of its control: choices, or one of several kinds of labels."""
    for key, held in value.items():
        if key == "choices" or key.endswith("labels"):
            return held or None  # a box that was drawn and given no label
        if key == "taxonomy" and isinstance(held, list):
            return [" / ".join(map(str, path)) if isinstance(path, list) else path for path in held]
    raise ValueError(f"an object with the keys {shown(list(map(str, value)))} where the name of a class was expected")


def _together(given: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    found = dict.fromkeys(name for names in given for name in names or (EMPTY,))
    return () if found.keys() == {EMPTY} else tuple(found)
