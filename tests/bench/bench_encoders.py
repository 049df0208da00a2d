"""How good encoders get on CIFAR-10's training split without labels: 20-NN and linear probe on the test split.

    python tests/bench/bench_encoders.py [--quick] [--device cuda] [--only floors methods best repeat] [--seconds 600]
    python tests/bench/bench_encoders.py --only methods --views 100000 --references 15000 --threads 1 --seeds 3
    python tests/bench/bench_encoders.py --encoder WORKSPACE/encoders/FINGERPRINT

Reads `../shared/data/cifar10`, or a folder of packed arrays (`--pack DIR` writes one, `--images DIR` reads it) where
there is no Parquet reader. Writes tests/bench/reports/encoders.md and, with `--keep DIR`, weights and vectors.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import encoder_methods as methods
import numpy as np
import report
import torch
from torch.nn import functional

from wtl_core.benchmark import judges
from wtl_core.encoders.cards import CARD, WEIGHTS, from_weights
from wtl_core.encoders.encoder import Encoder, build, default_format
from wtl_core.encoders.networks import NetworkShape, build_network
from wtl_core.encoders.pixels import pixels
from wtl_core.encoders.preprocessing import Preprocessing
from wtl_core.training import collapse
from wtl_core.training.image_cache import PoolImages, decode_pool
from wtl_core.training.sizing import TrainingPlan, plan_training
from wtl_core.training.trainer import Trainer
from wtl_core.training.training import seconds_per_step, trained_encoder

ROOT = Path(__file__).resolve().parents[2]
CIFAR = ROOT.parent / "shared" / "data" / "cifar10"


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to train."""

    name: str
    changes: dict[str, object]
    trainer: type[Trainer] = Trainer


@dataclasses.dataclass(frozen=True)
class Data:
    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray

    def judged(self, references: int | None) -> "Data":
        """What is encoded and judged: all of it, or some of both splits."""
        if references is None:
            return self
        answers = references // 5
        parts = (
            self.train[:references],
            self.train_labels[:references],
            self.test[:answers],
            self.test_labels[:answers],
        )
        return Data(*parts)


FIGURES = ("seconds", "processor", "epochs", "rate", "knn", "probe")

ON_CUDA = [
    Variant("contrast, 4 views of 256", {}),
    Variant("contrast, 2 views of 512", {"views": 2, "batch_images": 512}),
    Variant(
        "contrast, 2 views of 512, T 0.5, 32 px", {"views": 2, "batch_images": 512, "view_px": 32, "temperature": 0.5}
    ),
    Variant("contrast, 4 views of 256, lr 0.5, wd 1e-4", {"learning_rate": 0.5, "weight_decay": 1e-4}),
    Variant("contrast, 4 views of 256, T 0.5", {"temperature": 0.5}),
    Variant("momentum contrast, 2 views of 512", {"views": 2, "batch_images": 512}, methods.MomentumContrast),
    Variant("coding rate, 8 views of 128", {"views": 8, "batch_images": 128}, methods.CodingRate),
    Variant("self-distilled, 2 views of 512", {"views": 2, "batch_images": 512}, methods.SelfDistilled),
    Variant("decoupled, 4 views of 256", {}, methods.Decoupled),
    Variant("redundancy, 2 views of 512", {"views": 2, "batch_images": 512}, methods.Redundancy),
    Variant("siamese, 4 views of 64", {"batch_images": 64}, methods.FastSiam),
    Variant("variance and covariance, 2 views of 512", {"views": 2, "batch_images": 512}, methods.Variance),
]
ON_CPU = [
    Variant("contrast, 4 views of 64", {}),
    Variant("contrast, 4 views of 64, T 0.5", {"temperature": 0.5}),
    Variant("contrast, 4 views of 64 at 32 px", {"view_px": 32}),
    Variant("contrast, 2 views of 64", {"views": 2}),
    Variant("contrast, 2 views of 128", {"views": 2, "batch_images": 128}),
    Variant("contrast, 2 views of 256", {"views": 2, "batch_images": 256}),
    Variant("contrast, 4 views of 64, width 24", {"shape": NetworkShape("resnet9", 24)}),
    Variant("momentum contrast, 2 views of 128", {"views": 2, "batch_images": 128}, methods.MomentumContrast),
    Variant("coding rate, 8 views of 32", {"views": 8, "batch_images": 32}, methods.CodingRate),
    Variant("self-distilled, 2 views of 128", {"views": 2, "batch_images": 128}, methods.SelfDistilled),
    Variant("decoupled, 4 views of 64", {}, methods.Decoupled),
    Variant("redundancy, 2 views of 256", {"views": 2, "batch_images": 256}, methods.Redundancy),
    Variant("redundancy, 2 views of 128", {"views": 2, "batch_images": 128}, methods.Redundancy),
    Variant("variance and covariance, 2 views of 128", {"views": 2, "batch_images": 128}, methods.Variance),
    Variant("siamese, 4 views of 64", {}, methods.FastSiam),
    Variant("siamese, 4 views of 32", {"batch_images": 32}, methods.FastSiam),
]


