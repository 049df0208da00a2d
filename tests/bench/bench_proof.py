"""The proof: selection against random picks and against active learning, by section, into one report.

    python tests/bench/bench_proof.py [--quick] [--device cuda] [--only scratch tail ...] [--workers N] [--seconds S]

Finished cells are kept in `--output` and found again, so that a run that was stopped, or stopped itself after
`--seconds`, goes on; the report says how many cells of how many it speaks of. Quick runs only print. Needs CIFAR-10 as
Parquet (`--data`); its folder, or `--vectors`, holds `train-embeddings.npy` and `test-embeddings.npy`, or an encoder is
trained.
"""

import argparse
import datetime
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import report
import torch

from wtl_core.benchmark import grid, preparation, summary, work
from wtl_core.benchmark.params import LOOPS, STRATEGIES, BenchmarkParams
from wtl_core.machine import Progress
from wtl_core.workspace.storage import open_store

ROOT = Path(__file__).resolve().parents[2]
CIFAR = ROOT.parent / "shared" / "data" / "cifar10"
CLOTHING = ROOT.parent / "shared" / "data" / "clothing"
FASHION = Path("/usr/share/datasets/fashion-mnist")
RIVALS = ("class-balanced-random", "stratified-random", "k-center", "typicality", "probability-coverage", "mundig")
SECTIONS = {
    "scratch": "CIFAR-10, a network trained from scratch: coverage against random",
    "scratch-auto": "CIFAR-10, from scratch, picks by the encoder that `auto` chooses",
    "scratch-hasty": "CIFAR-10, the same by networks trained for 0.4 of the passes",
    "scratch-given": "CIFAR-10, from scratch, picks by the SimCLR vectors of the set",
    "scratch-given-hasty": "CIFAR-10, the same by networks trained for 0.4 of the passes, picks by the SimCLR vectors",
    "scratch-large": "CIFAR-10, from scratch on 10,000 and 20,000 images, picks by the SimCLR vectors of the set",
    "tail": "CIFAR-10 with a long tail (50:1) and bursts, a network trained from scratch",
    "tail-given": "CIFAR-10 with a long tail and bursts, from scratch, picks by the SimCLR vectors of the set",
    "tail-auto": "CIFAR-10 with a long tail and bursts, from scratch, picks by the encoder that `auto` chooses",
    "clothing-scratch": "Photographs of clothes, a long tail, networks trained from scratch, picks by `auto`",
    "rivals": "CIFAR-10, one-pass strategies judged on the vectors",
    "rivals-tail": "CIFAR-10 with a long tail and bursts, one-pass strategies judged on the vectors",
    "loops": "CIFAR-10, active learning on the vectors",
    "loops-small": "CIFAR-10, active learning on the vectors, from pools of 10,000",
    "loops-scratch": "CIFAR-10, active learning with networks trained from scratch",
    "labels": "CIFAR-10, balanced, labels that come back: coverage ranked again by them at each budget",
    "labels-auto": "CIFAR-10, balanced, labels that come back, by the encoder that `auto` chooses",
    "labels-tail": "CIFAR-10 with a long tail (50:1), labels that come back",
    "labels-tail-auto": "CIFAR-10 with a long tail (50:1), labels that come back, by the encoder that `auto` chooses",
    "labels-bursts": "CIFAR-10 with a long tail and bursts, labels that come back",
    "labels-clothing": "Photographs of clothes, a long tail, labels that come back, by the encoder that `auto` chooses",
    "labels-fashion": "Fashion-MNIST, balanced, labels that come back, by the encoder that `auto` chooses",
    "labels-fashion-tail": "Fashion-MNIST with a long tail (50:1), labels that come back, by the encoder of `auto`",
    "labels-digits": "scikit-learn's digits, balanced and with a long tail and bursts, labels that come back",
    "labels-scratch": "CIFAR-10 with a long tail (50:1), labels that come back, networks trained from scratch",
    "digits": "scikit-learn's digits: balanced, long tail with bursts, outliers; each seed with a pool of its own",
    "fashion": "Fashion-MNIST, judged on the vectors of the training-free encoder",
}


