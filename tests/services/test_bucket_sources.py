"""Sources in a bucket: on moto's server by default, on Ceph's gateway where its binaries are installed (`-m services`).

A small proxy stands before the server and misbehaves on request: answers 503, breaks off bodies.
"""

import contextlib
import hashlib
import http.client
import http.server
import socket
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import pytest

from tests.conftest import S3_KEYS, make_jpeg, use_s3
from tests.services import s3_servers
from tests.small_shards import make_tar
from wtl_core.errors import ConfigError, TransientError
from wtl_core.machine import Machine
from wtl_core.pool import ingest, live_pool, part_rows
from wtl_core.pool.part_plan import plan_parts, snapshot_rows
from wtl_core.recipe.ingest import IngestParams
from wtl_core.refresh import readmission
from wtl_core.shards import bucket, discover, remote
from wtl_core.workspace.storage import Store, filesystem, open_store

PARAMS = IngestParams()


@dataclass
class Faults:
    """What the proxy does to the next requests; each entry is used up once. Counts what it saw."""

    endpoint: str = ""
    busy: int = 0
    cut: int = 0
    denied_keys: set[str] = field(default_factory=set)
    seen: list[str] = field(default_factory=list)


def make_proxy(target: tuple[str, int], faults: Faults) -> http.server.ThreadingHTTPServer:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def forward(self) -> None:
            faults.seen.append(f"{self.command} {self.path}")
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if faults.busy > 0:
                faults.busy -= 1
                self.answer(
                    503, b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
                )
                return
            if any(key in self.path for key in faults.denied_keys):
                self.answer(403, b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>")
                return
            with contextlib.closing(http.client.HTTPConnection(*target, timeout=60)) as upstream:
                upstream.request(self.command, self.path, body=body, headers=dict(self.headers))
                answer = upstream.getresponse()
                data = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "content-length", "server", "date"):
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
            self.send_header("Content-Length", length or "0")
            self.end_headers()
            if faults.cut > 0 and self.command == "GET" and len(data) > 1000:
                faults.cut -= 1
                self.wfile.write(data[: len(data) // 2])
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            self.wfile.write(data)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward  # noqa: N815

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass

    return Server(("127.0.0.1", 0), Handler)


@pytest.fixture(scope="module", params=["moto", pytest.param("ceph", marks=pytest.mark.services)])
def faults(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faults]:
    """A server behind its proxy; `endpoint` is the proxy's address."""
    if request.param == "ceph" and not s3_servers.has_ceph():
        pytest.skip(f"Ceph is not installed: apt-get install {s3_servers.CEPH_PACKAGES}")
    start = {"moto": s3_servers.moto, "ceph": s3_servers.ceph}[request.param]
    with start(tmp_path_factory.mktemp("server")) as target, pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote, "FIRST_PAUSE_SECONDS", 0.01)
        made = Faults()
        proxy = make_proxy(target, made)
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        made.endpoint = f"http://127.0.0.1:{proxy.server_address[1]}"
        use_s3(patch, made.endpoint, S3_KEYS)
        yield made
        proxy.shutdown()
        proxy.server_close()


@pytest.fixture
def store(faults: Faults) -> Store:
    """An empty bucket."""
    name = f"b{uuid.uuid4().hex[:12]}"
    fs = filesystem("s3://")
    bucket.call(fs, "create_bucket", Bucket=name)
    faults.busy = faults.cut = 0
    faults.denied_keys.clear()
    faults.seen.clear()
    return open_store(f"s3://{name}/data")


def fill(store: Store) -> None:
    """A tar, two loose images, a broken one and a text."""
    store.write_bytes("a.tar", make_tar([(f"{i}.jpg", make_jpeg(i)) for i in range(5)]))
    store.write_bytes("deep/er/5.jpg", make_jpeg(5))
    store.write_bytes("deep/6.jpg", make_jpeg(6))
    store.write_bytes("deep/broken.jpg", make_jpeg(7)[:300])
    store.write_bytes("notes.txt", b"no image")


def refresh(store: Store, workspace: Path, **lists: pl.DataFrame) -> live_pool.Pool:
    listing = lists.get("listing")
    if listing is None:
        listing = discover.list_source(store.root)
    plans, local = plan_parts(listing, PARAMS), open_store(str(workspace))
    ingest.run_many(plans, local, PARAMS, Machine(workers=1))
    return live_pool.load(local, snapshot_rows(plans))


def test_a_prefix_is_listed_read_and_known_again(store: Store, tmp_path: Path) -> None:
    fill(store)
    found = refresh(store, tmp_path)
    assert (found.counts.samples, found.counts.quarantined, found.counts.ignored) == (7, 1, 1)
    assert f"{store.root}/a.tar#0.jpg" in found.samples["uri"].to_list()
    listing = discover.list_source(store.root)
    changes = discover.diff(listing, snapshot_rows(plan_parts(listing, PARAMS)))
    assert len(changes.kept) == 5
    store.write_bytes("deep/6.jpg", make_jpeg(60))
    again = discover.diff(discover.list_source(store.root), changes.kept)
    assert again.changed["uri"].to_list() == [f"{store.root}/deep/6.jpg"]


def test_more_than_a_thousand_keys_are_listed_in_pages(store: Store, faults: Faults) -> None:
    fs = filesystem("s3://")
    names = [f"{store.root}/flat/{i:05d}.jpg" for i in range(1003)] + [f"{store.root}/{i}/x/y/z.jpg" for i in range(8)]
    fs.pipe(dict.fromkeys(names, b"x"))
    faults.seen.clear()
    listed = discover.list_source(store.root)
    assert listed["uri"].to_list() == sorted(names)
    assert sum("continuation-token" in line for line in faults.seen) >= 1


def test_a_busy_store_is_asked_again(store: Store, faults: Faults, tmp_path: Path) -> None:
    fill(store)
    faults.busy = 2
    listing = discover.list_source(store.root)
    assert len(listing) == 5
    faults.busy = 2
    assert refresh(store, tmp_path, listing=listing).counts.samples == 7


def test_a_store_that_stays_busy_ends_in_a_transient_error(
    store: Store, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store)
    faults.busy = 1000
    monkeypatch.setattr("wtl_core.workspace.storage.ATTEMPTS", 1)
    fs = filesystem("s3://")
    fs.clear_instance_cache()
    with pytest.raises(TransientError, match=r"run again|failed after retries"):
        discover.list_source(store.root)
    with pytest.raises(TransientError, match="run again"):
        remote.insist(filesystem("s3://"), f"{store.root}/a.tar", "head_object", {})
    faults.busy = 0
    fs.clear_instance_cache()


def test_a_connection_cut_half_way_is_taken_up_again(store: Store, faults: Faults, tmp_path: Path) -> None:
    fill(store)
    listing = discover.list_source(store.root)
    faults.cut = 2
    found = refresh(store, tmp_path, listing=listing)
    assert faults.cut == 0
    assert (found.counts.samples, found.counts.quarantined) == (7, 1)


def test_a_key_that_vanished_after_the_listing_is_refused_as_missing(store: Store, tmp_path: Path) -> None:
    fill(store)
    listing = discover.list_source(store.root)
    for key in ("deep/6.jpg", "a.tar"):
        store.delete(key)
    found = refresh(store, tmp_path, listing=listing)
    assert sorted(found.quarantine["reason"]) == ["missing", "missing", "truncated"]


def test_a_denied_key_is_refused_and_read_once_it_is_allowed(store: Store, faults: Faults, tmp_path: Path) -> None:
    fill(store)
    listing = discover.list_source(store.root)
    faults.denied_keys = {"6.jpg"}
    found = refresh(store, tmp_path, listing=listing)
    assert sorted(found.quarantine["reason"]) == ["access_denied", "truncated"]
    snapshot = snapshot_rows(plan_parts(listing, PARAMS))
    local = open_store(str(tmp_path))
    assert readmission.readable_again(local, snapshot).is_empty()
    faults.denied_keys = set()
    again = readmission.readable_again(local, snapshot)
    assert again["uri"].to_list() == [f"{store.root}/deep/6.jpg"]


def test_a_denied_or_unknown_bucket_is_said_so(store: Store, faults: Faults) -> None:
    with pytest.raises(ConfigError, match="no such bucket"):
        discover.list_source(f"s3://nosuch{uuid.uuid4().hex[:8]}/x")
    faults.denied_keys = {"list-type"}
    with pytest.raises(ConfigError, match="access denied"):
        discover.list_source(store.root)


def test_an_object_overwritten_while_it_is_read_is_refused_and_read_by_the_next_run(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write_bytes("a.tar", make_tar([(f"{i}.jpg", make_jpeg(i)) for i in range(150)]))
    monkeypatch.setattr(remote, "BLOCK_BYTES", 4096)
    original, times = part_rows.decode_within, iter(range(1))

    def overwrite(*args: object, **kwargs: object) -> object:
        if next(times, None) == 0:
            store.write_bytes("a.tar", make_tar([(f"{i}.jpg", make_jpeg(100 + i)) for i in range(30)]))
        return original(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(part_rows, "decode_within", overwrite)
    snapshot = snapshot_rows(plan_parts(discover.list_source(store.root), PARAMS))
    found = refresh(store, tmp_path)
    assert (found.counts.samples, found.quarantine["reason"].to_list()) == (0, ["changed_while_read"])
    changes = discover.diff(discover.list_source(store.root), snapshot)
    found = refresh(store, tmp_path, listing=changes.changed)
    assert (found.counts.samples, found.counts.quarantined) == (30, 0)


def test_a_key_overwritten_after_the_listing_gives_nothing_under_the_listed_name(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By etag, for small images fetched whole as for shards read by ranges; A is put back and then read."""

    def write(first: int) -> None:
        store.write_bytes("1.jpg", make_jpeg(first))
        store.write_bytes("a.tar", make_tar([(f"{i}.jpg", make_jpeg(first + i)) for i in range(1, 5)]))

    write(10)
    store.write_bytes("same.jpg", make_jpeg(99))
    listing = discover.list_source(store.root)
    write(20)
    found = refresh(store, tmp_path, listing=listing)
    assert found.quarantine["reason"].to_list() == ["changed_while_read"] * 2
    assert found.samples["uri"].to_list() == [f"{store.root}/same.jpg"]
    write(10)
    snapshot = snapshot_rows(plan_parts(listing, PARAMS))
    assert discover.diff(discover.list_source(store.root), snapshot).changed.is_empty()
    again = readmission.readable_again(open_store(str(tmp_path)), snapshot)
    changes = discover.diff(discover.list_source(store.root), snapshot, again=again)
    found = refresh(store, tmp_path, listing=changes.changed)
    expected = {hashlib.sha256(make_jpeg(first)).hexdigest() for first in range(10, 15)}
    assert (set(found.samples["sample_id"]), found.counts.quarantined) == (expected, 0)


def test_a_listing_without_etags_is_compared_by_size_and_time(store: Store, tmp_path: Path) -> None:
    fill(store)
    listing = discover.list_source(store.root).with_columns(etag=pl.lit(""))
    found = refresh(store, tmp_path / "w", listing=listing)
    assert (found.counts.samples, found.counts.quarantined) == (7, 1)
    older = listing.with_columns(pl.col("mtime_ns") - 10**9)
    found = refresh(store, tmp_path / "older", listing=older)
    assert (found.counts.samples, found.quarantine["reason"].unique().to_list()) == (0, ["changed_while_read"])


def test_lists_and_single_objects_of_a_bucket_are_sources(store: Store) -> None:
    fill(store)
    store.write_bytes("list.txt", f"deep/6.jpg\n{store.root}/a.tar\ngone.jpg\n".encode())
    listed = discover.list_source(f"{store.root}/list.txt")
    assert listed.select("kind", pl.col("size") >= 0).rows() == [("tar", True), ("loose", True), ("loose", False)]
    obj = discover.list_source(f"{store.root}/a.tar")
    assert obj["uri"].to_list() == [f"{store.root}/a.tar"]


def test_workspaces_below_a_prefix_are_skipped(store: Store) -> None:
    fill(store)
    store.write_bytes("work/wtl.json", b"{}")
    store.write_bytes("work/pool/x.parquet", b"x")
    assert len(discover.list_source(store.root)) == 5
    excluded = discover.list_source(store.root, exclude=[f"{store.root}/deep"])
    assert len(excluded) == 2


def test_a_workspace_in_a_bucket_holds_parts_too(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for i in range(4):
        (source / f"{i}.jpg").write_bytes(make_jpeg(i))
    (source / "4.jpg").write_bytes(b"junk")
    plans = plan_parts(discover.list_source(str(source)), PARAMS)
    first = ingest.run_many(plans, store, PARAMS, Machine(workers=1))
    assert ingest.run_many(plans, store, PARAMS, Machine(workers=1)) == first
    found = live_pool.load(store, snapshot_rows(plans))
    assert (found.counts.samples, found.counts.quarantined) == (4, 1)
    part = found.samples["part"][0]
    assert all(data for _, data in live_pool.read_images(store, part, range(4)))


def test_references_into_a_bucket_are_read_again(store: Store, tmp_path: Path) -> None:
    fill(store)
    params, local = IngestParams(store="reference"), open_store(str(tmp_path))
    plans = plan_parts(discover.list_source(store.root), params)
    ingest.run_many(plans, local, params, Machine(workers=1))
    found = live_pool.load(local, snapshot_rows(plans))
    store.delete("deep/6.jpg")
    images = dict(live_pool.read_images(local, plans[0].digest, range(7)))
    gone = found.samples.filter(pl.col("uri").str.ends_with("/6.jpg"))["row"].item()
    assert {row for row, data in images.items() if data is None} == {gone}
