"""The ledger's entries and what they come to: labels, corrections, undone labels."""

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plain_refresh import ranking, refresh
from wtl_core.errors import TransientError
from wtl_core.labelling import cut
from wtl_core.upkeep import maintenance
from wtl_core.workspace import commits, ledger
from wtl_core.workspace.storage import Store

Classes = tuple[str, ...] | None
IDS = ("a", "b", "c", "d")
some_ids = st.lists(st.sampled_from(IDS), min_size=1, max_size=4, unique=True)
classes_of_one = st.one_of(st.none(), st.lists(st.sampled_from(["cat", "dog", "tram"]), unique=True).map(tuple))


def now(store: Store) -> dict[str, Classes]:
    """The present labels, as plain values."""
    table = ledger.labels(ledger.read(store))
    assert table["sample_id"].is_sorted()
    return {key: None if names is None else tuple(names) for key, names in table.select("sample_id", "classes").rows()}


def test_classes_are_kept_and_the_last_label_of_an_image_counts(store: Store) -> None:
    ledger.append(store, "labelled", ["b", "a"], classes=[("dog", "cat", "dog"), ()], origin="one.csv")
    ledger.append(store, "labelled", ["c"])
    ledger.append(store, "labelled", ["a", "d"], classes=[("bus",), None], origin="two.csv")
    ledger.append(store, "exported", ["c", "d"])
    table = ledger.labels(ledger.read(store))
    assert table.select("sample_id", "classes", "origin", "entry").rows() == [
        ("a", ["bus"], "two.csv", 3),
        ("b", ["cat", "dog"], "one.csv", 1),
        ("c", None, None, 2),
        ("d", None, "two.csv", 3),
    ]
    assert ledger.sample_ids(ledger.read(store), "labelled") == ["a", "b", "c", "d"]
    assert ledger.sample_ids(ledger.read(store), "exported") == ["c", "d"]
    assert now(store)["a"] == ("bus",)
    assert dict(ledger.labels(ledger.read(store, 1)).select("sample_id", "classes").rows()) == {
        "a": [],
        "b": ["cat", "dog"],
    }


def test_what_an_entry_gave_is_taken_back_and_what_was_before_it_counts_again(store: Store) -> None:
    ledger.append(store, "labelled", ["a", "b"], classes=[("cat",), ("cat",)])
    ledger.append(store, "labelled", ["a", "c"], classes=[("dog",), ("dog",)])
    ledger.append(store, "unlabelled", ["a", "c"], undoes=2)
    assert now(store) == {"a": ("cat",), "b": ("cat",)}
    ledger.append(store, "unlabelled", ["a"])
    assert now(store) == {"b": ("cat",)}
    ledger.append(store, "unlabelled", ["a", "b"], undoes=1)
    assert now(store) == {}
    ledger.append(store, "labelled", ["a"], classes=[("tram",)])
    assert now(store) == {"a": ("tram",)}


def test_entries_of_before_there_were_classes_mean_labelled_with_an_unknown_class(store: Store) -> None:
    old = pl.DataFrame({"sample_id": ["x", "y"], "kind": ["labelled"] * 2, "created": ["2026-01-01"] * 2})
    store.write_frame("ledger/000001.parquet", old)
    ledger.append(store, "labelled", ["y"], classes=[("cat",)])
    assert now(store) == {"x": None, "y": ("cat",)}


def test_an_empty_ledger_has_no_labels(store: Store) -> None:
    assert ledger.labels(ledger.read(store)).equals(pl.DataFrame(schema=ledger.LABELS_SCHEMA))


def test_an_entry_is_never_written_over(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger.append(store, "labelled", ["a"])
    monkeypatch.setattr(ledger, "length", lambda store: 0)
    with pytest.raises(TransientError, match="another process wrote the ledger's entry 1 meanwhile"):
        ledger.append(store, "labelled", ["b"])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.dictionaries(st.sampled_from(IDS), classes_of_one, min_size=1)),
            st.tuples(st.just("withdraw"), some_ids),
            st.tuples(st.just("undo"), st.integers(1, 8), some_ids),
        ),
        max_size=8,
    )
)
def test_any_sequence_of_entries_comes_to_what_a_plain_replay_gives(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[object, ...]]
) -> None:
    store = Store(str(tmp_path_factory.mktemp("w")))
    events: list[tuple[int, str, Classes | str]] = []
    undone: set[tuple[int, str]] = set()
    for number, (kind, *rest) in enumerate(steps, 1):
        if kind == "add":
            given_now = rest[0]
            assert isinstance(given_now, dict)
            ledger.append(store, "labelled", list(given_now), classes=list(given_now.values()))
            events += [
                (number, key, None if names is None else tuple(sorted(names))) for key, names in given_now.items()
            ]
        elif kind == "withdraw":
            assert isinstance(rest[0], list)
            ledger.append(store, "unlabelled", rest[0])
            events += [(number, key, "withdrawn") for key in rest[0]]
        else:
            entry, ids = rest
            assert isinstance(entry, int)
            assert isinstance(ids, list)
            ledger.append(store, "unlabelled", ids, undoes=entry)
            undone |= {(entry, key) for key in ids}
    counts = [event for event in events if event[:2] not in undone]
    expected = {key: names for _, key, names in counts}  # the last one
    assert now(store) == {key: names for key, names in expected.items() if names != "withdrawn"}


def test_an_image_whose_label_is_undone_can_be_picked_again(source: Path, tmp_path: Path) -> None:
    refresh(tmp_path / "w", source)
    store = Store(str(tmp_path / "w"))
    first = ranking(tmp_path / "w")["sample_id"].to_list()
    ledger.append(store, "labelled", first[:5], classes=[("cat",)] * 5)
    labelled = refresh(tmp_path / "w")
    assert labelled.counts.ranked == len(first) - 5
    ledger.append(store, "unlabelled", first[:5], undoes=1)
    again = refresh(tmp_path / "w")
    assert (again.number, again.counts.ranked) == (3, len(first))
    assert ranking(tmp_path / "w")["sample_id"].to_list() == first
    assert cut.run(store, "5").table["sample_id"].to_list() == first[:5]


def test_a_label_that_was_undone_keeps_its_vector_for_the_rankings_that_it_shaped(source: Path, tmp_path: Path) -> None:
    from wtl_core.embedding import vectors

    last = refresh(tmp_path / "w", source)
    store = Store(str(tmp_path / "w"))
    loose = ranking(tmp_path / "w").filter(pl.col("uri").str.contains("loose"))["sample_id"][0]
    ledger.append(store, "labelled", [loose])
    ledger.append(store, "unlabelled", [loose])
    for file in (source / "loose").iterdir():
        file.unlink()
    gone = refresh(tmp_path / "w", source, allow_removal=True)
    maintenance.run(store, keep=1)
    assert commits.latest(store) == gone
    assert loose in set(vectors.existing_ids(store, last.encoder))
