"""Which encoder suits a pool, its machine and the time that it may cost (`encoder = "auto"`): no label is asked.

Packaged networks come first wherever they are installed; without any, one is trained on the pool. Which networks at
which image side is a rule of sizes and of timed passes; the tables behind it are in `tests/bench/reports/features.md`.
"""

import logging
import time
from dataclasses import asdict, dataclass
from typing import Any

import joblib
import numpy as np
import torch

from wtl_core.encoders import packages, resolve, whitening
from wtl_core.machine import duration
from wtl_core.training import near_copies, strength_check
from wtl_core.workspace.storage import Store

_log = logging.getLogger("wtl_core.progress")  # what a user hears without asking for more

_NAMES = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")
"""Packaged networks, the preferred first: over 13 sets lite2 at 128 px was 0.3 points behind lite0 by 20-NN."""
_ENLARGED = 5
"""Side of what the network sees over that of the median image, at most. Over 13 sets this rule was 1.8 points of 20-NN
behind the best encoder of nine, as the best of 60 label-free scores was; always 160 px was 2.2 behind."""
_BESIDE = "efficientnet-lite2"
"""Stands beside the first of `_NAMES` where there is time for it: over ten sets that added 0.6 points by 20-NN (3.5 on
CIFAR-10, 1.3 on clothing, 1.4 on emoji; -2.0 at worst, on textures), where lite2 alone is level with lite0."""
_COST_WITH_BESIDE = 2.3
"""Time of the two over that of the first alone, by one thread: 2.1 at 96 px, 1.8 at 160, 2.3 at 224."""
_SHARE = 0.6
"""Share of the time that the network may take; the rest is for decoding and scaling, which took as long as the network
for images of 32 px at 160."""
_TIMED_SIDE_PX, _TIMED_PASSES = 96, 30  # some 0.6 s on 2 cores; of 3 passes on a busy machine none ran undisturbed


@dataclass(frozen=True)
class Choice:
    """What was chosen and why.

    Attributes:
        name: `package:NAME`, `package:NAME+NAME` or `ssl`.
        side_px: Image side; None for `ssl`, which finds its own.
        seconds: Estimate of the network's passes on this machine when idle, for the fit and the check too, or of the
            training.
    """

    name: str
    side_px: int | None
    seconds: float

    def facts(self) -> dict[str, Any]:
        """For the encoder's card."""
        return {"chosen": asdict(self)}

    def __str__(self) -> str:
        side = "" if self.side_px is None else f" at {self.side_px} px"
        return f"{self.name}{side}, about {duration(self.seconds)}"


def choose(sides_px: np.ndarray, store: Store, *, count: int, seconds: float, device: torch.device | str) -> Choice:
    """The encoder for a pool, logged with an estimate before it starts.

    Args:
        sides_px: (n,) shorter side of the pool's images, or of some of them.
        store: The workspace.
        count: Images of the pool.
        seconds: Time that the features may cost; the side follows from it.
        device: Where the network will run.
    """
    installed = packages.installed()
    name = next((name for name in _NAMES if name in installed), None)
    if name is None:
        choice = Choice("ssl", None, seconds)
        _log.info("encoder: no package with a pretrained network is installed, so %s is trained on the pool", choice)
        return choice
    label = f"package:{name}"
    per_image = _seconds_per_image(label, store, device)
    choice = Choice(label, *side_for(sides_px, count=passes(count), per_image=per_image, seconds=seconds))
    if name == _NAMES[0] and _BESIDE in installed and fits_beside(choice.seconds, seconds):
        choice = Choice(f"{label}+{_BESIDE}", choice.side_px, _COST_WITH_BESIDE * choice.seconds)
    _log.info("encoder: %s for %s images", choice, f"{count:,}")
    return choice


def fits_beside(alone: float, seconds: float) -> bool:
    """Whether a second network has room in `seconds` beside the first, which takes the seconds `alone`."""
    return _COST_WITH_BESIDE * alone <= _SHARE * seconds


def passes(count: int) -> int:
    """Images that the network sees until a pool of so many is embedded, those of the fit and of the check included."""
    again = ((1, whitening.IMAGES), (3, near_copies.IMAGES), (2, strength_check.IMAGES))
    return count + sum(times * min(count, most) for times, most in again)


def side_for(sides_px: np.ndarray, *, count: int, per_image: float, seconds: float) -> tuple[int, float]:
    """The largest side of use that fits into the time, the smallest if none does; and the seconds that it takes.

    Args:
        sides_px: (N,) side of every image.
        count: Images that the network will see.
        per_image: Seconds that the network takes for an image of 96 px here.
        seconds: Time that the features may cost.
    """
    largest = _ENLARGED * float(np.median(sides_px))
    sides = [side for side in packages.SIDES_PX if side <= largest] or [packages.SIDES_PX[0]]
    costs = [(side, count * per_image * (side / _TIMED_SIDE_PX) ** 2) for side in sides]
    return next((option for option in reversed(costs) if option[1] <= _SHARE * seconds), costs[0])


def _seconds_per_image(name: str, store: Store, device: torch.device | str) -> float:
    """Of the network at 96 px on an idle machine: the quickest of some passes after a first one.

    On a processor these are seconds of its cores over the number of threads that it runs at once: what else runs
    lengthens them little, so it does not change the encoder. At load 4 two cores took up to 6 times as long by the
    clock and 1.6 times by their own seconds (2026-12-02). Chosen by the clock, a busy machine's features gained +2.5
    points at 1,000 labels of CIFAR-10 where an idle one's gained +3.5.
    """
    encoder = resolve.resolve(name, store, device=device, side_px=_TIMED_SIDE_PX)
    blank = torch.zeros(encoder.forward_rows, 3, _TIMED_SIDE_PX, _TIMED_SIDE_PX, dtype=torch.uint8)
    is_processor = encoder.device.type == "cpu"
    clock = time.process_time if is_processor else time.perf_counter
    encoder.encode(blank)
    taken = []
    for _ in range(_TIMED_PASSES):
        started = clock()
        encoder.encode(blank).cpu()
        taken.append(clock() - started)
    at_once = min(torch.get_num_threads(), joblib.cpu_count()) if is_processor else 1  # which heeds a container's share
    return min(taken) / encoder.forward_rows / at_once
