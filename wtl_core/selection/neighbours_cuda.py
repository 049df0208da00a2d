"""Experimental: each vector's exact nearest neighbours on a CUDA device. This code has not run on a GPU yet.

It gives the same lists as on the processor, where it is tested (`tests/core/test_neighbours.py`). No selection here.

The product is read once for the least entry of each 32 columns. A row's K nearest columns lie in the K groups with the
least (entry, group), so only those groups are looked at closely; ties go to the lower row there as everywhere.
"""

import numpy as np
import torch

from wtl_core.machine import Progress
from wtl_core.selection.neighbours import FIRST_BITS, LEVELS, Graph, Points

_GROUP = 32
_BLOCK_BYTES = 1 << 31


def exact_graph_on_cuda(
    points: Points, neighbours: int, *, near_level: int, on_progress: Progress | None = None
) -> Graph:
    """`exact_graph` for points on a device. Cost: some 5 N^2 bytes of traffic beside the product."""
    count, padded = points.count, points.right.shape[0]
    width = min(neighbours, count)
    rows = np.empty((count, width), np.int32)
    levels = np.empty((count, width), np.int16)
    near = np.empty(count, np.int64)
    block = max(256, min(4096, _BLOCK_BYTES // (2 * padded) // 256 * 256))
    for start in range(0, count, block):
        stop = min(start + block, count)
        bits = points.product(points.left_slice(start, start + block), 0, padded)[: stop - start]
        bits.clamp_(min=FIRST_BITS - 1)
        bits[:, count:] = torch.iinfo(torch.int16).max
        own = torch.arange(stop - start, device=bits.device)
        bits[own, start + own] = FIRST_BITS - 2  # itself first
        near[start:stop] = (bits < near_level + FIRST_BITS).sum(1).cpu().numpy()
        keys = _smallest(bits, width)
        found = (keys >> 32) - 1
        is_used = found < LEVELS
        rows[start:stop] = torch.where(is_used, keys & 0xFFFFFFFF, -1).to(torch.int32).cpu().numpy()
        levels[start:stop] = found.clamp(0, LEVELS - 1).to(torch.int16).cpu().numpy()
        if on_progress is not None:
            on_progress(stop, count)
    return Graph(rows, levels, near)


def _smallest(bits: torch.Tensor, width: int) -> torch.Tensor:
    """The `width` smallest entries of each row as sorted keys (entry - least possible) * 2^32 + column, int64."""
    rows, columns = bits.shape
    grouped = bits.view(rows, columns // _GROUP, _GROUP)
    least = grouped.amin(2).to(torch.int32) - (FIRST_BITS - 2)
    numbers = torch.arange(least.shape[1], device=bits.device, dtype=torch.int32)
    # A padded column's entry must not push a level out of the 12 bits that are left beside 19 bits of group number.
    keys = (least.clamp_(max=4095) << 19) | numbers
    groups = keys.topk(min(width, keys.shape[1]), dim=1, largest=False, sorted=False).values & ((1 << 19) - 1)
    groups = groups.long()
    entries = grouped.gather(1, groups[:, :, None].expand(-1, -1, _GROUP)).long() - (FIRST_BITS - 2)
    place = groups[:, :, None] * _GROUP + torch.arange(_GROUP, device=bits.device)
    return ((entries << 32) | place).flatten(1).topk(width, dim=1, largest=False, sorted=True).values
