"""Orders and draws that depend on what samples are, never on where they lie. No vectors here."""

import hashlib
from collections.abc import Iterable
from enum import IntEnum, unique

import numpy as np


@unique
class Purpose(IntEnum):
    """What a draw is for: each its own stream, so that no two draws agree. Benchmarks take numbers from 99 on."""

    SCALE = 1
    """Rows that the kernel's scale is measured on."""
    RANDOM = 2
    """The objective `random`, and what farthest-first leaves over."""
    STRATA = 3
    """Places within the clusters of `stratified-random`."""
    REFERENCES = 4
    """References of the ladder."""
    HEAD = 5
    """Part and references that the head of a large pool's ranking is made on."""
    LADDER = 6
    """Random orders that the ladder compares with."""
    CELLS = 7
    """Rows that cells are trained on."""
    LABELS = 8
    """Rows by which shares of classes are estimated."""
    MAP = 9
    """Rows that the positions of the report's map are fitted to."""
    SPLIT = 10
    """Which groups of images go to validation and test."""


def content_keys(sample_ids: Iterable[str]) -> np.ndarray:
    """A 64-bit key per sample, (N,) uint64, from its id alone."""
    digest = hashlib.blake2b
    joined = b"".join(digest(sample_id.encode(), digest_size=8).digest() for sample_id in sample_ids)
    return np.frombuffer(joined, dtype="<u8").astype(np.uint64)


def draw(keys: np.ndarray, seed: int, purpose: int) -> np.ndarray:
    """One pseudo-random uint64 per key (splitmix64): the same key, seed and purpose give the same number anywhere."""
    step = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        mixed = keys + step * np.uint64(1 + (seed % (1 << 32)) * 1024 + purpose)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))


def shuffled(keys: np.ndarray, seed: int, purpose: int) -> np.ndarray:
    """Rows in a random order that depends on content alone, (N,) int64."""
    return np.lexsort((keys, draw(keys, seed, purpose))).astype(np.int64)
