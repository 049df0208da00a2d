"""The grid as a whole on tiny images: labels never leak, finished cells stay finished, the page tells what it found."""

import io
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.small_benchmark import PARAMS, Finished, batches, run_all, write_set
from wtl_core.benchmark import (
    datasets,
    grid,
    grid_cells,
    judges,
    network,
    plots,
    preparation,
    statistics,
    strategies,
    summary,
    work,
)
from wtl_core.benchmark import params as params_module
from wtl_core.benchmark.budgets import budgets_of
from wtl_core.benchmark.grid_cells import GridCell
from wtl_core.benchmark.params import RANKED, STEERED, BenchmarkParams
from wtl_core.benchmark.preparation import Prepared
from wtl_core.errors import ConfigError, InputError
from wtl_core.machine import Progress
from wtl_core.training.image_cache import PoolImages
from wtl_core.workspace import selections
from wtl_core.workspace.storage import Store, open_store


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("benchmark")
    return folder, *run_all(folder / "out", write_set(folder / "set"))


def test_a_finished_grid_is_not_touched_again(finished: Finished) -> None:
    folder, _, prepared, done = finished
    assert done == len(grid.all_cells(prepared, PARAMS)) == 3 * 2 * 3 * 2 + 2 * 2 * 2
    before = {f.name: f.stat().st_mtime_ns for f in (folder / "out" / "cells").iterdir()}
    assert run_all(folder / "out", folder / "set")[2] == 0
    assert before == {f.name: f.stat().st_mtime_ns for f in (folder / "out" / "cells").iterdir()}


def test_more_seeds_and_strategies_add_cells_and_repeat_none(finished: Finished) -> None:
    _, store, prepared, _ = finished
    more = PARAMS.model_copy(update={"seeds": 4, "strategies": (*PARAMS.strategies, "k-center", "entropy")})
    todo = [cell for batch in batches(store, prepared, more) for cell in batch.cells]
    assert all(cell.seed == 3 or cell.strategy in ("k-center", "entropy") for cell in todo)


def test_a_loop_is_done_again_only_for_what_it_depends_on(finished: Finished) -> None:
    _, store, prepared, _ = finished

    def todo(**update: Any) -> set[tuple[str, int]]:
        params = PARAMS.model_copy(update=update)
        return {(cell.strategy, cell.labels) for batch in batches(store, prepared, params) for cell in batch.cells}

    one_pass = {(name, 60) for name in ("random", "class-balanced-random", "coverage")}
    assert todo(budgets=(30, 10), loop_budget="26%") == set()  # 26 % of the pool are 31
    assert todo(budgets=(10, 30, 60)) == one_pass  # beyond where loops stop
    assert todo(budgets=(10, 30, 60), loop_budget=60) == {*one_pass, ("margin", 60)}
    assert ("margin", 30) in todo(budgets=(10, 20, 30))
    assert todo(loop_rounds=3) == todo(loop_candidates=200) == {("margin", 10), ("margin", 30)}


def test_a_loop_that_goes_on_to_a_later_budget_gives_what_a_whole_one_gives(finished: Finished, tmp_path: Path) -> None:
    folder, _, _, _ = finished
    params = PARAMS.model_copy(
        update={"budgets": (10, 30), "loop_budget": 10, "strategies": ("random", "margin"), "judges": ("probe",),
                "seeds": 2, "loop_seeds": 1}
    )  # fmt: skip
    longer = params.model_copy(update={"loop_budget": 30})
    run_all(tmp_path / "first", folder / "set", params)
    store, prepared, done = run_all(tmp_path / "first", folder / "set", longer)
    assert done == 1
    whole, _, _ = run_all(tmp_path / "whole", folder / "set", longer)
    last, identity = (
        GridCell("balanced", "margin", "probe", 30, 0),
        grid.identity_of(prepared, longer, "cpu"),
    )
    rows = [grid_cells.read(one, identity, last) for one in (store, whole)]
    assert (rows[0]["picks"], rows[0]["accuracy"]) == (rows[1]["picks"], rows[1]["accuracy"])


