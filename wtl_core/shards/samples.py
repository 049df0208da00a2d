"""Members of one archive grouped as WebDataset does it: a base name's sidecars become its images' metadata."""

import json

from wtl_core.shards.objects import Entry

MOST_METADATA_BYTES = 64 * 1024
_MOST_MEMBERS, _MOST_BYTES = 64, 64 << 20
"""Members, and bytes of images, held back while a base name goes on: bounds memory where all names share one base."""


class SampleGroups:
    """Holds members until their base name ends, then gives them out with their metadata.

    The base is the path up to the first dot of the file name; members of a sample stand together. Large images may be
    given out before their base ends, with the sidecars before them alone.
    """

    def __init__(self) -> None:
        self._base: str | None = None
        self._entries: list[Entry] = []
        self._fields: dict[str, object] = {}
        self._num_members = self._num_bytes = 0

    def add(self, entry: Entry, sidecar: bytes | None = None) -> list[Entry]:
        """Take a member in order; give out those of the base name before it, if it ended."""
        done: list[Entry] = []
        base, suffix = split_key(entry.key)
        num_bytes = len(entry.data or b"")
        if base != self._base or self._num_members >= _MOST_MEMBERS:
            done = self.flush()
            self._base = base
        elif self._num_bytes + num_bytes > _MOST_BYTES:
            done = self._give_out()
        if sidecar is not None:
            entry.note = "sidecar"
            self._fields.update(parse_sidecar(suffix, sidecar))
        self._entries.append(entry)
        self._num_members += 1
        self._num_bytes += num_bytes
        return done

    def flush(self) -> list[Entry]:
        """Give out what is held; the sample ends here."""
        entries = self._give_out()
        self._base, self._fields, self._num_members = None, {}, 0
        return entries

    def _give_out(self) -> list[Entry]:
        entries, self._entries, self._num_bytes = self._entries, [], 0
        if self._fields:
            text = json.dumps(self._fields, sort_keys=True)
            for entry in entries:
                if entry.data is not None:
                    entry.metadata = text
        return entries


def is_sidecar(key: str, size: int) -> bool:
    """Whether a member is read as metadata."""
    return key.endswith((".json", ".txt", ".cls")) and size <= MOST_METADATA_BYTES


def split_key(key: str) -> tuple[str, str]:
    """Base and field of a member's name: `a/b.seg.png` is `a/b` and `seg.png`."""
    folder, slash, name = key.rpartition("/")
    base, _, field = name.partition(".")
    return folder + slash + base, field


def parse_sidecar(field: str, data: bytes) -> dict[str, object]:
    """Fields of one sidecar: a JSON object's own, else the text under the sidecar's suffix. Never raises."""
    text = data.decode("utf-8", "backslashreplace").strip()
    if field.endswith("json"):
        try:
            value = json.loads(text, parse_constant=lambda name: name)
        except (ValueError, RecursionError):
            value = text
        return value if isinstance(value, dict) else {field: value}
    return {field: int(text) if field.endswith("cls") and text.isdecimal() and len(text) < 18 else text}
