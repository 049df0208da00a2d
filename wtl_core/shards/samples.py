"""Members of an archive grouped as in WebDataset: sidecars become the metadata of the images of their base name."""

import json

from wtl_core.shards.objects import APPLE_DOUBLE, Entry

MOST_METADATA_BYTES = 64 * 1024
_MOST_MEMBERS, MOST_BYTES, _MOST_HELD = 64, 64 << 20, 4096
"""Members, and bytes of images, that are held while a base name goes on: bounds memory where all names share one base.
`_MOST_HELD` counts what macOS keeps beside files too, which holds no data."""


class SampleGroups:
    """Holds members until their base name ends, then gives them out with their metadata.

    The base is the path up to the first dot of the file name; the members of a sample follow each other. If they are
    large, images may be given out before their base ends, with the metadata of the sidecars that came before them. The
    files that macOS keeps beside others do not end a sample.

    Frames like `cam.0000.jpg` and `cam.0001.jpg` share a base by that rule; still `cam.0000.json` describes its own
    frame alone.
    """

    def __init__(self) -> None:
        self._base: str | None = None
        self._stem = ""
        self._entries: list[Entry] = []
        self._sidecars: list[tuple[str, bytes]] = []
        self._stems: set[str] = set()
        self._num_members = self._num_bytes = 0

    def add(self, entry: Entry, sidecar: bytes | None = None) -> list[Entry]:
        """Add the next member. Returns the members of the base name before it, if that has ended."""
        if entry.note == APPLE_DOUBLE:
            self._entries.append(entry)  # keeps its place, and does not end the sample
            return [] if len(self._entries) < _MOST_HELD else self._give_out()
        done: list[Entry] = []
        base, field = split_key(entry.key)
        stem = stem_of(field)
        num_bytes = len(entry.data or b"")
        is_full = self._num_members >= (2 * _MOST_MEMBERS if stem == self._stem else _MOST_MEMBERS)
        if base != self._base or is_full:
            done = self.flush()
            self._base = base
        elif self._num_bytes + num_bytes > MOST_BYTES:
            done = self._give_out()
        if sidecar is not None:
            entry.note = "sidecar"
            self._sidecars.append((field, sidecar))
        self._entries.append(entry)
        if entry.data is not None:
            self._stems.add(stem)
        self._stem = stem
        self._num_members += 1
        self._num_bytes += num_bytes
        return done

    def flush(self) -> list[Entry]:
        """Return all members that are held; the sample ends here."""
        entries = self._give_out()
        self._base, self._sidecars, self._stems, self._num_members = None, [], set(), 0
        return entries

    def _give_out(self) -> list[Entry]:
        entries, self._entries, self._num_bytes = self._entries, [], 0
        if not self._sidecars:
            return entries
        owned = {stem for field, _ in self._sidecars if (stem := stem_of(field)) and stem in self._stems}
        texts: dict[str, str | None] = {}
        for entry in entries:
            if entry.data is not None:
                stem = stem_of(split_key(entry.key)[1])
                if stem not in texts:
                    texts[stem] = self._metadata(stem, owned)
                entry.metadata = texts[stem]
        return entries

    def _metadata(self, stem: str, owned: set[str]) -> str | None:
        """JSON text of the sidecars that describe an image whose field has this stem."""
        fields: dict[str, object] = {}
        for field, data in self._sidecars:
            other = stem_of(field)
            if other and other == stem:
                fields.update(parse_sidecar(field.removeprefix(f"{stem}."), data))
            elif other not in owned and not (other and stem and owned):
                fields.update(parse_sidecar(field, data))
        return json.dumps(fields, sort_keys=True) if fields else None


def is_sidecar(key: str, size: int) -> bool:
    """Whether a member is read as metadata."""
    return key.endswith((".json", ".txt", ".cls")) and size <= MOST_METADATA_BYTES


def split_key(key: str) -> tuple[str, str]:
    """Base and field of a member's name: `a/b.seg.png` is `a/b` and `seg.png`."""
    folder, slash, name = key.rpartition("/")
    base, _, field = name.partition(".")
    return folder + slash + base, field


def stem_of(field: str) -> str:
    """A field without its last suffix: `seg` of `seg.png`, nothing of `jpg`."""
    return field.rpartition(".")[0]


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
