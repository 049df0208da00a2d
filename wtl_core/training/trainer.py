"""One training in memory: weights, momenta, and what a step does to them. Uses no files and no clock.

Experimental on a GPU, where network and views are compiled: this code has not run on one yet. What it does is tested on
the processor (`tests/core/test_encoders_training.py`); one test, marked `gpu`, waits for a GPU.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from wtl_core.encoders.compiled import can_compile
from wtl_core.encoders.networks import build_network
from wtl_core.training.augment import Strength, random_parameters, to_device, views
from wtl_core.training.image_cache import copy_rows
from wtl_core.training.objective import Projector, contrast
from wtl_core.training.peers import ALONE, Peers
from wtl_core.training.sizing import TrainingPlan

_MOMENTUM = 0.9
_WARM_UP_SHARE = 0.05
"""Share of the steps in which the learning rate rises, so that random first weights are not thrown far off."""
_CHECKED_IMAGES = 512
"""Images that the health of training is measured on: the agreement of neighbours has a chance level of 2 % then."""
_ON_DEVICE_BYTES = 8 << 30
"""Squares of up to so many bytes stay on the GPU; larger pools are copied batch by batch."""


class Trainer:
    """Weights and momenta of one plan on one device; every step is a function of them, the plan and its number."""

    def __init__(
        self,
        plan: TrainingPlan,
        squares: np.ndarray,
        device: torch.device,
        *,
        start: dict[str, torch.Tensor] | None = None,
        peers: Peers = ALONE,
    ) -> None:
        self.plan, self.squares, self.device, self.peers = plan, squares, device, peers
        self.strength = Strength()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.seed)
            self.network = build_network(plan.shape)
            self.projector = Projector(plan.shape.dimensions, plan.hidden)
        if start is not None:
            self.network.load_state_dict(start)
        self.network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the stub lacks it
        self.projector.to(device)
        self.optimizer = _optimizer(self.network, self.projector, plan)
        self.resident = torch.from_numpy(squares).to(device) if _fits(squares, device) else None
        self.forward = compiled_on_gpu(self.network, device)
        self.views = compiled_on_gpu(views, device)
        normal = plan.preprocessing
        self.mean = torch.tensor(normal.mean, device=device).view(1, 3, 1, 1)
        self.std = torch.tensor(normal.std, device=device).view(1, 3, 1, 1)
        self._order = (-1, np.empty(0, np.int64))

    def step(self, number: int) -> torch.Tensor:
        """One update; the loss, still on the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.learning_rate * _pace(number, self.plan.steps or 1_000_000)
        self.network.train()
        rows = self.rows_of_step(number)
        total = torch.zeros((), device=self.device)
        pieces = np.array_split(rows, self.plan.accumulate)
        devices = [self.device] if self.device.type == "cuda" else []
        with (
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
            torch.random.fork_rng(devices=devices),
        ):
            for position, piece in list(enumerate(pieces))[self.peers.rank :: self.peers.size]:
                mixed = _mixed(self.plan.seed, number, position)
                generator = torch.Generator().manual_seed(mixed)
                self._seed_globally(mixed)
                loss = self.loss(piece, generator)
                (loss / len(pieces)).backward()  # type: ignore[no-untyped-call]
                total += loss.detach() / len(pieces)
            total = self.peers.add_up([self.network, self.projector], total)
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total

    def _seed_globally(self, seed: int) -> None:
        """Seed the device's global generator, by which foreign networks drop features and layers."""
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            index = torch.cuda.current_device() if self.device.index is None else self.device.index
            torch.cuda.default_generators[index].manual_seed(seed)

    def loss(self, rows: np.ndarray, generator: torch.Generator) -> torch.Tensor:
        """The loss of some images, each in views of its own."""
        seen = self.inputs(rows, self.plan.views, generator)
        projected = self.projector(self.features(seen)).float()
        return contrast(projected, views=self.plan.views, temperature=self.plan.temperature)

    def two_views(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (n, D) of two views of the first images, as the finished encoder would see them."""
        rows = np.arange(min(_CHECKED_IMAGES, len(self.squares)))
        self.network.eval()
        with torch.no_grad():
            generator = torch.Generator().manual_seed(_mixed(self.plan.seed, -1, 0))
            features = self.features(self.inputs(rows, 2, generator, is_compiled=False), is_compiled=False)
        first, second = features.chunk(2)
        return first, second

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything that later steps depend on, by name."""
        found = {f"network.{key}": value for key, value in self.network.state_dict().items()}
        found |= {f"projector.{key}": value for key, value in self.projector.state_dict().items()}
        for row, parameter in enumerate(self._parameters()):
            found[f"momentum.{row}"] = self.optimizer.state[parameter]["momentum_buffer"]
        return found

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """Go back to what `tensors` returned."""
        for part, module in (("network.", self.network), ("projector.", self.projector)):
            state = {key.removeprefix(part): value for key, value in tensors.items() if key.startswith(part)}
            module.load_state_dict(state)
        for row, parameter in enumerate(self._parameters()):
            momentum = torch.empty_like(parameter)  # keeps the layout, which decides the order of sums
            self.optimizer.state[parameter]["momentum_buffer"] = momentum.copy_(tensors[f"momentum.{row}"])

    def inputs(
        self, rows: np.ndarray, count: int, generator: torch.Generator, *, is_compiled: bool = True
    ) -> torch.Tensor:
        """`count` random views of the rows, view-major, as the network takes them."""
        random = random_parameters(count * len(rows), self.strength, generator).to(self.device)
        images = self._images(rows).repeat(count, 1, 1, 1)
        seen = (self.views if is_compiled else views)(images, random, self.plan.view_px)
        return ((seen - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def features(self, values: torch.Tensor, *, is_compiled: bool = True) -> torch.Tensor:
        """The network's features of the values, (n, D) float32."""
        is_bfloat16 = self.plan.number_format == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=is_bfloat16):
            features: torch.Tensor = (self.forward if is_compiled else self.network)(values)
        return features.float()

    def _images(self, rows: np.ndarray) -> torch.Tensor:
        if self.resident is not None:
            return self.resident[to_device(torch.from_numpy(rows), self.device)]
        return copy_rows(self.squares, rows).to(self.device)

    def rows_of_step(self, number: int) -> np.ndarray:
        """The step's images: each epoch a new order, the remainder that fills no batch left out."""
        batch = self.plan.batch_images
        epoch, position = divmod(number, max(1, len(self.squares) // batch))
        if self._order[0] != epoch:
            self._order = (epoch, np.random.default_rng([self.plan.seed, epoch]).permutation(len(self.squares)))
        return self._order[1][position * batch : (position + 1) * batch]

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]


def compiled_on_gpu(function: Callable[..., torch.Tensor], device: torch.device) -> Callable[..., torch.Tensor]:
    """`function`, compiled if the device is a GPU and this machine can compile for one.

    Kernels are chosen by rule: timed ones may differ in a process that finds no cache, and with them the bits of a
    training that goes on there.
    """
    if device.type != "cuda" or not can_compile():
        return function
    return torch.compile(function, dynamic=False, options={"deterministic": True})


def _optimizer(network: nn.Module, projector: nn.Module, plan: TrainingPlan) -> torch.optim.SGD:
    parameters = [*network.parameters(), *projector.parameters()]
    groups = [
        {"params": [value for value in parameters if value.ndim > 1], "weight_decay": plan.weight_decay},
        {"params": [value for value in parameters if value.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=plan.learning_rate, momentum=_MOMENTUM, nesterov=True)


def _pace(number: int, steps: int) -> float:
    """Share of the highest learning rate: up over the first steps, then down along a cosine to zero."""
    rise = max(1, round(_WARM_UP_SHARE * steps))
    if number < rise:
        return (number + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (number - rise) / max(1, steps - rise)))


def _mixed(*parts: int) -> int:
    """One seed from several numbers; numbers that differ by one give unrelated seeds."""
    return int(np.random.SeedSequence([part % 2**32 for part in parts]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _fits(squares: np.ndarray, device: torch.device) -> bool:
    return device.type == "cuda" and squares.nbytes <= _ON_DEVICE_BYTES
