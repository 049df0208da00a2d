"""Labels that come back: how fast a large file is entered, what they cost a ranking, wrong labels, and the forecast.

    python tests/bench/bench_labels.py [--quick] [--only speed out steering errors forecast] [--data FOLDER] [--seeds N]

`speed` enters 100,000 labels into a pool of 1,000,000 images that is made of nothing but rows; `out` cuts a ranking of
it, and writes 10,000 picks in each format; `steering` ranks 100,000 vectors beside 10,000 labelled ones, with and
without their 200 classes. `errors` and `forecast` need FOLDER (../shared/data/cifar10; without it they do nothing), as
bench_selection_quality.py does. Writes tests/bench/reports/labels.md. Whether labels make better picks is measured by
bench_proof.py, in its sections `labels`.
"""

import argparse
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import report

from wtl_core.labelling import batch_files, batches, cut, labels
from wtl_core.labelling.batches import Asked
from wtl_core.pool import live_pool, part_file
from wtl_core.workspace import commits, selections, snapshots
from wtl_core.workspace.storage import Store

Row = dict[str, object]
PART_IMAGES = 10_000


def make_pool(folder: Path, count: int) -> Store:
    """A workspace of two images, to whose pool `count` loose files in a thousand folders are added as rows."""
    from tests.conftest import make_jpeg  # here: the process that is measured does without torch
    from tests.plain_refresh import refresh
    from wtl_core.embedding import vectors

    (folder / "photos").mkdir()
    (folder / "photos" / "a.jpg").write_bytes(make_jpeg(1))
    (folder / "photos" / "b.jpg").write_bytes(make_jpeg(2))
    last = refresh(folder / "w", folder / "photos")
    store = Store(str(folder / "w"))
    listing = snapshots.read_snapshot(store, last.listing)
    [first, *_] = pl.read_parquet(store.path(part_file.pool_key(listing["part"][0]))).iter_slices(1)
    generator = np.random.default_rng(0)
    objects = [listing]
    for number in range(count // PART_IMAGES):
        part = f"{number:064x}"
        ids = [generator.bytes(32).hex() for _ in range(PART_IMAGES)]
        uris = [f"/data/pictures/camera-{row % 1000}/IMG_{number:04d}_{row:05d}.jpg" for row in range(PART_IMAGES)]
        hashes = generator.integers(0, 1 << 63, PART_IMAGES, dtype=np.uint64)
        names = {"sample_id": ids, "uri": uris, "object_uri": uris, "phash": hashes}
        rows = pl.concat([first] * PART_IMAGES).with_columns(
            *(pl.Series(name, values) for name, values in names.items()),
            part=pl.lit(part),
            row=pl.int_range(PART_IMAGES, dtype=pl.Int32),
        )
        store.write_frame(part_file.pool_key(part), rows)
        objects.append(pl.concat([listing.head(1)] * PART_IMAGES).with_columns(uri=pl.Series(uris), part=pl.lit(part)))
        table = vectors.open_table(store, last.encoder)
        assert table is not None
        dimensions = table.schema.field("vector").type.list_size
        zeros = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(dimensions * PART_IMAGES, np.float16)), dimensions)
        table.add(pa.table({"sample_id": ids, "vector": zeros}))
    key = snapshots.write_snapshot(store, pl.concat(objects))
    counts = last.counts.model_copy(update={"samples": last.counts.samples + count})
    commits.write(store, last.model_copy(update={"number": last.number + 1, "listing": key, "counts": counts}))
    return store