def params_of(section: str, *, is_cuda: bool, is_quick: bool, seeds: int | None) -> BenchmarkParams:
    """What a section compares on this machine.

    On a CPU grids are smaller, most pools are a fifth of the images, and networks of the largest grids are trained for
    0.4 of the passes. By so few, different images teach little more than repeated ones: 5,000 of a long tail with
    bursts 57.5 % by coverage and 54.6 by random, where 62.7 and 55.9 are to be had.
    """
    low, high = (500, 1000, 2500, 5000), (500, 1000, 2500, 5000, 10_000, 20_000)
    few = (100, 250, 500, 1000, 2500)
    scratch = {"judges": ("scratch",), "seeds": 10 if is_cuda else 5}
    hasty = {**scratch, "scratch_effort": 1.0 if is_cuda else 0.4}
    on_vectors = {"budgets": (*few, 5000) if is_cuda else few, "seeds": 10 if is_cuda else 5}
    on_vectors |= {"pool_share": 0.9 if is_cuda else 0.2}
    loops = {"strategies": ("random", "coverage", *LOOPS), "loop_budget": 2500, "loop_seeds": 5 if is_cuda else 3}
    loops_on_vectors = {"judges": ("probe",), "budgets": few, "seeds": 10, "loop_seeds": 10}
    rivals = {**on_vectors, "strategies": ("random", "coverage", *RIVALS)}
    labels = {
        "strategies": ("random", "coverage", "coverage+labels", "margin", "badge"),
        "judges": ("nearest", "probe"),
        "seeds": 10,
        "loop_seeds": 10,
        "budgets": few,
        "loop_budget": 5000,
        "pool_share": 0.9,
    }
    tiny = {"encoder": "pixels", "has_flips": False, "seeds": 10}
    values: dict = {
        "scratch": {**scratch, "budgets": high if is_cuda else low},
        "scratch-auto": {**scratch, "encoder": "auto", "budgets": low},
        "scratch-hasty": {**scratch, "scratch_effort": 0.4, "budgets": low},
        "scratch-given": {**scratch, "budgets": low},
        "scratch-given-hasty": {**scratch, "scratch_effort": 0.4, "budgets": low},
        "scratch-large": {**hasty, "budgets": (10_000, 20_000)},
        "tail": {**scratch, "budgets": low, "pools": ("long-tail-bursts",)},
        "tail-given": {**scratch, "budgets": low, "pools": ("long-tail-bursts",)},
        "tail-auto": {**scratch, "encoder": "auto", "budgets": low, "pools": ("long-tail-bursts",)},
        "clothing-scratch": {
            **scratch,
            "encoder": "auto",
            "side_px": 160,
            "budgets": (*few[:4], 2000),
            "pool_share": 0.8,
        },
        "rivals": rivals,
        "rivals-tail": {**rivals, "pools": ("long-tail-bursts",)},
        "loops": {**on_vectors, **loops, **loops_on_vectors, "pool_share": 0.9},
        "loops-small": {**on_vectors, **loops, **loops_on_vectors, "pool_share": 0.2},
        "loops-scratch": {**hasty, **loops, "budgets": (500, 1000, 2500) if is_cuda else (500, 1000)},
        # some 12,000 images of 50,000, 14,000 and 45,000: pools are drawn anew for each seed
        "labels": {**labels, "budgets": (*few, 5000), "pool_share": 0.24},
        "labels-auto": {**labels, "encoder": "auto", "side_px": 160, "budgets": (*few, 5000), "pool_share": 0.24},
        "labels-tail": {**labels, "pools": ("long-tail",)},
        "labels-tail-auto": {**labels, "encoder": "auto", "side_px": 160, "pools": ("long-tail",)},
        "labels-bursts": {**labels, "pools": ("long-tail-bursts",), "pool_share": 0.28},
        "labels-clothing": {**labels, "encoder": "auto", "side_px": 160, "pool_share": 0.8},
        "labels-fashion": {**labels, "encoder": "auto", "pool_share": 0.2},
        "labels-fashion-tail": {**labels, "encoder": "auto", "pools": ("long-tail",), "pool_share": 0.7},
        "labels-digits": {
            **labels,
            **tiny,
            "pools": ("balanced", "long-tail-bursts"),
            "budgets": (20, 50, 100, 200, 500),
            "loop_budget": 500,
            "pool_share": 0.8,
        },
        "labels-scratch": {
            **labels,
            **hasty,
            "pools": ("long-tail",),
            "budgets": (500, 1000, 2500),
            "loop_budget": 2500,
        },
        "digits": {
            **tiny,
            "strategies": ("random", "coverage", *RIVALS, *LOOPS),
            "pools": ("balanced", "long-tail-bursts", "outliers"),
            "budgets": (20, 50, 100, 200, 500),
            "loop_budget": 200,
            "loop_seeds": 5,
            "pool_share": 0.8,
        },
        "fashion": {**tiny, **rivals, "strategies": ("random", "coverage", *RIVALS[:-1])},
    }[section]
    if is_quick:
        values |= {"seeds": 2, "loop_seeds": 2, "test_images": 500, "scratch_effort": 0.05, "pool_share": 0.05}
        values["budgets"] = values["budgets"][:2]
        values["loop_budget"] = values["budgets"][-1]
    if seeds is not None:
        values |= {"seeds": seeds, "loop_seeds": min(seeds, values.get("loop_seeds", seeds))}
    return BenchmarkParams.model_validate(values)


