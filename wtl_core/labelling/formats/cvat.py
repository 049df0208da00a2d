"""CVAT: a batch as the manifest of a task's images, and labels in the JSON of a backup of tasks.

Its XML is in `xml_files`; its other exports are those of COCO, Datumaro, Pascal VOC and YOLO.
"""

import json
import re
from pathlib import PurePosixPath
from typing import Any

import polars as pl

from wtl_core.labelling.formats.rows import Classes, LabelRows, Reading, collect, required

_TASK, _ANNOTATIONS, _MANIFEST = "task.json", "annotations.json", "data/manifest.jsonl"
_VERSIONS = ("1.0", "1.1")


def manifest(images: pl.DataFrame) -> bytes:
    """A manifest of images, version 1.1: JSON lines, whose names are paths in a share or keys in a bucket.

    It has no place for anything else that is known of an image. Width and height are those of the image as it is looked
    at, as CVAT wants them.
    """
    lines: list[dict[str, object]] = [{"version": "1.1"}, {"type": "images"}]
    for name, width, height in images.select("name", "width", "height").iter_rows():
        ending = PurePosixPath(name).suffix
        lines.append({"name": name.removesuffix(ending), "extension": ending, "width": width, "height": height})
    return "".join(f"{json.dumps(line, separators=(',', ':'))}\n" for line in lines).encode()


def is_backup(files: dict[str, bytes]) -> bool:
    """Whether a folder or zip holds a task of CVAT, or tasks of a project in folders."""
    return any(_folder_of(name) is not None for name in files)


def of_backup(files: dict[str, bytes], reading: Reading) -> LabelRows:
    """One row for each image: the labels of its tags, shapes and tracks, which are names in a backup.

    Raises:
        ValueError, LookupError, TypeError: a part of a task that is missing, cut, of another version, or a video, whose
            frames have no names.
    """
    if reading.class_column is not None or reading.column is not None:
        raise ValueError("a backup of CVAT, which has no columns: leave out --column and --class-column")
    labels: list[tuple[str, Classes]] = []
    for folder in [found for found in map(_folder_of, files) if found is not None]:
        parts = {part: files.get(f"{folder}{part}") for part in (_TASK, _ANNOTATIONS, _MANIFEST)}
        if missing := [part for part, data in parts.items() if data is None]:
            raise LookupError(f"a backup of CVAT without {folder}{missing[0]}")
        task = json.loads(parts[_TASK] or b"")
        if (version := required(task, "version", "a task")) not in _VERSIONS:
            raise ValueError(
                f"{folder}{_TASK}: of version {version!r:.20}, where {' or '.join(_VERSIONS)} was expected"
            )
        known = {str(required(label, "name", "a label")) for label in task.get("labels") or []}
        names = _frames(parts[_MANIFEST] or b"", required(task, "data", "a task"), where=f"{folder}{_MANIFEST}")
        classes: dict[int, dict[str, None]] = {}
        for frame, label in _labelled(json.loads(parts[_ANNOTATIONS] or b"")):
            if frame not in range(len(names)):
                raise ValueError(f"{folder}{_ANNOTATIONS}: frame {frame!r:.20}, where the task has {len(names):,}")
            if known and label not in known:
                raise ValueError(f"{folder}{_ANNOTATIONS}: label {label!r:.60}, which is not among the task's labels")
            classes.setdefault(frame, {})[label] = None
        labels += [(name, tuple(classes[frame]) if frame in classes else None) for frame, name in enumerate(names)]
    return collect(labels, bare_is_empty=reading.bare_is_empty)


def _folder_of(name: str) -> str | None:
    """The folder of a task, with its slash, if the file is what makes it one."""
    return name.removesuffix(_TASK) if name == _TASK or name.endswith(f"/{_TASK}") else None


def _frames(manifest: bytes, data: Any, *, where: str) -> list[str]:
    """The names of a task's images, by the numbers of their frames."""
    lines = [json.loads(line) for line in manifest.decode().splitlines() if line.strip()]
    if not any(isinstance(line, dict) and line.get("type") == "images" for line in lines[:2]):
        raise ValueError(f"{where}: no manifest of images: those of videos name no frame; export CVAT for images 1.1")
    step = re.fullmatch(r"(?:step=(\d+))?", str(data.get("frame_filter") or ""))
    if step is None:
        raise ValueError(f"{where}: a task with the frame filter {data['frame_filter']!r:.40}, which is not known")
    names = [f"{required(line, 'name', 'an image')}{required(line, 'extension', 'an image')}" for line in lines[2:]]
    stop = data.get("stop_frame")
    return names[int(data.get("start_frame") or 0) : None if stop is None else int(stop) + 1 : int(step[1] or 1)]


def _labelled(jobs: Any) -> list[tuple[Any, str]]:
    """Frame and label of everything in the annotations of a task's jobs."""
    found = []
    for job in jobs if isinstance(jobs, list) else [jobs]:
        for kind in ("tags", "shapes"):
            found += [(required(entry, "frame", "an annotation"), entry) for entry in required(job, kind, "a job")]
        for track in required(job, "tracks", "a job"):
            shapes = required(track, "shapes", "a track")
            found += [(required(shape, "frame", "a shape"), track) for shape in shapes if not shape.get("outside")]
    return [(frame, str(required(entry, "label", "an annotation"))) for frame, entry in found]
