"""Listing of an S3 prefix, page by page and sub-prefixes in parallel; also descriptions of single keys."""

from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, cast

from fsspec.asyn import sync

from wtl_core.images import kinds
from wtl_core.shards.objects import MISSING_SIZE, REFUSED_ETAG, SourceObject
from wtl_core.shards.paths import split_s3
from wtl_core.workspace.storage import (
    error_code,
    explain,
    filesystem,
    is_denied,
    is_missing,
    is_refused,
    lacks_credentials,
)

_THREADS = 16
"""List requests at a time; each waits for its page most of the time."""
_SPLIT_LEVELS = 2
"""Prefixes are split at `/` down to this depth; below it a prefix is listed flat, a thousand keys a request."""


def walk(source: str) -> Iterator[SourceObject]:
    """Yield the objects below the prefix, in no order; keys that stand for folders are left out.

    Raises:
        ConfigError: no such bucket, or access denied.
        TransientError: the store keeps failing after its client's own retries.
    """
    fs = filesystem("s3://")
    bucket, prefix = split_s3(source)
    prefix = prefix.rstrip("/") + "/" if prefix else ""
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="list") as pool:
        waiting: set[Future[_Page]] = {pool.submit(_page, fs, bucket, prefix, None, 0)}
        try:
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    page = future.result()
                    waiting |= {pool.submit(_page, fs, bucket, sub, None, page.level + 1) for sub in page.prefixes}
                    if page.token:
                        waiting.add(pool.submit(_page, fs, bucket, page.prefix, page.token, page.level))
                    yield from _objects(source, bucket, page.contents)
        except BaseException:
            for future in waiting:
                future.cancel()
            raise


class _Page:
    """One answer of the store."""

    def __init__(self, answer: dict[str, Any], prefix: str, level: int) -> None:
        self.contents = cast(list[dict[str, Any]], answer.get("Contents", []))
        self.prefixes = [str(entry["Prefix"]) for entry in answer.get("CommonPrefixes", [])]
        self.token = cast(str | None, answer.get("NextContinuationToken"))
        self.prefix, self.level = prefix, level


def _page(fs: Any, bucket: str, prefix: str, token: str | None, level: int) -> _Page:
    arguments: dict[str, str] = {"Bucket": bucket, "Prefix": prefix}
    if level < _SPLIT_LEVELS:
        arguments["Delimiter"] = "/"
    if token:
        arguments["ContinuationToken"] = token
    try:
        return _Page(call(fs, "list_objects_v2", **arguments), prefix, level)
    except Exception as error:
        raise explain(error, f"s3://{bucket}/{prefix}") from error


def _objects(source: str, bucket: str, contents: list[dict[str, Any]]) -> Iterator[SourceObject]:
    for entry in contents:
        key, size = str(entry["Key"]), int(entry["Size"])
        if key.endswith("/") and size == 0:
            continue
        mtime_ns = int(entry["LastModified"].timestamp()) * 10**9
        etag = str(entry.get("ETag", "")).strip('"')
        yield SourceObject(source, f"s3://{bucket}/{key}", kinds.kind_by_name(key), size, mtime_ns, etag)


def describe_uri(source: str, uri: str) -> SourceObject:
    """One object by a HEAD request. A missing one has size -1; one that the store refuses to describe is marked.

    A refusal concerns this object alone, since others of a list may be allowed. Missing credentials concern them all.

    Raises:
        ConfigError: there are no credentials, or no bucket can have that name.
        TransientError: the store keeps failing.
    """
    fs = filesystem("s3://")
    bucket, key = split_s3(uri)
    if not key:
        return SourceObject(source, uri, "loose", MISSING_SIZE, 0, "")
    try:
        answer = call(fs, "head_object", Bucket=bucket, Key=key)
    except Exception as error:
        if is_missing(error):
            return SourceObject(source, uri, kinds.kind_by_name(key), MISSING_SIZE, 0, "")
        if (is_denied(error) or is_refused(error)) and not lacks_credentials(error):
            return SourceObject(source, uri, kinds.kind_by_name(key), 0, 0, REFUSED_ETAG)
        raise explain(error, uri) from error
    return from_head(source, uri, answer)


def from_head(source: str, uri: str, answer: dict[str, Any]) -> SourceObject:
    """The object that the answer to a HEAD request describes."""
    mtime_ns = int(answer["LastModified"].timestamp()) * 10**9
    etag = str(answer.get("ETag", "")).strip('"')
    return SourceObject(source, uri, kinds.kind_by_name(uri), int(answer["ContentLength"]), mtime_ns, etag)


def is_changed(error: BaseException) -> bool:
    """Whether the store says that the object is another version than the request asked for."""
    return error_code(error) in ("412", "PreconditionFailed")


def call(fs: Any, method: str, **arguments: str) -> Any:
    """One request by the file system's client; the answer, or the body of a `get_object`.

    Not by `fs.call_s3`: that retries inside, on top of the client's own retries.
    """

    async def ask() -> Any:
        client = await fs.set_session()
        answer = await getattr(client, method)(**arguments)
        if method != "get_object":
            return answer
        async with answer["Body"] as body:
            return await body.read()

    return sync(fs.loop, ask)