def methods_for(device: torch.device) -> list[Variant]:
    return ON_CUDA if device.type == "cuda" else ON_CPU


def load(folder: Path | None, quick: bool) -> Data:
    parts = []
    for split in ("train", "test"):
        files, labels = packed(folder, split) if folder else parquet(split)
        count = 2000 if quick else len(files)

        def read(rows: Sequence[int], files: list[bytes] = files) -> Iterator[tuple[int, bytes | None]]:
            return ((row, files[row]) for row in rows)

        images = PoolImages([""] * count, np.full(count, 32), read)
        parts += [decode_pool(images, count, Preprocessing(32)), labels[:count]]
    return Data(*parts)


def parquet(split: str) -> tuple[list[bytes], np.ndarray]:
    import pyarrow.parquet as pq

    tables = [pq.read_table(file) for file in sorted(CIFAR.glob(f"{split}-0*.parquet"))]
    if not tables:
        sys.exit(f"left out, {CIFAR} is not there")
    files = [row["bytes"] for table in tables for row in table["image"].to_pylist()]
    return files, np.concatenate([table["label"].to_numpy() for table in tables])


def packed(folder: Path, split: str) -> tuple[list[bytes], np.ndarray]:
    held = np.load(folder / f"{split}.npz")
    data, ends = held["bytes"].tobytes(), np.cumsum(held["lengths"])
    return [data[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)], held["labels"]


