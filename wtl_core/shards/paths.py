"""Local paths as text and back. Plain paths stay as they are; names that are not UTF-8 become percent-encoded `file://`."""

import os
from urllib.parse import quote, unquote_to_bytes, urlsplit

from wtl_core.errors import ConfigError


def uri_of(path: str) -> str:
    """The text that stands for an absolute local path in listings and results."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "file://" + quote(os.fsencode(path))
    return path


def path_of(uri: str) -> str:
    """The local path behind a text from `uri_of`, or behind any `file://` URI."""
    if uri.startswith("file://"):
        return os.fsdecode(unquote_to_bytes(urlsplit(uri.replace("#", "%23").replace("?", "%3F")).path))
    return uri


def is_s3(uri: str) -> bool:
    """Whether the URI lies in a bucket."""
    return uri.startswith("s3://")


def split_s3(uri: str) -> tuple[str, str]:
    """Bucket and key of an `s3://` URI. Raises ConfigError if no bucket is named."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket:
        raise ConfigError(f"{uri}: expected s3://bucket/prefix, found no bucket; name one")
    return bucket, key


def resolve(uri: str, base: str) -> str:
    """An absolute URI for one that a list names; relative ones are meant below `base`, the list's folder.

    Raises:
        ConfigError: a scheme other than `file` and `s3`, no URI at all, a name that no file can have, or a list in a
            bucket that names a local file.
    """
    if not _is_name(uri):
        raise ConfigError(f"{uri[:100]!r}: expected a name in UTF-8 without zero bytes; mend the list")
    if is_s3(uri):
        return uri
    if "://" in uri and not uri.startswith("file://"):
        raise ConfigError(f"{uri[:100]!r}: expected a path, file:// or s3:// URI; copy the file to one of these first")
    if is_s3(base):
        if uri.startswith(("/", "file://")):
            # whoever writes to the bucket must not be able to name files of this machine
            raise ConfigError(f"{uri[:100]!r}: a list in a bucket may not name local files")
        return f"{base}/{uri}"
    try:
        path = path_of(uri)
    except ValueError as error:
        raise ConfigError(f"{uri[:100]!r}: expected a path or a file:// URI: {error}; mend the list") from error
    if "\0" in path:
        raise ConfigError(f"{uri[:100]!r}: expected a path without zero bytes; mend the list")
    return uri_of(os.path.normpath(os.path.join(base, path)))  # noqa: PTH118, names may not be UTF-8


def _is_name(uri: str) -> bool:
    """Whether a store or a file system can have such a name; JSON can spell halves of characters, which are none."""
    try:
        return b"\0" not in uri.encode()
    except UnicodeEncodeError:
        return False
