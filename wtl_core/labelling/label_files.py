"""Files that say which samples are labelled, and as what: told apart by what is in them. Looks into no workspace."""

import codecs
import io
import json
import lzma
import zipfile
import zlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from wtl_core.errors import ConfigError
from wtl_core.labelling.formats import coco, cvat, datumaro, label_studio, tables, xml_files, yolo
from wtl_core.labelling.formats.rows import LabelRows, Reading, shown

_FORMS = (
    "a table (CSV, TSV, Parquet, JSON lines, a JSON list of objects) with a column such as sample_id, path or filename "
    "or one that --column names; a JSON list of names; JSON of COCO, Datumaro or Label Studio; XML of CVAT or Pascal "
    "VOC; a folder or zip of YOLO's or Pascal VOC's files, or a backup of CVAT; or plain text with one name a line"
)
_REASON_CHARACTERS = 240
_ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")
_FOLDER_ENDINGS = (".txt", ".xml", ".json", ".jsonl", ".yaml", ".yml", ".names")
_BEFORE_XML = codecs.BOM_UTF8 + codecs.BOM_UTF16 + b" \t\r\n\0"
"""Bytes that may stand in front of the first `<`: marks of encodings, and what UTF-16 has beside it."""
_MOST_BYTES = 2 << 30
"""Of the files in a folder or zip together: labels of millions of images; a zip could unpack to any size."""
_UNREADABLE = (
    *(ValueError, TypeError, LookupError, ArithmeticError, RecursionError, pl.exceptions.PolarsError, yaml.YAMLError),
)
_NOT_UNPACKED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError)
"""What `zipfile` raises for archives that are cut, damaged (OSError from bzip2), or packed by an unknown method."""


def read(file: Path, reading: Reading | None = None) -> LabelRows:
    """The labels in a file, a folder or a zip, in its order.

    Where a table has a column of classes, or the form knows them, images without one are not labelled and are only
    counted; where it has none, every image that is named is labelled and its classes are unknown. A CSV or TSV of one
    column without a known title is plain text.

    Raises:
        ConfigError: no such file, or one that is none of the forms, or is cut; its content is not printed.
    """
    reading = reading or Reading()
    try:
        rows = _read(file, reading)
        for text in (*rows.names, *(name for classes in rows.classes for name in classes or ())):
            text.encode()  # JSON can spell halves of characters, which are none
    except FileNotFoundError as error:
        raise ConfigError(f"{file}: no such file") from error
    except OSError as error:
        raise ConfigError(f"{file}: expected a file of labels: {error.strerror or error}; check the path") from error
    except _UNREADABLE as error:
        reason = str(error).partition("\n")[0][:_REASON_CHARACTERS]
        if isinstance(error, UnicodeDecodeError):
            reason += ': if it is a table of another encoding, save it as UTF-8, which Excel calls "CSV UTF-8"'
        raise ConfigError(f"{file}: {reason}; expected {_FORMS}; check the file; nothing is entered") from error
    return replace(rows, names=list(map(label_studio.local_path, rows.names)))


def check_spared(file: Path) -> None:
    """Refuse to write over a file that holds labels, such as a table of picks that a person has filled in.

    Raises:
        ConfigError: it holds classes, or is a CSV or TSV of another encoding than UTF-8, which may hold some; or no
            file can have this name. A file that is not there, or that otherwise cannot be read as labels, may be
            written.
    """
    try:
        holds = file.is_file() and any(names is not None for names in read(file).classes)
    except ConfigError as error:
        is_text = file.suffix.lower() in (".csv", ".tsv")  # others, such as tars, are no text anyway
        if not (is_text and isinstance(error.__cause__, UnicodeDecodeError)):
            return
        holds = True
    except OSError as error:
        raise ConfigError(f"{file}: expected a file to write: {error.strerror}; name another file") from error
    if holds:
        told = "expected a file without labels, which would be lost, found one that may hold some"
        raise ConfigError(f"{file}: {told}; `wtl labels add` enters them; name another file, or move this one")


def _read(file: Path, reading: Reading) -> LabelRows:
    if file.is_dir():
        return _of_files(_folder(file), reading)
    data = file.read_bytes()
    if data.startswith(_ZIP_STARTS):
        return _of_files(_zipped(data), reading)
    return _of_bytes(data, file, reading)