def run_section(name: str, options: argparse.Namespace, deadline: float) -> None:
    """Do what is missing of a section, and write its page; nothing where its set is not at hand."""
    is_cuda = options.device.startswith("cuda")
    params = params_of(name, is_cuda=is_cuda, is_quick=options.quick, seeds=options.seeds)
    asked: dict = {"encoder_seconds": options.encoder_seconds}
    if options.budgets:
        asked["budgets"] = tuple(options.budgets)
    if options.effort:
        asked["scratch_effort"] = options.effort
    if options.strategies:
        asked["strategies"] = tuple(options.strategies)
    params = params.model_copy(update=asked)
    elsewhere = {"digits": "sklearn:digits", "fashion": str(options.fashion), "clothing": str(options.clothing)}
    dataset = elsewhere.get(
        name.removeprefix("labels-").removesuffix("-tail").removesuffix("-scratch"), str(options.data)
    )
    if not dataset.startswith("sklearn:") and not Path(dataset).is_dir():
        print(f"{name}: left out, {dataset} is not there", flush=True)
        return
    takes_vectors = dataset == str(options.data) and params.encoder != "auto"
    vectors = (options.vectors or options.data) if takes_vectors else None
    if vectors is not None and not (vectors / "train-embeddings.npy").is_file():
        vectors = None
    store = open_store(str(options.output / name))
    stage = partial(shown, name)
    prepared = preparation.prepare(store, dataset, params, device=options.device, vectors=vectors, stage=stage)
    say(name, f"prepared {', '.join(f'{pool.kind} {pool.size:,} by {pool.encoder}' for pool in prepared.pools)}")
    for order in grid.missing_orders(store, prepared, params):
        seconds = work.make_order(store, prepared, order, device=options.device)
        say(name, f"{order.pool.kind} by {order.strategy}, seed {order.seed}: {seconds:.1f} s")
    batches = grid.plan_batches(store, prepared, params, device=options.device, least_seconds=5.0)
    left = [(store, prepared, params, batch, options.device) for batch in batches]
    say(name, f"{sum(len(batch.cells) for batch in batches)} cells to do in {len(batches)} batches")
    fan_out(name, left, workers=options.workers, deadline=deadline)
    where = f"(commit {report.commit()}, {os.cpu_count()} cores)"
    command = f"python tests/bench/bench_proof.py {' '.join(sys.argv[1:])} {where}"
    made = summary.write(store, prepared, params, device=options.device, command=command)
    for sentence in made.sentences:
        say(name, sentence)


@contextmanager
def shown(section: str, name: str, unit: str) -> Iterator[Progress]:
    """A stage of the preparation, with a line every ten seconds."""
    last = time.time()

    def show(done: int, total: int) -> None:
        nonlocal last
        if time.time() - last >= 10:
            last = time.time()
            say(section, f"{name}: {done:,} of {total:,} {unit}")

    yield show


