"""Images, vectors and pools of a benchmark: made once, and kept in its folder.

Everything lies in plain .npy files; workers map arrays into memory and read the images that they need. Not here: where
vectors come from (`vector_source`), the orders and the cells (`grid`).
"""

import hashlib
import io
import json
import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wtl_core.benchmark import budgets, datasets, pools
from wtl_core.benchmark.datasets import Split
from wtl_core.benchmark.params import BenchmarkParams, check_installed
from wtl_core.benchmark.pools import LabelledPool
from wtl_core.benchmark.stored_images import StoredImages
from wtl_core.benchmark.vector_source import EncoderVectors, FileVectors, VectorSource
from wtl_core.errors import ConfigError
from wtl_core.machine import Stage, silent
from wtl_core.recipe import encoder_names
from wtl_core.recipe.base import digest_of
from wtl_core.workspace.storage import Store, explain_full_disk

VERSION = 7
"""Raised when the same set and params would be prepared otherwise."""
_JUDGED = ("validation", "test")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PoolRef:
    """A prepared pool.

    Attributes:
        kind: What was done to the training split.
        size: Its images.
        digest: Over its vectors and ids, which no label enters.
        images_digest: Over its ids alone, which name the images.
        encoder: Where its vectors come from, in words.
        encoder_seconds: Training of the encoder, by its card (since the last start, if it was killed), and embedding.
        near_copy_distance: The encoder's; None where it was not measured.
    """

    kind: str
    size: int
    digest: str
    images_digest: str
    encoder: str
    encoder_seconds: float
    near_copy_distance: float | None


@dataclass(frozen=True)
class Prepared:
    """A prepared benchmark; small enough to pass between tasks.

    Attributes:
        key: Its folder in the benchmark's.
        dataset: The set's name.
        digest: Over images and labels of the set.
        classes: The labels' names.
        counts: Images by split, and how many were left out.
        pools: What there is to choose from.
    """

    key: str
    dataset: str
    digest: str
    classes: list[str]
    counts: dict[str, int]
    pools: list[PoolRef]

    def pool(self, kind: str) -> PoolRef:
        """The pool of that kind."""
        return next(pool for pool in self.pools if pool.kind == kind)


def prepare(
    store: Store,
    dataset: str,
    params: BenchmarkParams,
    *,
    device: str,
    workers: int = 2,
    vectors: Path | None = None,
    stage: Stage = silent,
) -> Prepared:
    """Read the set, make its pools and embed them; what was prepared before is read.

    An encoder that has to be trained is trained on each pool, as a user would do: on a long tail it sees the long tail.

    Args:
        store: The benchmark's folder; local.
        dataset: See `datasets.load`.
        params: Encoder, sizes, pools.
        device: Where the encoder runs.
        workers: Threads that decode for the encoder's training.
        vectors: A folder of vectors that stand in for an encoder; see `vector_source.FileVectors`.
        stage: Shows how far reading, making near-copies, an encoder's training and embedding are.

    Raises:
        ConfigError: the folder is not local or lies in the set, the set is not there, the vectors do not fit it, a
            strategy's package is not installed, or loops would stop before the smallest budget.
        InputError: the set cannot be used, see `datasets.load`; or the vectors are none for a pool's outliers.
    """
    if not store.is_local:
        raise ConfigError(f"{store.root}: expected a local folder for a benchmark; name one")
    check_installed(params.strategies)
    if Path(dataset).is_dir() and Path(store.root).resolve().is_relative_to(Path(dataset).resolve()):
        raise ConfigError(f"{store.root}: expected a folder outside the set, whose folders are classes; name another")
    key = preparation_key(dataset, params, vectors)
    if store.exists(f"{key}/prepared.json"):
        prepared = _from_json(json.loads(store.read_bytes(f"{key}/prepared.json")))
        for ref in prepared.pools:
            budgets.check(params, ref.kind, ref.size)
        return prepared
    with explain_full_disk(store.root, "images"):
        labelled = datasets.load(
            dataset,
            side_px=params.side_px,
            test_images=params.test_images,
            validation_share=params.validation_share,
            download_folder=Path(store.root) / "downloads",
            folder=Path(store.root),
            stage=stage,
        )
    splits = {"train": labelled.train, "validation": labelled.validation, "test": labelled.test}
    for name in _JUDGED:
        _save_images(store, f"{key}/{name}-images.npy", splits[name].images, params)
        _save(store, f"{key}/{name}-labels.npy", splits[name].labels)

    def source_of(pool: LabelledPool) -> VectorSource:
        if vectors is not None:
            return FileVectors(vectors, seed=params.seed)
        return EncoderVectors.make(store, pool, params, device=device, workers=workers, stage=stage)

    refs = []
    for kind in params.pools:
        with explain_full_disk(store.root, "images"):
            pool = pools.make(kind, labelled.train, seed=params.seed, stage=stage)
        budgets.check(params, kind, len(pool.labels))  # before an encoder is trained on it
        _save_images(store, f"{key}/{kind}-images.npy", pool.images, params)
        refs.append(_prepare_pool(store, key, pool, splits, source_of(pool)))
    prepared = Prepared(
        key=key,
        dataset=labelled.name,
        digest=labelled.digest(),
        classes=labelled.classes,
        counts={**{name: len(split) for name, split in splits.items()}, "left_out": labelled.left_out},
        pools=refs,
    )
    store.write_bytes(f"{key}/prepared.json", json.dumps(asdict(prepared)).encode())
    return prepared


