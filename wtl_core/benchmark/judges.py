"""Accuracy that the chosen images reach, by their vectors: 20 nearest neighbours, or a linear probe. Works on arrays.

Not here: the network trained from scratch (`network`). Legend: `N` rows, `D` dimensions, `C` classes.
"""

import time

import numpy as np
import torch
from torch.nn import functional

from wtl_core.selection.linear_probe import Probe

NEIGHBOURS = 20
_TEMPERATURE = 0.07  # of the votes, as in arXiv 1805.01978
_BLOCK = 4096  # test rows in one product


def nearest_accuracy(
    vectors: torch.Tensor, labels: torch.Tensor, test_vectors: torch.Tensor, test_labels: torch.Tensor, *, classes: int
) -> float:
    """Share of test rows that their 20 nearest labelled rows name right, each with a vote of exp(cosine / 0.07).

    All arguments on one device. Source: arXiv 1805.01978, whose weights keep few labels from all having one say.
    """
    train = functional.normalize(vectors.float(), dim=1)
    hits = 0
    for rows, answers in zip(torch.split(test_vectors, _BLOCK), torch.split(test_labels, _BLOCK), strict=True):
        similar = functional.normalize(rows.float(), dim=1) @ train.T
        near = similar.topk(min(NEIGHBOURS, len(train)), dim=1)
        votes = torch.zeros(len(rows), classes, device=rows.device)
        votes.scatter_add_(1, labels[near.indices], torch.exp((near.values - 1.0) / _TEMPERATURE))
        hits += int((votes.argmax(dim=1) == answers).sum())
    return hits / len(test_labels)


def probe_accuracy(probe: Probe, test_vectors: torch.Tensor, test_labels: torch.Tensor) -> float:
    """Share of test rows that the probe names right."""
    return float((probe.logits(test_vectors).argmax(dim=1) == test_labels).float().mean())


def clock(device: torch.device) -> float:
    """Seconds by `time.perf_counter`, once all work that was given to the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def as_device(array: np.ndarray, device: torch.device | str) -> torch.Tensor:
    """The array as a tensor on `device`; a copy of one that may not be written to."""
    return torch.from_numpy(array if array.flags.writeable else np.array(array)).to(device)
