"""How a workspace is recognised (a folder or prefix with `wtl.json` at its root), and where its files lie."""

import json
import tempfile
from pathlib import Path

from wtl_core.errors import ConfigError, CorruptArtifactError
from wtl_core.workspace import storage
from wtl_core.workspace.lease import LEASE
from wtl_core.workspace.storage import Store

MARKER = "wtl.json"
FORMAT = 2
"""The highest `format` of a JSON record of a workspace that this version reads; a record without one has 1. Raised when
an older version could no longer read what a newer one writes, or would go wrong with it; a new field alone does not
raise it. 2: a commit whose listing is a difference."""
_MARKER_FORMAT = 1
"""Of the marker: older versions read a workspace until a record of it says otherwise."""


def check_format(found: int, *, where: str) -> None:
    """Refuse a file whose form this version does not know. Call before anything else of it is read.

    Fields that this version does not know need no other form: readers pass them by and keep them.

    Args:
        found: The file's `format`; a record without one has format 1.
        where: The file, as the message names it.

    Raises:
        ConfigError: a newer version wrote it.
    """
    if found > FORMAT:
        raise ConfigError(
            f"{where}: written by a newer wtl (format {found}; this one reads up to {FORMAT}): update wtl"
        )


def open_workspace(uri: str) -> Store:
    """The store of an existing workspace.

    Raises:
        ConfigError: nothing is there, it is no workspace, its path is not UTF-8, or a newer program wrote it.
    """
    store = _store_of(uri)
    if not store.exists(MARKER):
        near = [place for place in _around(store) if (Path(place) / MARKER).is_file()]
        remedy = f"did you mean {near[0]}" if near else "name the one that `wtl run SOURCE` made"
        raise ConfigError(f"{uri}: expected a workspace, found none ({MARKER} is missing); {remedy}")
    _check_format(store)
    return store


def _store_of(uri: str) -> Store:
    store = storage.open_store(uri)
    try:
        store.root.encode()
    except UnicodeEncodeError as error:  # Parquet files below it could not be opened
        raise ConfigError(
            f"{store.root!r}: expected a path of the workspace in UTF-8, found another; rename it"
        ) from error
    return store


def _around(store: Store) -> list[str]:
    """The folder above a local one and those in it, where its workspace may be."""
    if not store.is_local or not Path(store.root).is_dir():
        return []
    return [str(Path(store.root).parent), *(store.path(name) for name in store.names(""))]


def probe_workspace(uri: str) -> Store:
    """The store of a workspace that exists or could be made there. Touches nothing.

    Raises:
        ConfigError: the path is a file or not UTF-8, or a folder of other things, or a newer program's workspace.
    """
    store = _store_of(uri)
    if store.is_local and Path(store.root).exists() and not Path(store.root).is_dir():
        raise ConfigError(f"{uri}: expected a folder for the workspace, found a file; name another path")
    if store.exists(MARKER):
        _check_format(store)
        return store
    # a first run killed before it wrote the marker leaves its lease
    others = [name for name in store.names("") if not name.startswith((storage.TEMPORARY_PREFIX, LEASE))]
    if others:
        raise ConfigError(
            f"{uri}: expected a workspace or an empty folder, found {len(others)} other entries ({others[0]!r} is one) "
            f"and no {MARKER}; name a new folder"
        )
    return store


def check_writable(store: Store) -> None:
    """Refuse a local folder that cannot be made or written in, before anything starts. A bucket is not asked.

    Raises:
        ConfigError: a file stands in the way, or the system refuses.
    """
    if not store.is_local:
        return
    place = Path(store.root)
    there = next(path for path in (place, *place.parents) if path.exists())
    if not there.is_dir():
        raise ConfigError(f"{place}: expected a folder for the workspace, found the file {there}; name another path")
    try:
        Path(tempfile.mkdtemp(prefix=storage.TEMPORARY_PREFIX, dir=there)).rmdir()
    except OSError as error:
        raise ConfigError(
            f"{place}: expected a folder that can be written, found that {there} cannot: {error.strerror}; change its "
            "permissions, or name another path"
        ) from error


def create_workspace(store: Store) -> None:
    """Put the marker there if it is missing, after a check that the store's conditional writes hold."""
    check_writable(store)
    if store.exists(MARKER):
        return
    storage.check_conditional_writes(store, f"{storage.TEMPORARY_PREFIX}probe")
    store.create(MARKER, json.dumps({"format": _MARKER_FORMAT}).encode() + b"\n")


def _check_format(store: Store) -> None:
    try:
        found = int(json.loads(store.read_bytes(MARKER))["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptArtifactError(
            f"{store.path(MARKER)}: expected {{'format': {_MARKER_FORMAT}}}; restore it, the rest of the workspace is "
            "untouched"
        ) from error
    check_format(found, where=store.root)
