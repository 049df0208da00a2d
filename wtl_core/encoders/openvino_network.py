"""Packaged networks on a processor run in OpenVINO, several times as fast as in torch; elsewhere torch runs them.

EfficientNet-Lite's depthwise convolutions are what torch's processor kernels are slowest at. Figures of both are in
`tests/bench/reports/features.md`. Vectors agree with torch's to the rounding of bfloat16.
"""

import importlib.util
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn


def is_installed() -> bool:
    """Whether OpenVINO is there."""
    return importlib.util.find_spec("openvino") is not None


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """Keep OpenVINO from reporting its import to its makers, for which it asks on a terminal and waits for an answer.

    It does without its package for that where it cannot be imported.
    """
    name = "openvino_telemetry"
    held = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]  # Python's way to say that a module cannot be imported
    try:
        yield
    finally:
        del sys.modules[name]
        if held is not None:
            sys.modules[name] = held


class OpenvinoNetwork(nn.Module):
    """A network compiled by OpenVINO for passes of one shape, computed with torch's number of threads.

    One request at a time with a fixed shape: the same image gives the same bits whatever its neighbours are. Importing
    OpenVINO and compiling take some 3 s on 2 cores, so that waits for the first pass, which a refresh without new
    images never makes, and the last networks stay compiled: a first refresh needs the same one several times.
    """

    def __init__(self, network: nn.Module, *, digest: str, rows: int, side_px: int, is_bfloat16: bool) -> None:
        super().__init__()
        self._key = (digest, rows, side_px, is_bfloat16, torch.get_num_threads())
        self._compile: Callable[[], Any] | None = partial(_compile, network, *self._key[1:])
        self._request: Any = None

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Features (n, D) float32 of (n, 3, S, S) values, where n is the one number of rows."""
        if self._request is None:
            self._request = self._compiled().create_infer_request()
            self._compile = None  # and torch's network with it
        outputs = self._request.infer([values.float().contiguous().numpy()], share_inputs=True)
        return torch.from_numpy(outputs[0].copy())

    def _compiled(self) -> Any:
        if self._key not in _compiled:
            if len(_compiled) >= _MOST_COMPILED:
                del _compiled[next(iter(_compiled))]
            assert self._compile is not None
            _compiled[self._key] = self._compile()
        return _compiled[self._key]


_MOST_COMPILED = 4
_compiled: dict[tuple[str, int, int, bool, int], Any] = {}
"""By digest of the weights, rows, side, number format and threads; the oldest first."""


def _compile(network: nn.Module, rows: int, side_px: int, is_bfloat16: bool, threads: int) -> Any:
    return compile_model(convert(network, rows, side_px), is_bfloat16=is_bfloat16, threads=threads)


def convert(network: nn.Module, rows: int, side_px: int) -> Any:
    """OpenVINO's model of a network for (rows, 3, side_px, side_px) float32, not compiled yet."""
    with _without_telemetry():
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    example = torch.zeros(1, 3, side_px, side_px)  # traced by torch: with all rows that took half a minute
    frontend = FrontEndManager().load_by_framework("pytorch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of `torch.jit.trace`, which OpenVINO builds on
        # named, since it must outlive `load`
        decoder = TorchScriptPythonDecoder(network.float(), example_input=example)
    model = frontend.convert(frontend.load(decoder))
    model.reshape([rows, 3, side_px, side_px])
    return model


def compile_model(model: Any, *, is_bfloat16: bool, threads: int) -> Any:
    """The model compiled for the processor; floats are computed in bfloat16 or float32."""
    with _without_telemetry():
        import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if is_bfloat16 else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,  # else two processes of one thread each share the first core
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    return openvino.Core().compile_model(model, "CPU", settings)
