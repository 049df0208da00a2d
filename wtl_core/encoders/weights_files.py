"""Which files an encoder was loaded from, weights or a factory's code, and whether they have been replaced since."""

import logging
from collections.abc import Sequence
from pathlib import Path

from wtl_core.encoders import factory_source
from wtl_core.recipe import encoder_names
from wtl_core.workspace.commits import WeightsFile

_logger = logging.getLogger(__name__)


def weights_file(name: str) -> WeightsFile | None:
    """The record of the files that an encoder of this name is loaded from; None if it has none, or they are gone."""
    files = _files_behind(name)
    if not files:
        return None
    size, mtime_ns = _stamp(files)
    return WeightsFile(size=size, mtime_ns=mtime_ns, sha256=factory_source.digest(files))


def has_changed(before: WeightsFile | None, name: str) -> bool:
    """Whether the files of an encoder's name differ from `before`. They are read only if size or time differ.

    Files that are gone do not count as changed, so that the last result stands: all its vectors are there. A warning
    in the log says so, since the next run with something new to embed cannot do without them.
    """
    files = _files_behind(name)
    if not files:
        if _names_files(name):
            _logger.warning(
                "encoder %s: expected the files that it was loaded from, found none (current folder: %s); the last "
                "result stands, but new images cannot be embedded: put them back, or name another encoder",
                name,
                Path.cwd(),
            )
        return False
    if before is not None and (before.size, before.mtime_ns) == _stamp(files):
        return False
    now = weights_file(name)
    return before is None or now is None or now.sha256 != before.sha256


def _names_files(name: str) -> bool:
    parsed = encoder_names.parse_name(name)
    return parsed.kind in ("file", "python") or parsed.weights_path is not None


def _files_behind(name: str) -> list[Path]:
    """The weights file of a name, or the source of a factory; none of other names, or where it is not there."""
    parsed = encoder_names.parse_name(name)
    if parsed.kind == "python":
        return factory_source.source_files(parsed.value.partition(":")[0])
    path = parsed.value if parsed.kind == "file" else parsed.weights_path
    found = None if path is None else Path(path).expanduser()
    return [found] if found is not None and found.is_file() else []


def _stamp(files: Sequence[Path]) -> tuple[int, int]:
    """Bytes of all, and the latest time of change in nanoseconds."""
    looks = [path.stat() for path in files]
    return sum(look.st_size for look in looks), max(look.st_mtime_ns for look in looks)
