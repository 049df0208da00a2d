"""Vectors in LanceDB: no row lost, none twice, none of another encoder, whatever is killed and whenever."""

import hashlib
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from tests.conftest import S3_KEYS, use_s3
from wtl_core.embedding import compaction, staging, vectors
from wtl_core.errors import ConfigError, CorruptArtifactError, InputError
from wtl_core.workspace import storage
from wtl_core.workspace.storage import Store, open_store

ENCODER, OTHER = "a" * 64, "b" * 64
D = 8


def make_rows(count: int, seed: int = 0, dimensions: int = D) -> tuple[list[str], np.ndarray]:
    values = np.random.default_rng(seed).standard_normal((count, dimensions))
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return [hashlib.sha256(f"{seed}/{row}".encode()).hexdigest() for row in range(count)], values.astype(np.float16)


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return open_store(str(tmp_path / "workspace"))
    request.getfixturevalue("s3_endpoint")
    return open_store(f"s3://bucket/{tmp_path.name}")


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    """moto's server with a bucket; credentials reach fsspec and LanceDB through the environment, as a user's would."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        use_s3(patch, endpoint, {**S3_KEYS, "AWS_REGION": "us-east-1"})
        import fsspec

        fsspec.filesystem("s3").mkdir("bucket")
        yield endpoint
    server.stop()


def test_what_was_committed_is_loaded_in_the_order_asked_for(store: Store) -> None:
    ids, values = make_rows(50)
    for start in (0, 20):
        stop = start + 30 if start else 20
        staging.stage(store, ENCODER, f"part-{start}", ids[start:stop], values[start:stop])
    assert vectors.commit_staged(store, ENCODER, staging.staged_keys(store, ENCODER), D) == 50
    assert set(vectors.existing_ids(store, ENCODER)) == set(ids)
    assert staging.staged_keys(store, ENCODER) == []
    order = np.argsort(ids)
    wanted = [ids[row] for row in order if row % 3]
    assert np.array_equal(vectors.load(store, ENCODER, wanted), values[[row for row in order if row % 3]])


def test_committing_again_adds_nothing(store: Store) -> None:
    ids, values = make_rows(20)
    for attempt in range(3):
        staging.stage(store, ENCODER, "p", ids, values)
        assert vectors.commit_staged(store, ENCODER, ["p"], D) == (0 if attempt else 20)
    staging.stage(store, ENCODER, "overlap", [*ids[10:], "f" * 64], np.vstack([values[10:], values[:1]]))
    assert vectors.commit_staged(store, ENCODER, ["overlap", "not-there"], D) == 1
    table = vectors.open_table(store, ENCODER)
    assert table is not None
    assert table.count_rows() == 21


def test_two_parts_with_the_same_sample_add_it_once(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    ids, values = make_rows(10)
    staging.stage(store, ENCODER, "a", ids, values)
    staging.stage(store, ENCODER, "b", ids, values)
    assert vectors.commit_staged(store, ENCODER, ["a", "b"], D) == 10


def test_rows_of_another_run_are_seen_by_a_handle_that_was_opened_earlier(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    ids, values = make_rows(10)
    table = vectors.open_table(store, ENCODER, D)
    assert table is not None
    staging.stage(store, ENCODER, "a", ids, values)
    vectors.commit_staged(store, ENCODER, ["a"], D)
    assert table.count_rows() == 10


def test_a_few_vectors_are_the_same_as_those_of_a_scan(tmp_path: Path) -> None:
    """Few are fetched by a filter; ids that could not be in it, and many, by a scan of the table."""
    store = open_store(str(tmp_path))
    ids, values = make_rows(1200)
    staging.stage(store, ENCODER, "a", ids, values)
    vectors.commit_staged(store, ENCODER, ["a"], D)
    assert np.array_equal(vectors.load(store, ENCODER, ids), values)
    for rows in ([7], [900, 3, 1100], list(range(999, -1, -1)), list(range(1001)), []):
        assert np.array_equal(vectors.load(store, ENCODER, [ids[row] for row in rows]), values[rows])
    for wrong in ("f" * 64, "x' OR 'a' = 'a"):
        with pytest.raises(InputError, match="expected 2 vectors, 1 are missing"):
            vectors.load(store, ENCODER, [ids[0], wrong])
    assert (vectors.count(store, ENCODER), vectors.count(store, OTHER)) == (1200, 0)


def test_encoders_do_not_meet(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    ids, values = make_rows(10)
    staging.stage(store, ENCODER, "a", ids, values)
    vectors.commit_staged(store, ENCODER, ["a"], D)
    assert set(vectors.existing_ids(store, OTHER)) == set()
    with pytest.raises(InputError, match="embed the pool first"):
        vectors.load(store, OTHER, ids)
    staging.stage(store, ENCODER, "stray", ids, values)
    store.write_bytes(f"staging/{OTHER}/stray.arrow", store.read_bytes(f"staging/{ENCODER}/stray.arrow"))
    with pytest.raises(CorruptArtifactError, match=r"stray\.arrow: expected vectors of encoder bbbb"):
        vectors.commit_staged(store, OTHER, ["stray"], D)
    with pytest.raises(CorruptArtifactError, match="expected vectors of 9 numbers, found 8"):
        vectors.open_table(store, ENCODER, 9)
    with pytest.raises(InputError, match="expected one vector of 8 numbers"):
        vectors.similar(store, ENCODER, np.ones(9, np.float32), 3)


@pytest.mark.parametrize("spoil", [0.0, np.nan, np.inf, 0.5])
def test_a_vector_that_is_none_is_refused_with_its_sample(tmp_path: Path, spoil: float) -> None:
    ids, values = make_rows(10)
    values[4] *= np.float16(spoil)
    with pytest.raises(InputError, match=ids[4]):
        staging.stage(open_store(str(tmp_path)), ENCODER, "a", ids, values)


def test_a_sample_without_a_vector_is_named(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    ids, values = make_rows(10)
    staging.stage(store, ENCODER, "a", ids[1:], values[1:])
    vectors.commit_staged(store, ENCODER, ["a"], D)
    with pytest.raises(InputError, match=f"1 are missing \\(first: {ids[0]}\\)"):
        vectors.load(store, ENCODER, ids)


def test_the_key_column_is_declared_and_never_null(tmp_path: Path) -> None:
    table = vectors.open_table(open_store(str(tmp_path)), ENCODER, D)
    assert table is not None
    field = table.schema.field("sample_id")
    assert not field.nullable
    assert field.metadata[b"lance-schema:unenforced-primary-key"] == b"true"
    assert table.schema.field("vector").type == pa.list_(pa.float16(), D)


def test_similar_is_the_plain_cosine_order_with_and_without_an_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(str(tmp_path))
    ids, values = make_rows(600)
    staging.stage(store, ENCODER, "a", ids, values)
    vectors.commit_staged(store, ENCODER, ["a"], D)
    exact = values.astype(np.float32)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    expected = [ids[row] for row in np.argsort(-(exact @ exact[5]))[:10]]
    assert [one.sample_id for one in vectors.similar(store, ENCODER, exact[5], 10)] == expected
    assert not vectors.build_index(store, ENCODER)  # too small to pay
    monkeypatch.setattr(compaction, "INDEX_ROWS", 500)
    assert vectors.build_index(store, ENCODER)
    found = vectors.similar(store, ENCODER, exact[5], 10)
    assert [one.sample_id for one in found] == expected
    assert found[0].similarity == pytest.approx(1, abs=1e-3)
    more, fresh = make_rows(5, seed=1)
    staging.stage(store, ENCODER, "b", more, fresh)
    vectors.commit_staged(store, ENCODER, ["b"], D)
    assert vectors.similar(store, ENCODER, fresh[2].astype(np.float32), 1)[0].sample_id == more[2]  # not yet indexed
    version = vectors.table_version(store, ENCODER)
    assert vectors.build_index(store, ENCODER)
    assert vectors.table_version(store, ENCODER) == version  # five rows more are scanned
    monkeypatch.setattr(compaction, "UNINDEXED_ROWS", 4)
    assert vectors.build_index(store, ENCODER)
    assert vectors.table_version(store, ENCODER) > version
    assert vectors.similar(store, ENCODER, fresh[2].astype(np.float32), 1)[0].sample_id == more[2]


def test_compaction_bounds_fragments_and_versions_and_keeps_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(str(tmp_path))
    ids, values = make_rows(30)
    for row in range(30):
        staging.stage(store, ENCODER, f"p{row}", ids[row : row + 1], values[row : row + 1])
        vectors.commit_staged(store, ENCODER, [f"p{row}"], D)
    version = vectors.table_version(store, ENCODER)
    keep = timedelta(milliseconds=1)
    time.sleep(0.01)  # the newest version of those above is older than that
    assert vectors.compact(store, ENCODER, keep=keep)
    table = vectors.open_table(store, ENCODER)
    assert table is not None
    assert table.stats()["fragment_stats"]["num_fragments"] == 1
    assert min(kept["version"] for kept in table.list_versions()) > version
    # A merge commits two versions, the first of which may be younger than that when it is done.
    time.sleep(0.01)
    assert vectors.compact(store, ENCODER, keep=keep, is_forced=True)
    assert len(table.list_versions()) == 1
    assert vectors.table_version(store, ENCODER) > version
    assert not vectors.compact(store, ENCODER)  # nothing to do
    assert np.array_equal(vectors.load(store, ENCODER, ids), values)


def test_a_long_run_of_small_parts_leaves_few_fragments_and_versions_at_any_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "MAX_AT_WORK", 10)
    store = open_store(str(tmp_path))
    ids, values = make_rows(60)
    fragments, versions = [], []
    for row in range(60):
        staging.stage(store, ENCODER, "p", ids[row : row + 1], values[row : row + 1])
        vectors.commit_staged(store, ENCODER, ["p"], D)
        table = vectors.open_table(store, ENCODER)
        assert table is not None
        fragments.append(compaction.fragments(table))
        versions.append(len(table.list_versions()))
    assert max(fragments) == 10  # and not 60
    assert max(versions) <= 2 * 10 + 3
    # What was merged is deleted too: no files are left but those of the oldest version kept, and one of each later one.
    table.checkout(min(version["version"] for version in table.list_versions()))
    assert len(list((tmp_path / "vectors").rglob("*.lance"))) <= compaction.fragments(table) + versions[-1] - 1
    assert np.array_equal(vectors.load(store, ENCODER, ids), values)
    time.sleep(1.0)  # versions that were written at once, longer ago than all of that took
    assert vectors.compact(store, ENCODER, is_forced=True)
    assert len(table.list_versions()) >= 10  # for readers that are at work


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    """Lance's own text of it; a disk is filled by no test."""
    store = open_store(str(tmp_path))
    for text, kind in (("No space left on device (os error 28)", ConfigError), ("os error 2801", RuntimeError)):
        with pytest.raises(kind), storage.explain_full_disk(store.path(vectors.FOLDER), "vectors"):
            raise RuntimeError(f"lance error: LanceError(IO): {text}, rust/lance-io/src/local.rs")


