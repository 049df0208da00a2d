"""Label Studio: a batch as tasks, and its JSON export, where controls hold the labels of each task's annotations.

Its CSV and its short JSON are tables.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

import polars as pl

from wtl_core.labelling.formats.rows import (
    Classes,
    LabelRows,
    Reading,
    classes_of,
    collect,
    picks_of,
    required,
    shown,
)
from wtl_core.labelling.formats.tables import name_of

MOST_TASKS, MOST_BYTES = 100_000, 200_000_000
"""In one file: the most that its guide recommends for a project, and the most that one request may bring (its API)."""
_LOCAL_FILES = "/data/local-files/"
"""How a task names a file of the server's own disk: the path below its root stands behind `?d=`."""


def tasks(images: pl.DataFrame) -> bytes:
    """A list of tasks: `image` is the address, the rest of `data` says why the image is there."""
    rows = zip(images["url"], picks_of(images), strict=True)
    return (json.dumps([{"data": {"image": url, **told}} for url, told in rows], indent=1) + "\n").encode()


def are_tasks(entries: Any) -> bool:
    """Whether JSON is a list of tasks with their annotations."""
    return isinstance(entries, list) and any(
        isinstance(entry, dict) and "data" in entry and {"annotations", "completions"} & entry.keys()
        for entry in entries[:1]
    )


def of_tasks(tasks: Sequence[Any], reading: Reading) -> LabelRows:
    """One row for each annotation that was submitted; a task without any is not labelled.

    An annotation that was submitted with nothing in it says that the image holds nothing of interest. One that holds
    texts, ratings or boxes without a label alone leaves the classes unknown.

    Raises:
        ValueError, LookupError, TypeError: an entry without what a task has, or several controls that hold classes.
    """
    if reading.bare_is_empty:
        raise ValueError("Label Studio's JSON, where an annotation without content is one: leave out --empty")
    labels: list[tuple[str, Classes]] = []
    unknown: list[str] = []
    controls: dict[str, None] = {}
    ends: dict[str, str] = {}
    for task in tasks:
        name = str(_name(required(task, "data", "a task"), reading))
        if {"project", "id"} <= task.keys():
            ends[local_path(name)] = f"/projects/{task['project']}/data?task={task['id']}"
        submitted = [entry for entry in _annotations(task) if not (entry.get("was_cancelled") or entry.get("skipped"))]
        if not submitted:
            labels.append((name, None))
        for annotation in submitted:
            used, given = _given(annotation, reading.class_column)
            controls.update(dict.fromkeys(used))
            classes = _classes(given)
            if classes is None:
                unknown.append(name)
            else:
                labels.append((name, classes))
    if reading.class_column is not None and reading.class_column not in controls:
        raise LookupError(f"no control {reading.class_column!r} among {shown(list(controls))}")
    if reading.class_column is None and len(controls) > 1:
        raise LookupError(
            f"several controls that hold classes, {shown(list(controls))} (--class-column NAME says which)"
        )
    rows = collect(labels)
    return LabelRows([*rows.names, *unknown], [*rows.classes, *([None] * len(unknown))], bare=rows.bare, tasks=ends)


def classes_of_annotation(annotation: Mapping[str, Any], control: str | None) -> Classes:
    """What a submitted annotation says of classes by this control, or by any if None is given.

    Raises:
        ValueError, LookupError, TypeError: it is no annotation, or a value in it is no class.
    """
    _, given = _given(annotation, control)
    return _classes(given)


def local_path(name: str) -> str:
    """The path below the server's own disk that a name stands for, in each of its exports; other names as they are."""
    return parse_qs(urlsplit(name).query).get("d", [name])[0] if name.startswith(_LOCAL_FILES) else name


def _annotations(task: Mapping[str, Any]) -> list[dict[str, Any]]:
    entries = task.get("annotations") or task.get("completions") or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise TypeError("a task whose annotations are no list of objects")
    return entries


def _given(annotation: Mapping[str, Any], control: str | None) -> tuple[list[str], list[Any] | None]:
    """The controls that hold classes, and the values of the one wanted, or of all; None if all is of another kind."""
    results = _results(annotation)
    given = [(name, value) for name, value in map(_of_result, results) if value is not None]
    wanted = [value for name, value in given if control in (None, name)]
    return [name for name, _ in given], wanted if wanted or not results else None


def _classes(given: list[Any] | None) -> Classes:
    """The classes of what `_given` returns: none where the annotation is empty, None where it says nothing of them."""
    return classes_of(given) if given else None if given is None else ()


def _results(annotation: Mapping[str, Any]) -> list[Any]:
    results = required(annotation, "result", "an annotation")
    if not isinstance(results, list):
        raise TypeError(f"an annotation whose result is no list, of type {type(results).__name__}")
    return results


def _of_result(result: Any) -> tuple[str, Any]:
    """The control that a result comes from, and what it says of classes; None for a text, a rating or a relation."""
    if not isinstance(result, dict):
        raise TypeError(f"a result that is no object, of type {type(result).__name__}")
    value = result.get("value")
    is_class = isinstance(value, dict) and any(
        key in ("choices", "taxonomy") or key.endswith("labels") for key in value
    )
    return str(result.get("from_name", "")), value if is_class else None


def _name(data: Any, reading: Reading) -> Any:
    """What names a task's image; where no field is known by its title, the only one that holds a text."""
    try:
        value = name_of(data, reading.column)
    except LookupError:
        texts = [held for held in data.values() if isinstance(held, str)]
        if reading.column is not None or len(texts) != 1:
            raise
        value = texts[0]
    return value