def _of_bytes(data: bytes, file: Path, reading: Reading) -> LabelRows:
    if data[:4] == b"PAR1":
        return tables.of_parquet(data, reading)
    if data.lstrip(_BEFORE_XML).startswith(b"<"):
        return xml_files.of_xml({file.name: data}, reading)  # which says its encoding itself
    ending = file.suffix.lower()
    text = data.decode(json.detect_encoding(data))  # UTF-8, -16 or -32: such as PowerShell's `>` writes
    start = text.lstrip()[:1]
    if ending in (".jsonl", ".ndjson"):
        return _of_json(_lines(text), reading)
    if ending == ".json":
        return _of_json(json.loads(text), reading)
    if start in ("{", "["):  # a list of names may begin so too
        found = _json_or_lines(text)
        if found is not None:
            return _of_json(found, reading)
    separator = {".csv": ",", ".tsv": "\t"}.get(ending)
    table = tables.of_text(text, reading, separator=separator)
    if table is not None:
        return table
    if reading.column is not None or reading.class_column is not None:
        raise LookupError("plain text, which has no columns")
    return tables.of_names(text.splitlines(), reading)


def _json_or_lines(text: str) -> Any:
    """What JSON or JSON lines hold; None of a text that is neither."""
    for parse in (json.loads, _lines):
        with suppress(ValueError, RecursionError):
            return parse(text)
    return None


def _lines(text: str) -> list[Any]:
    entries = []
    for number, line in enumerate(text.split("\n"), 1):
        try:
            entries += [json.loads(line)] if line.strip() else []
        except json.JSONDecodeError as error:
            raise ValueError(f"line {number} is no JSON: {error.msg}") from error
    return entries


def _of_json(data: Any, reading: Reading) -> LabelRows:
    if coco.is_coco(data):
        return coco.of_coco(data, reading)
    if datumaro.is_datumaro(data):
        return datumaro.of_datumaro([data], reading)
    if label_studio.are_tasks(data):
        return label_studio.of_tasks(data, reading)
    if not isinstance(data, list):
        keys = f" with {shown(list(data))}" if isinstance(data, dict) else ""
        kind = type(data).__name__
        raise TypeError(f"JSON that is neither a list nor COCO's object, but of type {kind}{keys}")
    return tables.of_objects(data, reading)


def _of_files(files: dict[str, bytes], reading: Reading) -> LabelRows:
    """The labels in a folder or zip, by what it holds."""
    xml, json_files = ({name: data for name, data in files.items() if name.endswith(end)} for end in (".xml", ".json"))
    if cvat.is_backup(files):
        return cvat.of_backup(files, reading)
    if xml and yolo.holds_boxes(files):
        raise ValueError("XML and YOLO's text files in one folder: name one of them")
    if xml:
        return xml_files.of_xml(xml, reading)
    if yolo.is_yolo(files):
        return yolo.of_yolo(files, reading)
    if len(json_files) == 1:
        [data] = json_files.values()
        return _of_json(json.loads(data), reading)
    subsets = list(map(_json_or_lines, (data.decode(errors="replace") for data in json_files.values())))
    if subsets and all(map(datumaro.is_datumaro, subsets)):
        return datumaro.of_datumaro(subsets, reading)
    found = f"{len(json_files)} files of JSON: name one of them" if json_files else "no file that could be labels"
    raise ValueError(f"a folder or zip with neither XML nor YOLO's text files, but {found}")


def _folder(folder: Path) -> dict[str, bytes]:
    """The files below a folder that may be labels, by their paths in it, sorted."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _FOLDER_ENDINGS and path.is_file())
    _check_size(sum(path.stat().st_size for path in found))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def _zipped(data: bytes) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            found = [member for member in archive.infolist() if member.filename.lower().endswith(_FOLDER_ENDINGS)]
            found = [member for member in found if not member.filename.startswith("__MACOSX/")]
            _check_size(sum(member.file_size for member in found))
            found.sort(key=lambda member: member.filename)
            if secret := [member.filename for member in found if member.flag_bits & 1]:
                raise ValueError(f"a zip that is encrypted ({shown(secret)}); unpack it first")
            return {member.filename: archive.read(member) for member in found}
    except _NOT_UNPACKED as error:
        raise ValueError(f"a zip that cannot be unpacked: {error}") from error


def _check_size(size: int) -> None:
    if size > _MOST_BYTES:
        raise ValueError(f"{size >> 20:,} MiB of files that could be labels, at most {_MOST_BYTES >> 20:,} are read")