def load_array(store: Store, prepared: Prepared, name: str) -> np.ndarray:
    """An array of a split or a pool, mapped into memory: `test-labels`, `balanced-labels`, `balanced-test-vectors`."""
    return np.asarray(np.load(store.path(f"{prepared.key}/{name}.npy"), mmap_mode="r", allow_pickle=False))


def load_images(store: Store, prepared: Prepared, name: str) -> StoredImages:
    """Images of a split or a pool: `test-images`, `balanced-images`."""
    return StoredImages.open(store.path(f"{prepared.key}/{name}.npy"))


def load_ids(store: Store, prepared: Prepared, kind: str) -> list[str]:
    """A pool's sample ids."""
    ids: list[str] = json.loads(store.read_bytes(f"{prepared.key}/{kind}-ids.json"))
    return ids


def preparation_key(dataset: str, params: BenchmarkParams, vectors: Path | None) -> str:
    """Names the preparation by what was asked for and, for files (weights too), by when they last changed."""
    fields = {"encoder", "encoder_seconds", "side_px", "test_images", "validation_share", "pools", "seed"}
    asked: list[Any] = [VERSION, dataset, str(vectors), params.model_dump(mode="json", include=fields)]
    asked += [params.seen_px] if params.seen_px < params.side_px else []
    for path in (Path(dataset), vectors, _weights_file(params.encoder)):
        if path is not None and path.exists():
            files = sorted(path.rglob("*")) if path.is_dir() else [path]
            asked.append([(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files])
    return f"prepared-{digest_of(asked)[:16]}"


def _weights_file(encoder: str) -> Path | None:
    """The file that an encoder's name takes its weights from."""
    parsed = encoder_names.parse_name(encoder)
    if parsed.kind == "file":
        return Path(parsed.value).expanduser()
    return None if parsed.weights_path is None else Path(parsed.weights_path)


def _prepare_pool(
    store: Store, key: str, pool: LabelledPool, splits: dict[str, Split], source: VectorSource
) -> PoolRef:
    started = time.perf_counter()
    vectors = source.of_pool(pool, splits["train"])
    seconds = time.perf_counter() - started
    for name in _JUDGED:
        _save(store, f"{key}/{pool.kind}-{name}-vectors.npy", source.of_split(name, splits[name]))
    _save(store, f"{key}/{pool.kind}-labels.npy", pool.labels)
    _save(store, f"{key}/{pool.kind}-vectors.npy", vectors)
    store.write_bytes(f"{key}/{pool.kind}-ids.json", json.dumps(pool.sample_ids).encode())
    digest = digest_of([pool.sample_ids, hashlib.sha256(vectors.tobytes()).hexdigest()])
    images = digest_of(pool.sample_ids)
    cost = source.training_seconds + seconds
    return PoolRef(pool.kind, len(pool.labels), digest, images, source.name, cost, source.near_copy_distance)


def _save(store: Store, key: str, array: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    store.write_bytes(key, buffer.getvalue())


def _save_images(store: Store, key: str, images: StoredImages, params: BenchmarkParams) -> None:
    """What the network trained from scratch sees; vectors were made of the images themselves."""
    with store.writer(key) as file:
        images.save(file, params.seen_px)


def _from_json(value: dict[str, Any]) -> Prepared:
    return Prepared(**{**value, "pools": [PoolRef(**pool) for pool in value["pools"]]})