def make_ranking(store: Store) -> None:
    """In place of the ranking of the two images one of all, in no order of merit; a fifth are replaced by another."""
    last = commits.latest(store)
    assert last is not None
    snapshot = snapshots.read_snapshot(store, last.listing)
    found = live_pool.load_locations(store, snapshot, columns=["sample_id", "uri"]).sample(
        fraction=1, shuffle=True, seed=1
    )
    generator, size = np.random.default_rng(1), found.height
    others = found["sample_id"].gather(generator.integers(0, size, size))
    is_replaced = pl.Series(generator.random(size) < 0.2)
    old = selections.read_ranking(store, last.selection)
    table = pl.DataFrame(
        {
            **{name: pl.Series([None]).extend_constant(None, size - 1) for name in ("duplicate_of", "why")},
            **{name: np.linspace(1, 0, size) for name in ("gain", "coverage", "radius")},
            "rank": np.arange(size),
            "stands_for": generator.integers(1, 9, size),
            "sample_id": found["sample_id"],
            "uri": found["uri"],
            "nearest_earlier": others,
            "replaced_by": pl.select(pl.when(is_replaced).then(others)).to_series(),
        }
    )
    store.write_frame(f"{last.selection}/ranking.parquet", table.select(old.columns).cast(dict(old.schema)))


def enter(workspace: str, file: str) -> None:
    """In a process of its own: what `wtl labels add` does."""
    started = time.perf_counter()
    added = labels.add(Store(workspace), Path(file))
    print(added.added, time.perf_counter() - started, sum(os.times()[:2]), peak_gigabytes())


def cut_there(workspace: str, at: str) -> None:
    """In a process of its own: what `wtl cut` does."""
    started = time.perf_counter()
    picks = cut.run(Store(workspace), at)
    print(picks.table.height, time.perf_counter() - started, sum(os.times()[:2]), peak_gigabytes())


def hand_out_there(workspace: str, output: str) -> None:
    """In a process of its own: what `wtl export --new 10000` does; the name of the output is that of its format."""
    started, store = time.perf_counter(), Store(workspace)
    how = batch_files.wanted(Path(output), Path(output).stem)
    batch = batches.choose(store, Asked(new=10_000))
    rows = batch_files.prepared(store, batch.table, how)
    batches.enter(store, batch)
    batch_files.write(store, rows, how)
    print(rows.height, time.perf_counter() - started, sum(os.times()[:2]), peak_gigabytes())


