"""What the images of a batch are called in a labelling tool: their URIs, mapped as the user says, or presigned."""

import os
from collections.abc import Mapping, Sequence
from urllib.parse import quote

import fsspec

from wtl_core.workspace import storage

MOST_SECONDS = 7 * 86400
"""A URL that is signed as S3's version 4 has it is valid for seven days at most."""
_FILE = "file://"
"""How URIs of local files begin whose names are not UTF-8; these are percent-encoded."""


def absolute(urls: Mapping[str, str]) -> dict[str, str]:
    """The mapping with local beginnings made absolute, as those of URIs are; a `/` at their end stays."""
    full = {}
    for start, to in urls.items():
        end = "/" if start.endswith("/") and start.strip("/") else ""
        full[start if "://" in start else os.path.abspath(start) + end] = to  # noqa: PTH100 (links are kept)
    return full


def beginning(uri: str, urls: Mapping[str, str]) -> str | None:
    """The longest of the mapped beginnings that the URI has; None if it has none."""
    plain = uri.removeprefix(_FILE)
    fitting = [start for start in urls if plain.startswith(quote(start) if plain != uri else start)]
    return max(fitting, key=len, default=None)


def address(uri: str, urls: Mapping[str, str]) -> str:
    """The URI with its beginning replaced and the rest percent-encoded; as it is if no beginning fits."""
    start = beginning(uri, urls)
    if start is None:
        return uri
    if uri.startswith(_FILE):
        return urls[start] + uri.removeprefix(_FILE).removeprefix(quote(start))
    return urls[start] + quote(uri.removeprefix(start))


def name(uri: str, urls: Mapping[str, str]) -> str:
    """The same as a name of a file, in which nothing is percent-encoded; a name that is not UTF-8 stays a URI."""
    start = None if uri.startswith(_FILE) else beginning(uri, urls)
    return uri if start is None else urls[start] + uri.removeprefix(start)


def presigned(uris: Sequence[str], seconds: int) -> list[str]:
    """Addresses in buckets that anyone may read for so long, in the order of the URIs; nothing is asked of the store.

    They are signed with the credentials of the environment, and end with these if these are temporary.

    Raises:
        ConfigError: there are no credentials, or none that can sign.

    Cost: 0.3 ms each.
    """
    # Version 4, which every region takes: without it botocore signs by version 2 in some of them.
    store = fsspec.filesystem("s3", config_kwargs={"signature_version": "s3v4"})
    try:
        return [str(store.sign(uri, expiration=seconds)) for uri in uris]
    except Exception as error:
        if not storage.is_of_store(error):
            raise
        raise storage.explain(error, uris[0]) from error
