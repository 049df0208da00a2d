"""What an engine is: it runs the many pieces of a stage, on workers of this machine or of a cluster.

An engine changes no result: which worker does a piece, how many there are, and which of them are lost, is not to be
seen in what a stage writes. Not here: the engines themselves (`local`, `ray`), and which one a run has (`opening`).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from wtl_core.errors import LostWorkersError

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_LOSSES = 3
"""An item whose worker is lost for the third time ends the run: more likely than bad luck, it is what kills them."""


@dataclass(frozen=True)
class Needs:
    """What one worker takes of the machine that it runs on.

    Attributes:
        cpus: Cores; torch is given as many threads.
        gpus: GPUs, or a share of one below 1.
        memory_bytes: Memory.
        device: Name of the torch device that it computes on, for who makes the worker.
    """

    cpus: int = 1
    gpus: float = 0
    memory_bytes: int = 2**30
    device: str = "cpu"


class Engine(Protocol):
    """Runs items on workers."""

    def run(
        self,
        make_worker: Callable[[], Callable[[Item], Result]],
        items: Sequence[Item],
        *,
        needs: Needs = Needs(),
        weights: Sequence[float] | None = None,
    ) -> Iterator[tuple[int, Result]]:
        """Do all items, and give each result, with the number of its item, as soon as it is there.

        A worker takes one item after another, so that no more of them are under way than there are workers. An item
        whose worker is lost is done again by another one: it must be harmless to do it twice, even at once. Close the
        iterator, or leave the loop over it, and the workers end.

        Args:
            make_worker: Called once by each worker, to open a store or load a network; what it returns does an item.
                Picklable: a function or a frozen dataclass of a module, not a closure.
            items: Small and picklable, as references to what lies on disk.
            needs: What a worker takes; it decides how many of them there are.
            weights: How long each item takes, in any unit. The heaviest are begun first, so that the longest is not
                the last; the order of `items` decides between equals, and without weights.

        Raises:
            LostWorkersError: an item lost its worker `MOST_LOSSES` times.
            Exception: what `make_worker` or an item raised, as it was raised.
        """
        ...


class Losses:
    """Workers that were lost, by what they were at: one rule for all engines."""

    def __init__(self, remedy: str) -> None:
        self.remedy, self.counts = remedy, Counter[int | None]()

    def add(self, item: int | None, why: str) -> None:
        """Count a worker that was lost over an item, or None for one that had not begun any yet.

        Raises:
            LostWorkersError: it is the `MOST_LOSSES`th.
        """
        self.counts[item] += 1
        if self.counts[item] >= MOST_LOSSES:
            raise LostWorkersError(
                f"expected a worker to end its work, {MOST_LOSSES} were lost "
                f"{'as they started' if item is None else 'over the same piece'}, most likely because memory ran out; "
                f"the last: {why}; {self.remedy}"
            )

    def forget(self, item: int | None) -> None:
        """Count an item's losses, or those of workers that start, from none again."""
        del self.counts[item]


def heaviest_first(count: int, weights: Sequence[float] | None) -> list[int]:
    """The numbers of `count` items in the order in which they are begun."""
    return list(range(count)) if weights is None else sorted(range(count), key=lambda number: -weights[number])