def test_deleted_and_dropped_vectors_are_gone(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    ids, values = make_rows(10)
    staging.stage(store, ENCODER, "a", ids, values)
    vectors.commit_staged(store, ENCODER, ["a"], D)
    vectors.delete_ids(store, ENCODER, ids[:4])
    assert set(vectors.existing_ids(store, ENCODER)) == set(ids[4:])
    staging.stage(store, ENCODER, "b", ids, values)
    vectors.drop(store, ENCODER)
    assert vectors.table_version(store, ENCODER) == 0
    assert staging.staged_keys(store, ENCODER) == []


def test_a_stream_gives_each_vector_once_with_its_row(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ids, values = make_rows(100)
    staging.stage(store, ENCODER, "part", ids, values)
    vectors.commit_staged(store, ENCODER, ["part"], D)
    monkeypatch.setattr(vectors, "_SCAN_ROWS", 16)
    wanted = [ids[row] for row in (90, 3, 41, 42, 7)]
    found = list(vectors.stream(store, ENCODER, pl.Series(wanted)))
    rows = np.concatenate([rows for rows, _ in found])
    assert sorted(rows.tolist()) == [0, 1, 2, 3, 4]
    by_row = np.concatenate([some for _, some in found])[np.argsort(rows)]
    assert by_row.tolist() == vectors.load(store, ENCODER, wanted).tolist()
    with pytest.raises(InputError, match="expected 2 vectors, 1 are missing; embed the pool first"):
        list(vectors.stream(store, ENCODER, pl.Series([ids[0], "f" * 64])))
