"""Experimental: encoders whose network is compiled for a GPU. This code has not run on a GPU yet.

A compiled network is faster and gives other low bits, so it has a fingerprint of its own. The recipe decides, never the
amount of work: all vectors of a table are computed in one way. Tested on the processor, for which torch can compile too
(`tests/core/test_encoders_compiled.py`, `test_global_settings.py`); times are of a prototype on an H100.
"""

import logging
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from wtl_core.encoders.encoder import Encoder
from wtl_core.encoders.fingerprints import compiled_fingerprint
from wtl_core.errors import ConfigError

_log = logging.getLogger(__name__)

_SHAPES = 128
"""Compilations of one network in a process, at most: one for each GPU and for each halving of its passes."""


_compiling = threading.Lock()
"""One network at a time: torch's limit of compilations, which each may raise, is the whole process's."""


class _Compiled(nn.Module):
    """A network that is compiled for each new shape of its input; other code keeps torch's own limit of shapes."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        options: dict[str, str | int | bool | Callable[..., object]] = {"deterministic": True}
        self.network = torch.compile(network, dynamic=False, fullgraph=True, options=options)
        self.shapes: set[tuple[int, ...]] = set()

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """What the network gives of (n, 3, S, S) values."""
        shape = tuple(values.shape)
        if shape in self.shapes:
            return self._passed(values)
        # beyond torch's 8 a further shape would be an error under `fullgraph`
        with _compiling, torch._dynamo.config.patch(recompile_limit=_SHAPES):
            features = self._passed(values)
        self.shapes.add(shape)
        return features

    def _passed(self, values: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.network(values)
        return features


def can_compile() -> bool:
    """Whether torch can compile a network for a GPU here: it builds a launcher with the system's C compiler.

    Compiled, a training step of ResNet-18 at 32 px took 0.7 of the time on an H100. For processors nothing is compiled:
    every small machine would need the same C compiler, and two thirds of a step are convolutions already.
    """
    return any(shutil.which(name) for name in ("gcc", "cc", "clang"))


def check_can_compile(device: torch.device | str) -> None:
    """Refuse a device or a machine for which networks cannot be compiled. Raises ConfigError."""
    device = torch.device(device)
    if device.type == "cuda" and can_compile():
        return
    found = f"the device {device}" if device.type != "cuda" else "no C compiler (gcc, cc or clang)"
    raise ConfigError(
        f"encoder.compile: expected a CUDA GPU and a C compiler, found {found}; run where both are, or set it to "
        "false, which makes all vectors anew, in a table of their own"
    )


def compiled(encoder: Encoder) -> Encoder:
    """The encoder with its network compiled, after one forward pass: half a minute once a process.

    After that ResNet-18 and ResNet-50 were 1.4 to 1.6 times as fast on an H100. Kernels are chosen by rule and not by
    timing, and a network is compiled as a whole or refused, so that no part of it is computed in another way.

    Raises:
        ConfigError: torch cannot compile it here.
    """
    twin = replace(
        encoder,
        fingerprint=compiled_fingerprint(encoder.fingerprint),
        module=_Compiled(encoder.module),
        card={**encoder.card, "is_compiled": True},
    )
    started = time.monotonic()
    side = encoder.side_px
    try:
        twin.features(torch.zeros(encoder.forward_rows, 3, side, side, dtype=torch.uint8, device=encoder.device))
    except torch.OutOfMemoryError:
        _log.info("the first pass does not fit into memory; embedding halves it")
    except RuntimeError as error:
        raise ConfigError(
            f"encoder.compile: expected that torch can compile {encoder.name} for {encoder.device}, found: "
            f"{' '.join(str(error).split())[:200]}; set it to false"
        ) from error
    _log.info("compiled %s for %s in %.0f s", encoder.name, encoder.device, time.monotonic() - started)
    return twin
