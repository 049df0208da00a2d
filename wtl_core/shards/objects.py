"""What a source lists and what its readers yield: two small records shared by all kinds of shard."""

from collections.abc import Iterator
from dataclasses import dataclass

from wtl_core.images import kinds
from wtl_core.images.faults import Reason

RETRY_MARK = "#again:"
"""Follows the etag of an object that is read once more although unchanged, with the part that failed to read it."""
MISSING_SIZE = -1
"""Size of an object that a list names and that is not there."""
SPECIAL_ETAG = "special"
"""Etag of sockets, pipes and devices, which are listed and never opened: opening one can wait for ever."""
REFUSED_ETAG = "refused"
"""Etag of an object that its store refuses to describe (denied, or encrypted with a key of its own). Its size is 0; the
attempt to read it says why."""


@dataclass(frozen=True, slots=True)
class SourceObject:
    """One object of a listing. `etag` is empty for local files, `mtime_ns` 0 where a store gives none."""

    source: str
    uri: str
    kind: str
    size: int
    mtime_ns: int
    etag: str

    @property
    def identity(self) -> str:
        """Equal as long as the bytes are the same: the size with the etag, or with the time where there is no etag."""
        return f"{self.size}:{self.etag or self.mtime_ns}"

    @property
    def plain_etag(self) -> str:
        """The etag that the store gave, without the mark of a second reading."""
        return self.etag.split(RETRY_MARK)[0]


@dataclass(slots=True)
class Entry:
    """One file or member that was seen.

    Attributes:
        key: Member name or row id, fit to be shown as text; "" for a loose file.
        ordinal: Position in its container, which tells members of one name apart.
        offset: Byte where the data begins in an uncompressed tar, else -1.
        size: Bytes.
        data: An image's bytes; None if there are none to decode.
        metadata: JSON text of what came beside the image, or None.
        reason: Why it is quarantined; None if it is an image or is ignored.
        note: Message of a refusal, or what an ignored member is.
    """

    key: str
    ordinal: int
    offset: int
    size: int
    data: bytes | None = None
    metadata: str | None = None
    reason: Reason | None = None
    note: str = ""


APPLE_DOUBLE = "AppleDouble, which macOS keeps beside a file"
"""Note of an ignored member that belongs to no sample."""

Entries = Iterator[Entry]


class ObjectChangedError(Exception):
    """An object is not the listed one any more; entries that were read of it do not count."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.uri = uri


def classify(entry: Entry, name: str, head: bytes) -> bool:
    """Whether the entry is an image to decode. If not, its `note` is set, and its `reason` if it claims to be one.

    Args:
        entry: The entry, with its size.
        name: Its full name, whose ending is what it claims to be.
        head: Its first bytes, which decide.
    """
    found = kinds.sniff_image(head)
    if found == "tiff" and kinds.is_unread_name(name):  # a camera's raw file begins like its thumbnail
        found = None
    if found is not None:
        return True
    if kinds.is_apple_double(name, head):
        entry.note = APPLE_DOUBLE
    elif not kinds.claims_image(name):
        entry.note = "not an image"
    elif entry.size == 0:
        entry.reason, entry.note = Reason.EMPTY, "named like an image, holds 0 bytes"
    elif kinds.is_unread_name(name):
        entry.reason, entry.note = Reason.UNSUPPORTED, f"image format of {name[-12:]!r} is not read here"
    else:
        entry.reason, entry.note = Reason.NOT_AN_IMAGE, f"named like an image, begins {head[:8]!r}"
    return False


def shown(name: bytes | str) -> str:
    """A name as text; bytes that are not UTF-8 are written as hexadecimal escapes."""
    raw = name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")
    return raw.decode("utf-8", "backslashreplace")