def test_another_version_of_one_loop_makes_its_cells_anew_and_no_others(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, store, prepared, _ = finished
    assert not batches(store, prepared)
    monkeypatch.setitem(grid_cells.LOOP_VERSIONS, "mc-dropout", 99)
    assert not batches(store, prepared)
    monkeypatch.setitem(grid_cells.LOOP_VERSIONS, "margin", 2)
    assert {cell.strategy for batch in batches(store, prepared) for cell in batch.cells} == {"margin"}


def test_another_selection_makes_its_orders_and_their_cells_anew_and_no_others(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, store, prepared, _ = finished
    assert not grid.missing_orders(store, prepared, PARAMS)
    monkeypatch.setattr(selections, "VERSION", selections.VERSION + 1)
    assert {order.strategy for order in grid.missing_orders(store, prepared, PARAMS)} == {"coverage"}
    assert {cell.strategy for batch in batches(store, prepared) for cell in batch.cells} == {"coverage"}


def test_coverage_with_labels_is_one_order_for_all_judges_with_a_wait_at_each_budget(
    finished: Finished, tmp_path: Path
) -> None:
    folder, _, _, _ = finished
    params = PARAMS.model_copy(
        update={"strategies": ("random", "coverage", STEERED), "judges": ("nearest", "probe", "scratch"), "seeds": 2,
                "scratch_width": 8, "scratch_effort": 0.1, "pool_share": 0.8, "budgets": (10, 20, 40)}
    )  # fmt: skip
    store, prepared, _ = run_all(tmp_path / "out", folder / "set", params)
    assert len(store.names("orders")) == 2 * 2
    rows = grid_cells.gather(store, grid.identity_of(prepared, params, "cpu"), grid.all_cells(prepared, params))
    steered = [row for row in rows if row["strategy"] == STEERED]
    assert {(row["labels"], row["rounds"], row["label_waits"]) for row in steered} == {
        (10, 0, 1),
        (20, 1, 2),
        (40, 2, 3),
    }
    for judge in params.judges:
        spent = [row["selection_seconds"] for row in steered if (row["judge"], row["seed"]) == (judge, 0)]
        assert spent == sorted(set(spent))
        same = [row["accuracy"] for row in rows if (row["judge"], row["labels"], row["seed"]) == (judge, 10, 0)]
        assert same[1] == same[2]  # up to the first wait it is coverage
    bench = work.Bench(store, prepared, params, "balanced", "cpu")
    held = bench.picks_of(GridCell("balanced", STEERED, "probe", 40, 0))[0]
    assert set(held) <= set(strategies.members(bench.ids, share=0.8, seed=0))
    last = [cell for batch in batches(store, prepared, params.model_copy(update={"budgets": (10, 20, 40, 60)}))
            for cell in batch.cells]  # fmt: skip
    assert {cell.labels for cell in last} == {60}
    between = [cell for batch in batches(store, prepared, params.model_copy(update={"budgets": (10, 15, 20, 40)}))
               for cell in batch.cells]  # fmt: skip
    assert {cell.labels for cell in between if cell.strategy == STEERED} == {15, 20, 40}
    assert {cell.labels for cell in between if cell.strategy != STEERED} == {15}


def test_other_labels_make_another_order_with_labels(finished: Finished) -> None:
    _, _, prepared, _ = finished
    other = replace(prepared, digest="another")
    for strategy, is_same in (("coverage", True), (STEERED, False)):
        cell = GridCell("balanced", strategy, "probe", 10, 0)
        keys = {grid.order_of(held, PARAMS, cell).key() for held in (prepared, other)}
        assert (len(keys) == 1) == is_same


def test_what_a_loop_by_the_probe_picks_is_judged_by_nearest_too(finished: Finished) -> None:
    folder, store, prepared, _ = finished
    identity = grid.identity_of(prepared, PARAMS, "cpu")
    vectors, labels = (preparation.load_array(store, prepared, f"balanced-{what}") for what in ("vectors", "labels"))
    asked = [preparation.load_array(store, prepared, name) for name in ("balanced-test-vectors", "test-labels")]
    for seed in range(2):
        chosen, judged = (
            grid_cells.read(store, identity, GridCell("balanced", "margin", judge, 30, seed))
            for judge in ("probe", "nearest")
        )
        assert chosen is not None
        assert judged is not None
        tensors = [torch.from_numpy(np.array(a)) for a in (vectors[chosen["picks"]], labels[chosen["picks"]], *asked)]
        assert judged["accuracy"] == judges.nearest_accuracy(*tensors, classes=2)
        for same in ("rounds", "label_waits", "selection_seconds", "usable"):
            assert judged[same] == chosen[same]
        assert judged["picks"] == []
        again = GridCell("balanced", "margin", "nearest", 30, seed)
        Path(store.path(identity.key(again))).unlink()
        assert run_all(Path(store.root), folder / "set")[2] == 1  # by the picks of the finished loop
        repeated = grid_cells.read(store, identity, again)
        assert repeated is not None
        assert repeated["accuracy"] == judged["accuracy"]


def test_shuffled_labels_change_no_order_and_no_vector(finished: Finished, tmp_path: Path) -> None:
    folder, _, _, _ = finished
    every = PARAMS.model_copy(update={"strategies": ("random", *RANKED), "budgets": (10,), "seeds": 2})
    store, prepared, _ = run_all(tmp_path / "as it is", folder / "set", every)
    other, shuffled, _ = run_all(tmp_path / "out", write_set(tmp_path / "set", label_seed=1), every)
    assert shuffled.digest != prepared.digest
    assert [pool.digest for pool in shuffled.pools] == [pool.digest for pool in prepared.pools]  # over ids and vectors
    assert store.names("orders") == other.names("orders")
    assert len(store.names("orders")) == len(RANKED) + 1  # stratified-random draws by the seed
    for name in store.names("orders"):
        held = [np.load(io.BytesIO(s.read_bytes(f"orders/{name}")))["rows"] for s in (store, other)]
        np.testing.assert_array_equal(*held)


def test_an_encoder_trained_for_a_benchmark_sees_its_pool_alone(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wtl_core.images.decode import decode_rgb
    from wtl_core.training import training

    folder, _, _, _ = finished
    store, seen = open_store(str(tmp_path / "out")), []

    def watch(images: PoolImages, *args: object, **kwargs: object) -> str:
        decoded = [(row, decode_rgb(data)) for row, data in images.read([2, 0])]
        seen.append((list(images.sample_ids), decoded))
        return "pixels"

    monkeypatch.setattr(training, "train", watch)
    params = PARAMS.model_copy(update={"encoder": "ssl", "pools": ("balanced", "long-tail-bursts")})
    prepared = preparation.prepare(store, str(folder / "set"), params, device="cpu")
    held = datasets.load(str(folder / "set"), side_px=16)
    assert [ids for ids, _ in seen] == [preparation.load_ids(store, prepared, pool.kind) for pool in prepared.pools]
    assert seen[0][0] == held.train.sample_ids
    assert not set(seen[1][0]) >= set(held.train.sample_ids)
    for pool, (ids, decoded) in zip(prepared.pools, seen, strict=True):
        assert not set(ids) & set(held.test.sample_ids)
        images = preparation.load_array(store, prepared, f"{pool.kind}-images")
        for row, image in decoded:
            np.testing.assert_array_equal(image, images[row])
        judged = preparation.load_array(store, prepared, f"{pool.kind}-test-vectors")
        assert len(judged) == len(held.test)


def test_the_preparation_tells_how_far_it_is(finished: Finished, tmp_path: Path) -> None:
    folder, _, _, _ = finished
    told: dict[str, list[tuple[int, int]]] = {}

    @contextmanager
    def stage(name: str, unit: str) -> Iterator[Progress]:
        assert unit == "images"
        yield lambda done, total: told.setdefault(name, []).append((done, total))

    params = PARAMS.model_copy(update={"pools": ("bursts",)})
    prepared = preparation.prepare(
        open_store(str(tmp_path / "out")), str(folder / "set"), params, device="cpu", stage=stage
    )
    copies = prepared.pools[0].size - 120
    assert told["reading"] == [(done, 150) for done in range(1, 151)]
    assert told["near-copies"] == [(done, copies) for done in range(1, copies + 1)]
    assert told["embedding"] == [(120 + copies, 120 + copies), (30, 30)]


def test_an_encoder_that_is_there_already_costs_what_its_training_took(tmp_path: Path) -> None:
    from wtl_core.encoders import cards

    params = PARAMS.model_copy(update={"encoder": "ssl", "encoder_seconds": 1.0})
    store, dataset = open_store(str(tmp_path / "out")), str(write_set(tmp_path / "set"))
    first = preparation.prepare(store, dataset, params, device="cpu")
    (card,) = [card for name in store.names(cards.FOLDER) if (card := cards.load_card(store, name))]
    trained = card["seconds_since_last_start"]
    assert trained > 0.1
    again = preparation.prepare(store, dataset, params.model_copy(update={"test_images": 3}), device="cpu")
    assert again.key != first.key
    assert again.pools[0].encoder == first.pools[0].encoder
    assert min(prepared.pools[0].encoder_seconds for prepared in (first, again)) > trained


def test_a_strategy_whose_package_is_missing_is_refused_before_any_work(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _, _, _ = finished
    monkeypatch.setattr(params_module, "find_spec", lambda _: None)
    asked = PARAMS.model_copy(update={"strategies": ("random", "mundig")})
    with pytest.raises(ConfigError, match="pip install lightly-mundig"):
        preparation.prepare(open_store(str(tmp_path / "out")), str(folder / "set"), asked, device="cpu")
    assert not (tmp_path / "out").exists()


KILLED = """
import sys, time
sys.path.insert(0, {tests!r})
import small_benchmark as here
from pathlib import Path
from wtl_core.workspace import selections
from wtl_core.benchmark import grid_cells
write = grid_cells.write
def slowly(*arguments):
    write(*arguments)
    time.sleep(0.15)
grid_cells.write = slowly
print("ready", flush=True)
here.run_all(Path({output!r}), Path({dataset!r}))
"""


def test_a_killed_grid_goes_on_where_it_was(finished: Finished, tmp_path: Path) -> None:
    folder, store, prepared, done = finished
    output = tmp_path / "out"
    code = KILLED.format(tests=str(Path(__file__).parents[1]), output=str(output), dataset=str(folder / "set"))
    child = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    while len(list((output / "cells").glob("*.parquet"))) < 5:
        assert child.poll() is None, child.stderr.read().decode()
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    kept = {f.name: f.stat().st_mtime_ns for f in (output / "cells").glob("*.parquet")}
    assert 5 <= len(kept) < done
    again, prepared_again, rest = run_all(output, folder / "set")
    assert rest == done - len(kept)
    after = {f.name: f.stat().st_mtime_ns for f in (output / "cells").glob("*.parquet")}
    assert {name: after[name] for name in kept} == kept
    results = [
        [{k: v for k, v in row.items() if "seconds" not in k and k != "validation_accuracy"} for row in rows]
        for rows in (
            grid_cells.gather(s, grid.identity_of(p, PARAMS, "cpu"), grid.all_cells(p, PARAMS))
            for s, p in ((store, prepared), (again, prepared_again))
        )
    ]
    assert results[0] == results[1]


@pytest.mark.parametrize("judge", ["nearest", "probe", "scratch"])
def test_seconds_to_train_are_training_alone(finished: Finished, monkeypatch: pytest.MonkeyPatch, judge: str) -> None:
    _, store, prepared, _ = finished
    told = []
    params = PARAMS.model_copy(update={"scratch_width": 8, "scratch_effort": 0.01})
    for place, name in ((judges, f"{judge}_accuracy"), (network, "accuracy"), (work, "load_array")):
        real = getattr(place, name, None)
        watch = lambda *args, name=name, real=real, **kinds: (told.append(name), real(*args, **kinds))[1]  # noqa: E731
        monkeypatch.setattr(place, name, watch, raising=False)
    monkeypatch.setattr(judges, "clock", lambda _: (told.append("clock"), float(len(told)))[1])
    result = work.Bench(store, prepared, params, "balanced", "cpu").judge(GridCell("balanced", "random", judge, 10, 0))
    began = told.index("clock")
    assert told[began + 1] == "clock"
    assert result.train_seconds == 1.0
    assert "load_array" in told[:began]
    assert told[-1].endswith("accuracy")


def test_a_pool_of_its_own_for_each_seed_is_shared_by_all_strategies(finished: Finished, tmp_path: Path) -> None:
    folder, _, _, _ = finished
    params = PARAMS.model_copy(update={"pool_share": 0.5, "strategies": ("random", "coverage"), "budgets": ("100%",)})
    store, prepared, _ = run_all(tmp_path / "out", folder / "set", params)
    bench = work.Bench(store, prepared, params, "balanced", "cpu")
    size = budgets_of(params, len(bench.ids))[0]
    assert size == round(0.5 * len(bench.ids))
    for seed in range(2):
        held = [set(bench.picks_of(GridCell("balanced", s, "probe", size, seed))[0]) for s in params.strategies]
        assert held[0] == held[1]
    assert held[0] != set(bench.picks_of(GridCell("balanced", "random", "probe", size, 0))[0])


def test_the_smallest_pool_of_a_seed_has_two_images(finished: Finished, tmp_path: Path) -> None:
    folder, _, _, _ = finished
    params = PARAMS.model_copy(update={"pool_share": 1e-4, "strategies": ("random",), "judges": ("probe",)})
    store, prepared, _ = run_all(tmp_path / "out", folder / "set", params)
    rows = grid_cells.gather(store, grid.identity_of(prepared, params, "cpu"), grid.all_cells(prepared, params))
    assert {(row["labels"], row["pool_size"]) for row in rows} == {(2, 2)}
    assert statistics.curve(rows, pool="balanced", judge="probe", strategy="random")[0].percent == 100.0


def test_a_loop_goes_on_from_a_budget_that_its_first_round_reached(finished: Finished, tmp_path: Path) -> None:
    folder, _, _, _ = finished
    params = PARAMS.model_copy(
        update={"budgets": (2, 10), "loop_budget": 10, "strategies": ("random", "margin"), "judges": ("probe",)}
    )
    store, prepared, _ = run_all(tmp_path / "out", folder / "set", params)
    identity = grid.identity_of(prepared, params, "cpu")
    first, last = (GridCell("balanced", "margin", "probe", count, 0) for count in (2, 10))
    assert len(grid_cells.read(store, identity, first)["picks"]) == 2
    whole = grid_cells.read(store, identity, last)
    Path(store.path(identity.key(last))).unlink()
    assert run_all(tmp_path / "out", folder / "set", params)[2] == 1
    again = grid_cells.read(store, identity, last)
    assert (again["picks"], again["accuracy"]) == (whole["picks"], whole["accuracy"])


def test_labels_that_name_no_class_score_nothing(finished: Finished, tmp_path: Path) -> None:
    folder, _, _, _ = finished
    params = PARAMS.model_copy(
        update={"pools": ("outliers",), "judges": ("nearest", "probe", "scratch"), "scratch_width": 8,
                "scratch_effort": 0.1, "seeds": 2, "loop_seeds": 1, "validation_share": 0.2}
    )  # fmt: skip
    store = open_store(str(tmp_path / "out"))
    prepared = preparation.prepare(store, str(folder / "set"), params, device="cpu")
    labels = preparation.load_array(store, prepared, "outliers-labels")
    np.save(store.path(f"{prepared.key}/outliers-labels.npy"), np.full_like(labels, -1))
    run_all(tmp_path / "out", folder / "set", params)
    wanted = grid.all_cells(prepared, params)
    rows = grid_cells.gather(store, grid.identity_of(prepared, params, "cpu"), wanted)
    assert len(rows) == len(wanted)
    assert {(row["accuracy"], row["usable"]) for row in rows} == {(0.0, 0)}
    assert summary.write(store, prepared, params, device="cpu").missing == 0


def test_other_weights_under_an_old_name_are_another_preparation(tmp_path: Path) -> None:
    weights = tmp_path / "net.safetensors"
    for form in ("file:{}", "timm:resnet18@{}", "torchvision:resnet18@{}"):
        params = BenchmarkParams(encoder=form.format(weights))
        keys = []
        for content in (b"one", b"other"):
            weights.write_bytes(content)
            keys.append(preparation.preparation_key(str(tmp_path / "set"), params, None))
        assert keys[0] != keys[1], form


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without pictures, which take most of a page's second, for those who read its text."""
    monkeypatch.setattr(plots, "to_svg", lambda _: "<svg></svg>")
    monkeypatch.setattr(plots, "to_png", lambda _: b"")


@pytest.mark.usefixtures("undrawn")
def test_the_page_says_what_a_rivals_seconds_include(finished: Finished) -> None:
    _, store, prepared, _ = finished
    for strategy, is_told in (("k-center", True), ("entropy", False)):
        params = PARAMS.model_copy(update={"strategies": (*PARAMS.strategies, strategy)})
        page = store.read_bytes(summary.write(store, prepared, params, device="cpu").markdown).decode()
        assert (f"those of {strategy} include tracing" in page) == is_told


def test_the_network_from_scratch_sees_smaller_images_than_the_encoder(finished: Finished, tmp_path: Path) -> None:
    folder, store, prepared, _ = finished
    params = PARAMS.model_copy(update={"judges": ("scratch",), "scratch_side_px": 8, "seeds": 2, "loop_seeds": 1,
                                       "scratch_width": 8, "scratch_effort": 0.05})  # fmt: skip
    small_store, small, _ = run_all(tmp_path, folder / "set", params)
    assert small.pools[0].digest == prepared.pools[0].digest  # the same vectors
    for name in ("balanced-images", "test-images"):
        whole = preparation.load_images(store, prepared, name)[:].astype(float)
        averages = whole.reshape(len(whole), 3, 8, 2, 8, 2).mean(axis=(3, 5))
        np.testing.assert_allclose(preparation.load_images(small_store, small, name)[:], averages, atol=0.5)
    identities = [
        grid.identity_of(small, one, "cpu") for one in (params, params.model_copy(update={"scratch_side_px": 64}))
    ]
    keys = [identity.key(GridCell("balanced", "random", "scratch", 10, 0)) for identity in identities]
    assert keys[0] != keys[1]


@pytest.mark.usefixtures("undrawn")
def test_the_page_says_how_the_network_from_scratch_learns(finished: Finished) -> None:
    _, store, prepared, _ = finished
    params = PARAMS.model_copy(update={"judges": ("scratch",), "budgets": (16, 128), "scratch_effort": 0.1})
    page = store.read_bytes(summary.write(store, prepared, params, device="cpu").markdown).decode()
    assert "ResNet-9 of width 16 on 16 px, 20 passes over 16 in steps of 32, 18 passes over 120 in steps of 32" in page


def test_the_page_names_strategies_tests_and_costs(finished: Finished) -> None:
    _, store, prepared, _ = finished
    made = summary.write(store, prepared, PARAMS, device="cpu", command="wtl benchmark <set>")
    page, text = (store.read_bytes(key).decode() for key in (made.html, made.markdown))
    assert made.missing == 0
    for shown in (page, text):
        for words in ("coverage", "class-balanced-random", "oracle", "margin", "label waits", "Holm", "wtl benchmark"):
            assert words in shown, words
    assert "<svg" in page
    assert "<script" not in page
    assert "wtl benchmark &lt;set&gt;" in page
    assert all(store.read_bytes(picture).startswith(b"\x89PNG") for picture in made.pictures)
    waits = [row["label_waits"] for row in rows_of(store) if row["strategy"] == "margin" and row["labels"] == 30]
    assert waits == [5] * 4


def rows_of(store: Store) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return pq.read_table(io.BytesIO(store.read_bytes("results.parquet"))).to_pylist()


@pytest.mark.usefixtures("undrawn")
def test_the_page_says_what_its_figures_are_over(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    _, store, prepared, _ = finished

    def page(like: Prepared = prepared, **update: Any) -> str:
        made = summary.write(store, like, PARAMS.model_copy(update=update), device="cpu")
        return store.read_bytes(made.markdown).decode()

    monkeypatch.setattr(summary, "processor_name", lambda: "Some CPU, 2 cores")
    whole, few = page(), page(seeds=2, loop_seeds=3, pool_share=0.5)
    for words in ("- hardware: Some CPU, 2 cores", "- seeds: 3 (loops 2)", "2 rounds from one budget to the next",
                  "up to 20,000 unlabelled images", "not over pools or encoders"):  # fmt: skip
        assert words in whole, words
    assert "- seeds: 2\n" in few
    assert "not over pools" not in few
    from_files = replace(prepared, pools=[replace(pool, encoder="files in x, made") for pool in prepared.pools])
    bursts = replace(prepared, pools=[replace(from_files.pools[0], kind="bursts")])
    assert ["those of their origins" in page(like) for like in (prepared, from_files, bursts)] == [False, False, True]


def test_the_processor_is_named_with_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda _: True)
    monkeypatch.setattr(Path, "read_text", lambda _: "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t: x\n")
    assert summary.processor_name().startswith("Some CPU @ 2 GHz, ")
    monkeypatch.setattr(Path, "exists", lambda _: False)
    assert re.fullmatch(r".* CPU, \d+ cores", summary.processor_name())


@pytest.mark.usefixtures("undrawn")
def test_costs_stand_at_a_budget_that_all_have_and_count_the_encoder_where_it_is_needed(finished: Finished) -> None:
    _, store, prepared, _ = finished
    more = PARAMS.model_copy(update={"budgets": (10, 30, 60)})
    like = replace(prepared, pools=[replace(pool, encoder_seconds=1000.0) for pool in prepared.pools])
    rows = grid_cells.gather(store, grid.identity_of(prepared, PARAMS, "cpu"), grid.all_cells(prepared, PARAMS))
    rows += [{**row, "labels": 60} for row in rows if row["labels"] == 30 and row["strategy"] != "margin"]
    section = next(s for s in summary.sections_of(rows, prepared, more) if s.judge == "probe")
    assert {cost.labels for _, cost in section.costs} == {30}
    assert not replace(section, judge="scratch").needs_vectors("margin")
    made = summary.write(store, like, PARAMS, device="cpu")
    page, text = (store.read_bytes(key).decode() for key in (made.html, made.markdown))
    columns = {line.split(",")[0]: line.split("|")[4:6] for line in text.splitlines() if ", 30 labels" in line}
    assert {name.strip("| "): float(with_it) - float(alone) >= 999 for name, (alone, with_it) in columns.items()} == {
        "random": False, "class-balanced-random": False, "coverage": True, "margin": True
    }  # fmt: skip
    assert "<th>with the encoder</th>" in page


def test_vectors_from_files_are_taken_by_reading_order(finished: Finished, tmp_path: Path) -> None:
    folder, store, by_encoder, _ = finished
    held = datasets.load(str(folder / "set"), side_px=16)
    for name, split in (("train", held.train), ("test", held.test)):
        given = np.zeros((len(split), 2), np.float32)
        given[split.rows, 0] = np.arange(len(split)) + 1
        np.save(tmp_path / f"{name}-embeddings.npy", given)
    got = preparation.prepare(store, str(folder / "set"), PARAMS, device="cpu", vectors=tmp_path)
    vectors = preparation.load_array(store, got, "balanced-vectors")
    np.testing.assert_array_equal(vectors[:, 0], np.arange(len(held.train)) + 1)
    cells = [GridCell("balanced", s, j, 10, 0) for s in ("random", "coverage") for j in ("scratch", "probe")]
    one, other = (grid.identity_of(found, PARAMS, "cpu") for found in (by_encoder, got))
    # a network trained on random picks sees no vector: whoever compares two encoders trains it once
    assert [one.key(cell) == other.key(cell) for cell in cells] == [True, False, False, False]
    outliers = PARAMS.model_copy(update={"pools": ("outliers",)})
    with pytest.raises(InputError, match="encoder"):
        preparation.prepare(store, str(folder / "set"), outliers, device="cpu", vectors=tmp_path)
    np.save(tmp_path / "train-embeddings.npy", np.zeros((200, 2), np.float32))
    with pytest.raises(ConfigError, match="a row for each of"):
        preparation.prepare(store, str(folder / "set"), PARAMS, device="cpu", vectors=tmp_path)
    (tmp_path / "train-embeddings.npy").write_bytes(b"junk")
    with pytest.raises(InputError, match="an array of vectors"):
        preparation.prepare(store, str(folder / "set"), PARAMS, device="cpu", vectors=tmp_path)
    with pytest.raises(ConfigError, match="train-embeddings"):
        preparation.prepare(store, str(folder / "set"), PARAMS, device="cpu", vectors=tmp_path / "nothing")


def test_the_judge_from_scratch_runs_in_the_grid(finished: Finished, tmp_path: Path) -> None:
    folder, _, _, _ = finished
    params = PARAMS.model_copy(
        update={"judges": ("scratch",), "seeds": 2, "budgets": (20,), "loop_budget": 20, "loop_seeds": 2,
                "scratch_width": 8, "scratch_effort": 0.1, "strategies": ("random", "coverage", "dal", "mc-dropout")}
    )  # fmt: skip
    store, prepared, done = run_all(tmp_path / "out", folder / "set", params)
    assert done == 8
    rows = grid_cells.gather(store, grid.identity_of(prepared, params, "cpu"), grid.all_cells(prepared, params))
    assert {row["label_waits"] for row in rows} == {1, 3}
    json.dumps(rows, allow_nan=True)


def test_loops_that_would_not_run_are_refused_by_the_key_to_change(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder, store, prepared, _ = finished
    with pytest.raises(ValueError, match="judges: expected probe or scratch for badge, found nearest alone"):
        BenchmarkParams(strategies=("random", "badge"), judges=("nearest",))
    short = PARAMS.model_copy(update={"loop_budget": 9})
    too_short = r"loop_budget: expected 10 labels or more.*found 9 in pool balanced of 120"
    with pytest.raises(ConfigError, match=too_short):
        preparation.prepare(store, str(folder / "set"), short, device="cpu")
    monkeypatch.setattr(preparation.EncoderVectors, "make", None)
    with pytest.raises(ConfigError, match=too_short):
        preparation.prepare(open_store(str(tmp_path)), str(folder / "set"), short, device="cpu")
    without_loops = short.model_copy(update={"strategies": ("random", "coverage"), "budgets": (10, 500)})
    preparation.prepare(store, str(folder / "set"), without_loops, device="cpu")
    assert "pool balanced: 120 images, so the larger budgets 500 mean all of them" in caplog.text
    assert grid.all_cells(prepared, without_loops)


def test_a_benchmark_in_its_own_set_is_refused(finished: Finished) -> None:
    folder, _, _, _ = finished
    with pytest.raises(ConfigError, match="outside the set"):
        preparation.prepare(open_store(str(folder / "set" / "b")), str(folder / "set"), PARAMS, device="cpu")


def test_params_refuse_what_they_do_not_know() -> None:
    for values in ({"strategies": ["random", "magic"]}, {"strategies": ["coverage"]}, {"budgets": ["0%"]}, {"nope": 1}):
        with pytest.raises(ValueError, match="validation error"):
            BenchmarkParams.model_validate(values)
    twice = BenchmarkParams(judges=("probe", "probe"), pools=("bursts", "bursts"), strategies=("random", "random"))
    assert (twice.judges, twice.pools, twice.strategies) == (("probe",), ("bursts",), ("random",))
