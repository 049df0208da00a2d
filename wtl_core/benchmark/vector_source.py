"""Where a benchmark's vectors come from: an encoder of this project, or files.

An encoder that is trained for a benchmark sees the images of the pool that is chosen from: no label, no other image.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from wtl_core.benchmark.datasets import Split
from wtl_core.benchmark.params import BenchmarkParams
from wtl_core.benchmark.pools import OUTLIER, LabelledPool
from wtl_core.benchmark.stored_images import CHUNK, StoredImages
from wtl_core.encoders import cards, resolve
from wtl_core.encoders.encoder import Encoder
from wtl_core.errors import ConfigError, InputError
from wtl_core.machine import Machine, Stage, silent
from wtl_core.recipe import encoder_names
from wtl_core.recipe.encoder import EncoderParams
from wtl_core.training import making
from wtl_core.training.image_cache import PoolImages
from wtl_core.workspace.storage import Store

_JITTER = 0.05  # of the typical length, by which a near-copy's vector is moved


class VectorSource(Protocol):
    """Gives vectors of splits and pools; `name` says in words what they are, `training_seconds` what it cost."""

    name: str
    training_seconds: float
    near_copy_distance: float | None

    def of_split(self, name: str, split: Split) -> np.ndarray:
        """(N, D) of `train`, `validation` or `test`."""

    def of_pool(self, pool: LabelledPool, train: Split) -> np.ndarray:
        """(N, D) of a pool made of the training split."""


class EncoderVectors:
    """By an encoder, image by image."""

    def __init__(self, encoder: Encoder, *, training_seconds: float = 0.0, stage: Stage = silent) -> None:
        self.encoder, self.training_seconds, self.stage = encoder, training_seconds, stage
        self.near_copy_distance = encoder.near_copy_distance
        self.name = f"{encoder.name} ({encoder.fingerprint[:12]})"

    @classmethod
    def make(
        cls,
        store: Store,
        pool: LabelledPool,
        params: BenchmarkParams,
        *,
        device: str,
        workers: int,
        stage: Stage = silent,
    ) -> "EncoderVectors":
        """The encoder that is named; one that has to be trained is trained on the pool's images."""
        if not encoder_names.is_made_here(params.encoder):
            return cls(resolve.resolve(params.encoder, store, device=device), stage=stage)
        side_px = max(16, params.side_px) if params.encoder == "ssl" else None
        recipe = EncoderParams(name=params.encoder, seconds=params.encoder_seconds, side_px=side_px)
        images = PoolImages(pool.sample_ids, np.full(len(pool.images), params.side_px), _reader(pool.images))
        machine = Machine(device=device, workers=workers)
        with stage("encoder", "steps") as on_progress:
            made = making.make(images, store, recipe, machine, on_progress=on_progress)
        # By the card: a clock around the call above would find no time in an encoder that is there already.
        card = cards.load_card(store, made) or {}
        seconds = float(card.get("seconds_since_last_start", 0.0))
        return cls(resolve.resolve(made, store, device=device), training_seconds=seconds, stage=stage)

    def of_split(self, name: str, split: Split) -> np.ndarray:  # noqa: ARG002, as the protocol has it
        """(N, D) float16, of unit length."""
        return self._encode(split.images)

    def of_pool(self, pool: LabelledPool, train: Split) -> np.ndarray:  # noqa: ARG002, as the protocol has it
        """(N, D) float16, of unit length; near-copies and outliers are images like others."""
        return self._encode(pool.images)

    def _encode(self, images: StoredImages) -> np.ndarray:
        pieces = [np.zeros((0, self.encoder.dimensions), np.float16)]
        with self.stage("embedding", "images") as on_progress:
            for start in range(0, len(images), CHUNK):
                squares = self.encoder.fit(torch.from_numpy(images[start : start + CHUNK]))
                pieces.append(self.encoder.encode(squares).half().cpu().numpy())
                on_progress(min(start + CHUNK, len(images)), len(images))
        return np.concatenate(pieces)


class FileVectors:
    """From `train-embeddings.npy` and its like in a folder, one for each split that the set brings, in reading order.

    Whoever made them must have seen neither the test split nor a label. A near-copy in a pool gets its origin's vector,
    moved by a twentieth of the typical length in a random direction, since there is no encoder to embed it.
    """

    def __init__(self, folder: Path, *, seed: int) -> None:
        self.folder, self.seed, self.training_seconds = folder, seed, 0.0
        self.near_copy_distance: float | None = None
        self.name = f"files in {folder.name}, made elsewhere in a time not counted here"

    def of_split(self, name: str, split: Split) -> np.ndarray:
        """(N, D) float32 as they are in the file."""
        file = self.folder / f"{split.origin}-embeddings.npy"
        if not file.is_file():
            raise ConfigError(f"{file}: expected vectors of the {name} split, found no file; name another folder")
        try:
            held = np.load(file, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise InputError(f"{file}: expected an array of vectors: {error}; write it again") from error
        if held.ndim != 2 or len(held) != split.origin_count:
            raise ConfigError(
                f"{file}: expected a row for each of {split.origin_count} images that {split.origin} was read from, in "
                f"that order; found shape {held.shape}"
            )
        return np.asarray(held[split.rows], np.float32)

    def of_pool(self, pool: LabelledPool, train: Split) -> np.ndarray:
        """(N, D) float32.

        Raises:
            InputError: the pool holds outliers, whose vectors only an encoder can give.
        """
        if (pool.labels == OUTLIER).any():
            raise InputError(f"pool {pool.kind}: expected an encoder for images from outside the set; name one")
        vectors: np.ndarray = self.of_split("train", train)[pool.origin]
        rng = np.random.default_rng([self.seed, 2])
        moved = rng.standard_normal((int(pool.is_copy.sum()), vectors.shape[1]), np.float32)
        moved /= np.linalg.norm(moved, axis=1, keepdims=True)
        vectors[pool.is_copy] += _JITTER * float(np.median(np.linalg.norm(vectors, axis=1))) * moved
        return vectors


def _reader(images: StoredImages) -> Callable[[Sequence[int]], Iterator[tuple[int, bytes | None]]]:
    """Images (N, 3, S, S) as files, which is how training reads a pool."""
    from torchvision.io import encode_png

    def read(rows: Sequence[int]) -> Iterator[tuple[int, bytes | None]]:
        for row in rows:
            yield row, bytes(encode_png(torch.from_numpy(images[row]), compression_level=1).numpy())

    return read