def fan_out(name: str, left: list[tuple], *, workers: int, deadline: float) -> None:
    """Batches over processes, none begun after the deadline."""
    context = multiprocessing.get_context("spawn")
    done = 0
    with ProcessPoolExecutor(workers, mp_context=context, initializer=one_thread) as pool:
        running = {pool.submit(work_on, *arguments, deadline) for arguments in left}
        for future in as_completed(running):
            done += future.result()
            say(name, f"{done} cells done")


def one_thread() -> None:
    """Processes share the cores, so each keeps to one."""
    torch.set_num_threads(1)


def work_on(store, prepared, params, batch, device: str, deadline: float) -> int:
    """One batch, or nothing once the time is up."""
    return 0 if time.time() > deadline else work.run_batch(store, prepared, params, batch, device=device)


def say(section: str, text: str) -> None:
    print(f"{datetime.datetime.now():%H:%M:%S} {section}: {text}", flush=True)


def assembled(output: Path, old: str) -> str:
    """Every section: from `output` where it holds one, else as the report `old` has it; each says how it was made.

    Of the tests against random only ours are kept; `output` has the whole pages.
    """
    kept = {part.split("\n", 1)[0]: f"## {part.strip()}" for part in old.split("\n## ")[1:]}
    for name, title in SECTIONS.items():
        page = output / name / "summary.md"
        if page.is_file():
            lines = page.read_text().replace("\n## ", "\n### ").splitlines()[2:]
            kept[title] = f"## {title}\n\n" + "\n".join(line for line in lines if not is_others_test(line)).strip()
    note = (
        "Sections of before 2026-12-02 judge by a linear probe that scaled each number of a vector to one size, and "
        "that learnt far less from few labels than the one of today (see `docs/log.md`)."
    )
    return "\n\n".join(["# The proof", note, *(kept[title] for title in SECTIONS.values() if title in kept)]) + "\n"


def is_others_test(line: str) -> bool:
    """Whether a line is a test of a strategy that is not ours against random: eight columns, a verdict in the last."""
    columns = [column.strip() for column in line.strip("| ").split("|")]
    return len(columns) == 8 and columns[0] not in ("coverage", "coverage+labels", "paired, minus random", "---")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two seeds and two budgets, printed only: does it run?")
    parser.add_argument("--device", default=report.default_device())
    parser.add_argument("--only", nargs="*", choices=list(SECTIONS), help="default: all that a device does in minutes")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--budgets", type=int, nargs="*", help="instead of the section's")
    parser.add_argument("--strategies", nargs="*", choices=STRATEGIES, help="instead of the section's")
    parser.add_argument("--effort", type=float, help="passes of networks trained from scratch, over the section's")
    parser.add_argument("--seconds", type=float, default=600, help="no batch begins after these")
    parser.add_argument("--workers", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument("--data", type=Path, default=CIFAR)
    parser.add_argument("--fashion", type=Path, default=FASHION)
    parser.add_argument("--clothing", type=Path, default=CLOTHING)
    parser.add_argument("--vectors", type=Path, help="a folder of vectors that our own encoder made")
    parser.add_argument(
        "--encoder-seconds", type=float, default=300, help="to train our own, where there are no vectors"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "test-output" / "proof")
    parser.add_argument("--report", type=Path, default=ROOT / "tests" / "bench" / "reports" / "proof.md")
    options = parser.parse_args()
    torch.set_num_threads(max(1, (os.cpu_count() or 2)))
    deadline = time.time() + options.seconds
    names = options.only or (
        list(SECTIONS) if options.device.startswith("cuda") else ["digits", "loops", "rivals", "rivals-tail"]
    )
    with tempfile.TemporaryDirectory(prefix="wtl-bench-") as folder:
        if options.quick:
            options.output = Path(folder)
        for name in names:
            run_section(name, options, deadline)
    if options.quick:
        return
    options.report.parent.mkdir(parents=True, exist_ok=True)
    old = options.report.read_text() if options.report.is_file() else ""
    options.report.write_text(assembled(options.output, old))
    print(f"report: {options.report}")


if __name__ == "__main__":
    main()