def pack(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        files, labels = parquet(split)
        lengths = np.array([len(data) for data in files])
        packed = np.frombuffer(b"".join(files), np.uint8)  # compressed: the files share their tables
        np.savez_compressed(folder / f"{split}.npz", bytes=packed, lengths=lengths, labels=labels)


def judge(data: Data, train: torch.Tensor, test: torch.Tensor) -> tuple[float, float]:
    """20-NN by the votes of `wtl benchmark`, and linear probe accuracy, on the test split, in per cent."""
    labels = torch.from_numpy(data.train_labels).to(train.device)
    answers = torch.from_numpy(data.test_labels).to(train.device)
    nearest = judges.nearest_accuracy(train, labels, test, answers, classes=10)
    train, test = (functional.normalize(values.float(), dim=1) for values in (train, test))
    return 100 * nearest, linear_probe(train, labels, test, answers)


def linear_probe(train: torch.Tensor, labels: torch.Tensor, test: torch.Tensor, answers: torch.Tensor) -> float:
    mean, std = train.mean(0), train.std(0).clamp(min=1e-4)
    train, test = (train - mean) / std, (test - mean) / std
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = torch.nn.Linear(train.shape[1], 10).to(train.device)
        optimizer = torch.optim.AdamW(layer.parameters(), lr=3e-3, weight_decay=1e-3)
        steps = 2000
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            rows = torch.randint(len(train), (1024,), device=train.device)
            loss = functional.cross_entropy(layer(train[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return 100 * float((layer(test).argmax(dim=1) == answers).float().mean())


def encode(encoder: Encoder, images: np.ndarray) -> torch.Tensor:
    return torch.cat([encoder.encode(torch.from_numpy(images[at : at + 2048])) for at in range(0, len(images), 2048)])


def draft(data: Data, device: torch.device, **fixed: object) -> TrainingPlan:
    params = {
        "seconds": 0,
        "epochs": None,
        "side_px": 32,
        "width": None,
        "batch_images": None,
        "start": None,
        "seed": 0,
    }
    params |= fixed
    return plan_training(
        SimpleNamespace(**params),
        np.full(len(data.train), 32),
        device=device.type,
        number_format=default_format(device),
    )


def run(
    variant: Variant,
    data: Data,
    device: torch.device,
    seconds: float,
    *,
    seen: int | None = None,
    references: int | None = None,
    seed: int = 0,
) -> dict[str, object]:
    """Train one variant for its seconds, warm-up and compilation excluded, or on `seen` views; figures and vectors."""
    plan = dataclasses.replace(draft(data, device, seed=seed), **variant.changes)
    started = time.perf_counter()
    trainer = variant.trainer(plan, data.train, device)
    for step in range(3):
        trainer.step(step)
    if device.type == "cuda":
        torch.cuda.synchronize()
    warm = time.perf_counter() - started
    per_step = seconds_per_step(trainer, at_most=min(1.5, seconds / 10))
    steps = round(seconds / per_step) if seen is None else seen // (plan.batch_images * plan.views)
    plan = dataclasses.replace(plan, steps=max(2, steps))
    trainer = variant.trainer(plan, data.train, device)
    started = time.perf_counter(), time.process_time()
    for step in range(plan.steps):
        loss = trainer.step(step)
    last = float(loss)
    taken, processor = time.perf_counter() - started[0], time.process_time() - started[1]
    health = collapse.measure(*trainer.two_views())
    encoder = trained_encoder(trainer)
    judged = data.judged(references)
    vectors = encode(encoder, judged.train), encode(encoder, judged.test)
    nearest, linear = judge(judged, *vectors)
    epochs = plan.steps * plan.batch_images / len(data.train)
    rate = plan.steps * plan.batch_images * plan.views / taken
    print(
        f"{variant.name:45s} {taken:6.1f} s (processor {processor:.0f} s, warm-up {warm:.0f} s), {plan.steps} steps, "
        f"{epochs:.1f} epochs, {rate:.0f} views/s, loss {last:.3f}, 20-NN {nearest:.2f}, probe {linear:.2f}, "
        f"{health.to_json()}",
        flush=True,
    )
    figures = {"name": variant.name, "seconds": taken, "processor": processor, "epochs": epochs, "rate": rate}
    return {
        **figures,
        "knn": nearest,
        "probe": linear,
        "vectors": vectors,
        "weights": trainer.network.state_dict(),
    }


def over_seeds(
    variant: Variant, data: Data, device: torch.device, seconds: float, *, seeds: int, **how: int | None
) -> dict[str, object]:
    """The means of `run` over so many seeds, and the standard deviation of its 20-NN as `spread`."""
    runs = [run(variant, data, device, seconds, seed=seed, **how) for seed in range(seeds)]
    figures = {name: float(np.mean([each[name] for each in runs])) for name in FIGURES}
    nearest = [each["knn"] for each in runs]
    return {"name": variant.name, **figures, "spread": float(np.std(nearest, ddof=1)) if seeds > 1 else float("nan")}


def floors(data: Data, device: torch.device) -> list[dict[str, object]]:
    """What costs no training: raw pixels, the pixels encoder, an untrained network."""
    rows = []
    raw = [torch.from_numpy(part.reshape(len(part), -1)).float() / 255 - 0.5 for part in (data.train, data.test)]
    encoders = [("pixels encoder", pixels(device))]
    plan = draft(data, device)
    torch.manual_seed(0)
    network = build_network(plan.shape)
    untrained = build(network, name="untrained", architecture={}, preprocessing=Preprocessing(32), device=device)
    encoders.append((f"untrained {plan.shape.kind} of width {plan.shape.width}", untrained))
    vectors = [("raw pixels", [part.to(device) for part in raw])]
    vectors += [(name, [encode(encoder, part) for part in (data.train, data.test)]) for name, encoder in encoders]
    for name, (train, test) in vectors:
        nearest, linear = judge(data, train, test)
        print(f"{name:40s} 20-NN {nearest:.2f} probe {linear:.2f}", flush=True)
        nothing = {"seconds": 0.0, "processor": 0.0, "epochs": 0.0, "rate": 0.0}
        rows.append({"name": name, **nothing, "knn": nearest, "probe": linear})
    return rows


def stored(folder: Path, data: Data, device: torch.device) -> list[dict[str, object]]:
    """An encoder that a training has left in `folder`, as it is and without its whitening."""
    encoder = from_weights((folder / WEIGHTS).read_bytes(), where=str(folder), device=device)
    card = json.loads((folder / CARD).read_text())
    plan, shape = card["plan"], card["network"]
    rows = []
    for name, one in (("", encoder), (", its outputs as they are", dataclasses.replace(encoder, whitening=None))):
        nearest, linear = judge(data, encode(one, data.train), encode(one, data.test))
        print(f"{folder.name[:12]}{name:30s} 20-NN {nearest:.2f} probe {linear:.2f}", flush=True)
        epochs = plan["steps"] * plan["batch_images"] / plan["images"]
        taken = float(card["seconds_since_last_start"])
        figures = {
            "seconds": taken,
            "epochs": epochs,
            "rate": plan["steps"] * plan["batch_images"] * plan["views"] / taken,
        }
        label = f"{shape['kind']} of width {shape['width']}{name}"
        rows.append({"name": label, "processor": float("nan"), **figures, "knn": nearest, "probe": linear})
    return rows


def keep(result: dict[str, object], folder: Path) -> None:
    """Weights as bfloat16 safetensors and vectors in files under 16 MiB."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    halves = {
        k: v.to(torch.bfloat16).cpu().contiguous() if v.is_floating_point() else v.cpu()
        for k, v in result["weights"].items()
    }
    # two files, since one of 22 MB would not travel
    names = sorted(halves)
    sizes = np.cumsum([halves[name].nbytes for name in names])
    for part in range(2):
        chosen = [name for name, end in zip(names, sizes, strict=True) if int(2 * (end - 1) // sizes[-1]) == part]
        save_file({name: halves[name] for name in chosen}, folder / f"weights-{part}.safetensors")
    train, test = (functional.normalize(v.float(), dim=1) for v in result["vectors"])
    mean = train.mean(0)
    _, _, basis = torch.linalg.svd((train - mean)[:20000], full_matrices=False)
    for name, values in (("train", train), ("test", test)):
        reduced = ((values - mean) @ basis[:128].T).half().cpu().numpy()
        np.save(folder / f"{name}-128.npy", reduced)


def table(results: list[dict[str, object]]) -> list[dict[str, object]]:
    """The report's rows, best first."""
    best = max(float(result["knn"]) for result in results)
    return [
        {
            "method": result["name"],
            "seconds": f"{result['seconds']:.0f}",
            "of processor": "" if np.isnan(result["processor"]) else f"{result['processor']:.0f}",
            "epochs": f"{result['epochs']:.1f}",
            "views/s": f"{result['rate']:.0f}",
            "20-NN": f"{result['knn']:.1f}",
            **({"of seeds": f"± {result['spread']:.1f}"} if np.isfinite(result.get("spread", np.nan)) else {}),
            "to the best": f"{result['knn'] - best:+.1f}",
            "probe": f"{result['probe']:.1f}",
        }
        for result in sorted(results, key=lambda result: -float(result["knn"]))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", default=report.default_device())
    parser.add_argument(
        "--only", nargs="*", default=["floors", "best"], choices=["floors", "methods", "best", "repeat"]
    )
    parser.add_argument("--seconds", type=float, default=600, help="of the best method")
    parser.add_argument("--method-seconds", type=float, default=40, help="of each compared method")
    parser.add_argument("--views", type=int, help="compare methods on so many views each instead (a busy machine)")
    parser.add_argument(
        "--references", type=int, help="judge methods by so many images and a fifth of them as questions"
    )
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seeds", type=int, default=1, help="of each compared method")
    parser.add_argument("--pick", nargs="*", type=int, help="which methods, by number")
    parser.add_argument("--best", type=int, help="a compared method, by number, instead of the one in wtl_core")
    parser.add_argument("--set", nargs="*", default=[], help="changes of the best method's plan, name=number")
    parser.add_argument(
        "--encoder", type=Path, help="folder of a workspace's or benchmark's encoder: judged, not trained"
    )
    parser.add_argument("--images", type=Path)
    parser.add_argument("--pack", type=Path)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    if options.pack:
        pack(options.pack)
        return
    device = torch.device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    torch._dynamo.config.recompile_limit = 64
    data = load(options.images, options.quick)
    where = f"on {report.machine().rpartition(', ')[2]}" if device.type == "cuda" else "on a processor"
    if options.encoder:
        text = f"By `wtl`'s own training; seconds as its card says. {len(data.test):,} test images."
        rows = table(stored(options.encoder, data, device))
        report.write("encoders", f"A stored encoder, {where}", text, rows, is_quick=options.quick)
        return
    if "floors" in options.only:
        text = "20-NN, its votes weighed, and linear probe on the 10,000 test images, in per cent."
        report.write(
            "encoders", f"Without training, {where}", text, table(floors(data, device)), is_quick=options.quick
        )
    if "methods" in options.only:
        compare(options, data, device, where)
    if "best" in options.only:
        best(options, data, device, where)
    if "repeat" in options.only:
        rows = [{"ten steps twice": "the same bits" if repeats(data, device) else "other bits"}]
        report.write("encoders", f"Repeatability, {where}", "", rows, is_quick=options.quick)


def compare(options: argparse.Namespace, data: Data, device: torch.device, where: str) -> None:
    """The methods side by side, for equal time or on equally many views."""
    every = methods_for(device)
    chosen = every if options.pick is None else [every[number] for number in options.pick]
    seconds = 2 if options.quick else options.method_seconds
    how = {"seeds": options.seeds, "seen": options.views, "references": options.references}
    results = [over_seeds(variant, data, device, seconds, **how) for variant in chosen]
    text = f"Each for {seconds:.0f} s" if options.views is None else f"Each on {options.views} views"
    if options.references:
        text += f", judged on {options.references} training and {options.references // 5} test images"
    text += (
        f", compilation and warm-up excluded, {options.seeds} seed(s): means, and the standard deviation of one seed. "
    )
    text += (
        "Views are three quarters of the image's side if not said; the projector and the schedule are the same for all."
    )
    report.write("encoders", f"Methods, {where}", text, table(results), is_quick=options.quick)


def best(options: argparse.Namespace, data: Data, device: torch.device, where: str) -> None:
    """The long run of the method in `wtl_core`, or of another one with changes."""
    variant = Variant("the one in wtl_core", {}) if options.best is None else methods_for(device)[options.best]
    plan = draft(data, device)
    changes = {name: type(getattr(plan, name))(value) for name, value in (item.split("=") for item in options.set)}
    variant = dataclasses.replace(variant, changes={**variant.changes, **changes})
    result = run(variant, data, device, 5 if options.quick else options.seconds)
    text = "Warm-up, compilation and evaluation excluded."
    report.write("encoders", f"The method that won, {where}", text, table([result]), is_quick=options.quick)
    if options.keep:
        keep(result, options.keep)


def repeats(data: Data, device: torch.device) -> bool:
    """Whether ten steps give the same bits twice."""
    plan = dataclasses.replace(draft(data, device), steps=10)
    ends = []
    for _ in range(2):
        trainer = Trainer(plan, data.train, device)
        for step in range(10):
            trainer.step(step)
        ends.append({key: value.clone() for key, value in trainer.tensors().items()})
    return all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


if __name__ == "__main__":
    main()
