"""Why an image is refused: one machine-readable reason per refusal, and the error that carries it."""

from enum import StrEnum


class Reason(StrEnum):
    """Every reason that a quarantine row can carry."""

    EMPTY = "empty"
    """Zero bytes."""
    NOT_AN_IMAGE = "not_an_image"
    """Named like an image; its first bytes are no image's."""
    TRUNCATED = "truncated"
    """The data ends, or its pixels end, before the image does."""
    CORRUPT = "corrupt"
    """The decoder refuses the data."""
    UNSUPPORTED = "unsupported"
    """An image, of a format or variant that is not read here."""
    TOO_MANY_PIXELS = "too_many_pixels"
    """The header announces more pixels than allowed; never decoded."""
    TOO_SMALL = "too_small"
    """A side is shorter than allowed."""
    TOO_LARGE = "too_large"
    """More bytes than allowed, before or after unpacking."""
    BROKEN_SHARD = "broken_shard"
    """The container cannot be read (further); members before the fault are kept."""
    MISSING = "missing"
    """Listed, and not there when it was read."""
    ACCESS_DENIED = "access_denied"
    """There, and not readable with the present credentials."""
    READ_ERROR = "read_error"
    """Reading failed, also after retries."""
    CHANGED = "changed_while_read"
    """Written to after it was listed; what is there now is read by the next run."""


TRANSIENT = frozenset({Reason.MISSING, Reason.ACCESS_DENIED, Reason.READ_ERROR, Reason.CHANGED})
"""Reasons that lie outside the bytes and may pass: such objects are tried again when they can be read."""


class ImageError(ValueError):
    """One image, or one shard, is refused."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message

    def __reduce__(self) -> tuple[type["ImageError"], tuple[Reason, str]]:
        return ImageError, (self.reason, self.message)