def in_child(what: str, *words: str | Path) -> tuple[int, Row]:
    """Rows that a process came to, and the cells of its times and memory."""
    command = [sys.executable, __file__, "--child", what, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    count, seconds, busy, peak = map(float, done.stdout.split())
    cells: Row = {"seconds": f"{seconds:.1f}", "with imports, processor": f"{busy:.1f}", "peak": f"{peak:.2f} GB"}
    return int(count), cells


def measure_out(*, is_quick: bool) -> None:
    pool = 100_000 if is_quick else 1_000_000
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = make_pool(folder, pool)
        make_ranking(store)
        for at in ("1%", "7.5%"):
            count, cells = in_child("cut", store.root, at)
            rows.append({"what": f"`cut --at {at}`: {count:,} picks", **cells})
        for form in batch_files.FORMATS.values():
            shutil.rmtree(folder / "w" / "ledger", ignore_errors=True)
            output = folder / f"{form.name}{form.ending}"
            count, cells = in_child("export", store.root, output)
            assert count == 10_000, count
            rows.append({"what": f"`export --new 10000 --format {form.name}`", **cells})
    text = f"A ranking of {pool:,} images. The images that are copied are of 1 KB each."
    report.write("labels", "Speed out", text, rows, is_quick=is_quick)


def peak_gigabytes() -> float:
    """This process's largest resident size; not `ru_maxrss`, which Linux begins at the parent's largest."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1e6


def measure_speed(*, is_quick: bool) -> None:
    pool, count = (100_000, 10_000) if is_quick else (1_000_000, 100_000)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_pool(folder, pool)
        uris = [
            f"/data/pictures/camera-{row % 1000}/IMG_{number:04d}_{row:05d}.jpg" for row, number in drawn(pool, count)
        ]
        for how, names in (
            ("by path", uris),
            ("by the end of a path", [uri.split("/", 3)[3] for uri in uris]),
            ("by file name", [uri.rsplit("/", 1)[1] for uri in uris]),
        ):
            classes = [f"class {row % 200}" for row in range(count)]
            pl.DataFrame({"path": names, "label": classes}).write_csv(folder / "labels.csv")
            shutil.rmtree(folder / "w" / "ledger", ignore_errors=True)
            added, cells = in_child("enter", folder / "w", folder / "labels.csv")
            assert added == count, added
            rows.append({"images are named": how, **cells})
    text = f"`labels add` of {count:,} rows of CSV with 200 classes into a pool of {pool:,}."
    report.write("labels", "Speed", text, rows, is_quick=is_quick)


def drawn(pool: int, count: int) -> list[tuple[int, int]]:
    chosen = np.random.default_rng(1).choice(pool, count, replace=False)
    return [(int(row % PART_IMAGES), int(row // PART_IMAGES)) for row in chosen]


def measure_errors(folder: Path, *, seeds: int, is_quick: bool) -> None:
    """Labels of which one in twenty was flipped to another class: how many of the most doubtful ones are those."""
    from bench_selection_quality import load  # here: torch

    from wtl_core.labelling.label_errors import opinions

    data = load(folder)
    pools = [("balanced", size) for size in ((1_000,) if is_quick else (1_000, 5_000, 20_000))] + [
        ("long tail 50:1", 0)
    ]
    rows: list[Row] = []
    for name, size in pools:
        drawn: dict[str, list[float]] = {}
        for seed in range(seeds):
            generator = np.random.default_rng(seed)
            chosen = (
                generator.choice(len(data.train), size, replace=False) if size else long_tail(data.labels, generator)
            )
            values, right = data.train[chosen], data.labels[chosen].astype(np.int64)
            wrong = np.zeros(len(right), bool)
            wrong[generator.choice(len(right), len(right) // 20, replace=False)] = True
            given = np.where(wrong, (right + generator.integers(1, 10, len(right))) % 10, right)
            started = time.perf_counter()
            found = opinions(values, given, classes=10)
            seconds = time.perf_counter() - started
            listed = (found.best != given) & (found.favourite == found.best)
            first = np.argsort(found.doubt, kind="stable")
            count = int(wrong.sum())
            for what, value in (
                ("labels", len(right)),
                ("flipped", count),
                ("precision at the number flipped", wrong[first[:count]].mean()),
                ("at half of it", wrong[first[: count // 2]].mean()),
                ("listed", listed.sum()),
                ("flipped ones that are listed", wrong[listed].sum() / count),
                ("right class suggested for these", (found.best == right)[listed & wrong].mean()),
                ("seconds", seconds),
            ):
                drawn.setdefault(what, []).append(float(value))
        shares = ("precision", "at half", "flipped ones", "right class")
        rows.append(
            {"pool": name}
            | {
                what: f"{100 * np.mean(values):.1f} % (sd {100 * np.std(values, ddof=1):.1f})"
                if what.startswith(shares)
                else f"{np.mean(values):,.1f}"
                if what == "seconds"
                else f"{np.mean(values):,.0f}"
                for what, values in drawn.items()
            }
        )
    text = (
        f"CIFAR-10's vectors of a SimCLR network, {seeds} draws each; 5 % of the labels are flipped to another class, "
        "uniformly. Precision is the share of flipped labels among the most doubtful ones. The set's own labels count "
        "as right, which a few are not."
    )
    report.write("labels", "Label errors", text, rows, is_quick=is_quick)


def measure_steering(*, is_quick: bool) -> None:
    """What the classes of labels cost a ranking, beside the same ranking without them."""
    from wtl_core.recipe.selection import SelectionParams
    from wtl_core.selection.ranking import Steering, rank

    count, labelled, classes = (5_000, 500, 20) if is_quick else (100_000, 10_000, 200)
    rows: list[Row] = []
    sizes = {"even": np.ones(classes), "50:1": 50.0 ** -np.linspace(0, 1, classes)}
    for dimensions, kind in itertools.product((128, 256), sizes):
        generator = np.random.default_rng(0)
        codes = generator.choice(classes, count + labelled, p=sizes[kind] / sizes[kind].sum())
        values = generator.standard_normal((classes, dimensions), np.float32)[codes]
        values += 1.5 * generator.standard_normal(values.shape, np.float32)
        values = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16)
        ids = [f"{row:064x}" for row in range(count)]
        known = Steering(labelled=values[count:], labelled_classes=[[f"class {code}"] for code in codes[count:]])
        seconds: dict[str, list[float]] = {"ignore": [], "auto": []}
        for _ in range(2):
            for mode, taken in seconds.items():
                started = time.perf_counter()
                params = SelectionParams.model_validate({"labels": mode})
                rank(values[:count], params, sample_ids=ids, steering=known)
                taken.append(time.perf_counter() - started)
        without, steered = min(seconds["ignore"]), min(seconds["auto"])
        rows.append(
            {
                "numbers": dimensions,
                "sizes of classes": kind,
                "without classes": f"{without:.1f} s",
                "with": f"{steered:.1f} s",
                "more": f"{steered - without:.1f} s",
            }
        )
    text = (
        f"Ranking {count:,} vectors beside {labelled:,} labelled ones of {classes} classes, in clusters; the "
        "quicker of two, in turns."
    )
    report.write("labels", "Cost of classes", text, rows, is_quick=is_quick)


def measure_forecast(folder: Path, *, seeds: int, is_quick: bool) -> None:
    """Later labels hidden: how often the forecast's interval holds what they brought."""
    from bench_selection_quality import load  # here: torch
    from sklearn.datasets import load_digits

    data = load(folder)
    digits = load_digits()
    plain = digits.data.astype(np.float32) - digits.data.mean(0, dtype=np.float32)
    plain /= np.linalg.norm(plain, axis=1, keepdims=True)
    found: dict[tuple[str, str], list[tuple[float, float, bool, bool]]] = {}
    for seed in range(2 if is_quick else seeds):
        generator = np.random.default_rng(seed)
        balanced = generator.choice(len(data.train), 8_000, replace=False)
        tail = long_tail(data.labels, generator)
        drawn = generator.permutation(len(plain))[:1_600]
        for name, values, codes in (
            ("CIFAR-10, balanced", data.train[balanced], data.labels[balanced]),
            ("CIFAR-10, long tail 50:1", data.train[tail], data.labels[tail]),
            ("digits, plain pixels", plain[drawn], digits.target[drawn]),
        ):
            for how in ("in one pass", "steered"):
                order = ordered(values, codes, is_steered=how == "steered")
                cases = found.setdefault((name, how), [])
                cases += replays(values, codes.astype(np.int64), order, generator)
    rows: list[Row] = []
    for (name, how), cases in found.items():
        truth, told, is_inside, is_counted = (np.array(column, float) for column in zip(*cases, strict=True))
        rows.append(
            {
                "set": name,
                "picks": how,
                "cases": len(cases),
                "gained, points": f"{100 * truth.mean():.1f}",
                "told": f"{100 * told.mean():.1f}",
                "typical error": f"{100 * np.sqrt(((truth - told) ** 2).mean()):.1f}",
                "interval holds": f"{is_inside.mean():.0%}",
                "that of the goal's labels": f"{is_counted.mean():.0%}",
            }
        )
    everything = np.array([case[2:] for cases in found.values() for case in cases])
    text = (
        f"250 to 2,000 labels, and half as many or as many again that the forecast did not see; its accuracy comes "
        f"from a tenth of the labels as controls, at least 40. What was gained is measured on the rest of the pool. Of "
        f"{len(everything)} cases the interval held {everything[:, 0].mean():.1%}. With the accuracy that was reached "
        f"in the end as a goal, the interval of the labels to it held the truth in {everything[:, 1].mean():.1%}; that "
        "accuracy is judged on a random quarter of the pool, which teaches nothing there."
    )
    report.write("labels", "Forecast", text, rows, is_quick=is_quick)


def ordered(values: np.ndarray, labels: np.ndarray, *, is_steered: bool) -> np.ndarray:
    """Rows to label: by one ranking, or ranked again by the labels at 250, 500, 1,000 and 2,000 of them."""
    from wtl_core.recipe.selection import SelectionParams
    from wtl_core.selection.ranking import Steering, rank

    ids = np.array([f"{row:064x}" for row in range(len(values))])
    params = SelectionParams()
    first = rank(values, params, sample_ids=ids.tolist())
    if not is_steered:
        return first.rows[:4_000]
    picked = first.rows[:250]
    for until in (500, 1_000, 2_000, 4_000):
        rest = np.setdiff1d(np.arange(len(values)), picked)
        if until >= len(values):
            break
        known = Steering(labelled=values[picked], labelled_classes=[[str(code)] for code in labels[picked]])
        again = rank(values[rest], params, sample_ids=ids[rest].tolist(), steering=known, scale=first.scale)
        picked = np.concatenate([picked, rest[again.rows[: until - len(picked)]]])
    return picked


def replays(
    values: np.ndarray, labels: np.ndarray, order: np.ndarray, generator: np.random.Generator
) -> list[tuple[float, float, bool, bool]]:
    """Gain, forecast and whether the intervals hold the gain and the labels that it took, for several sizes."""
    import torch

    from wtl_core.selection import accuracy
    from wtl_core.selection.linear_probe import fit_probe

    def hits(taught: np.ndarray, judged: np.ndarray) -> np.ndarray:
        probe = fit_probe(torch.from_numpy(values[taught]), torch.from_numpy(labels[taught]), classes=10)
        return np.asarray(probe.logits(torch.from_numpy(values[judged])).argmax(1).numpy() == labels[judged])

    cases = []
    for size in (250, 500, 1_000, 2_000):
        for more in (size // 2, size):
            if size + more > min(len(order), 0.7 * len(values)):
                continue
            taught, later = order[:size], order[: size + more]
            rest = np.setdiff1d(np.arange(len(values)), later)
            controls = generator.choice(len(values), max(accuracy.LEAST, size // 10), replace=False)
            judged = accuracy.share_of(hits(np.setdiff1d(taught, controls), controls))
            told = accuracy.forecast(judged, size, more).gain
            gain = float(hits(later, rest).mean() - hits(taught, rest).mean())
            # The goal is the accuracy on a random quarter of the pool that teaches nothing: `rest` is easier.
            others = np.setdiff1d(np.arange(len(values)), controls)
            aside = np.random.default_rng(size + more).choice(others, len(values) // 4, replace=False)
            before, after = (np.setdiff1d(rows, np.concatenate([controls, aside])) for rows in (taught, later))
            now = accuracy.Accuracy(accuracy.share_of(hits(before, controls)), len(controls), len(before))
            goal = accuracy.labels_for(float(hits(after, aside).mean()), now, left=len(values))
            is_held = goal.low is not None and goal.low <= len(after) - len(before)
            is_held &= goal.high is None or len(after) - len(before) <= goal.high
            cases.append((gain, told.value, told.low <= gain <= told.high, is_held))
    return cases


def long_tail(labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Rows of classes whose sizes fall from 2,000 to 40."""
    sizes = (2_000 * 50.0 ** (-generator.permutation(10) / 9)).astype(int)
    rows = [generator.choice(np.flatnonzero(labels == label), size, replace=False) for label, size in enumerate(sizes)]
    return generator.permutation(np.concatenate(rows))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="*", default=["speed", "out", "steering", "errors", "forecast"])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "cifar10")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--child", nargs=3)
    given = parser.parse_args()
    if given.child:
        {"enter": enter, "cut": cut_there, "export": hand_out_there}[given.child[0]](*given.child[1:])
        return
    if "speed" in given.only:
        measure_speed(is_quick=given.quick)
    if "out" in given.only:
        measure_out(is_quick=given.quick)
    if "steering" in given.only:
        measure_steering(is_quick=given.quick)
    if "forecast" in given.only and given.data.exists():
        measure_forecast(given.data, seeds=given.seeds, is_quick=given.quick)
    if "errors" in given.only and given.data.exists():
        measure_errors(given.data, seeds=2 if given.quick else given.seeds, is_quick=given.quick)


if __name__ == "__main__":
    main()
