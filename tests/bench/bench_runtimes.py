"""What runs a packaged network fastest on a processor, what it loses by that, and whether it keeps the contracts.

    pip install onnxscript onnxruntime nncf        (the engines that the project does without)
    python tests/bench/bench_runtimes.py [--quick] [--sides 96 160] [--images 4096]

Eager and compiled torch, ONNX Runtime and OpenVINO, in float32, bfloat16 and 8-bit integers (calibrated by images of
the set). Each engine runs the same network; its outputs are treated as the project's are, and judged by 20-NN. Engines
that are not installed are left out. Writes tests/bench/reports/runtimes.md.
"""

import argparse
import importlib.util
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import report
import torch
from bench_features import NETWORK, LabelledPool, images_per_second, nearest_neighbours, readers, sample
from torch import nn

from wtl_core.encoders import openvino_network, packages, resolve
from wtl_core.encoders.encoder import Encoder
from wtl_core.training import fitting
from wtl_core.training.image_cache import decode_pool
from wtl_core.workspace.storage import open_store

CPU = torch.device("cpu")
_CALIBRATION_BATCHES = 10
"""Of 32 images each: 320, as many as NNCF takes by default (300)."""
_TURNS = 5


class Called(nn.Module):
    """A function of (32, 3, S, S) float32 arrays as a module."""

    def __init__(self, function: Callable[[np.ndarray], np.ndarray]) -> None:
        super().__init__()
        self.function = function

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self.function(values.float().contiguous().numpy()))


def network() -> nn.Module:
    """The bare network with its weights; engines fold its norms into its convolutions, torch alone does not."""
    found, _ = packages.load_packaged(NETWORK.partition(":")[2])
    return found.requires_grad_(requires_grad=False).eval()


def by_torch(encoder: Encoder, *, number_format: str, is_compiled: bool = False) -> Encoder:
    """torch alone, images laid out channels last."""
    module: Any = network().to(dtype=getattr(torch, number_format), memory_format=torch.channels_last)  # type: ignore[call-overload]
    if is_compiled:
        module = torch.compile(module)
    return replace(encoder, module=module, number_format=number_format)  # type: ignore[arg-type]


def by_openvino(encoder: Encoder, calibration: list[np.ndarray] | None, *, is_bfloat16: bool) -> Encoder:
    """OpenVINO, in 8-bit integers where there is a calibration."""
    model = openvino_network.convert(network(), encoder.forward_rows, encoder.side_px)
    if calibration is not None:
        import nncf

        logging.getLogger("nncf").setLevel(logging.ERROR)
        model = nncf.quantize(model, nncf.Dataset(calibration), subset_size=len(calibration))
    compiled = openvino_network.compile_model(model, is_bfloat16=is_bfloat16, threads=torch.get_num_threads())
    request = compiled.create_infer_request()
    module = Called(lambda values: request.infer([values], share_inputs=True)[0].copy())
    return replace(encoder, module=module, number_format="bfloat16" if is_bfloat16 else "float32")


def by_onnx(encoder: Encoder, calibration: list[np.ndarray] | None, folder: Path) -> Encoder:
    """ONNX Runtime, in float32 or, where there is a calibration, in 8-bit integers."""
    import onnxruntime

    path = folder / f"network-{encoder.side_px}.onnx"
    example = torch.zeros(encoder.forward_rows, 3, encoder.side_px, encoder.side_px)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network(), (example,), path, input_names=["images"], external_data=False, verbose=False)
    if calibration is not None:
        path = quantized(path, calibration)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    module = Called(lambda values: session.run(None, {"images": values})[0])
    return replace(encoder, module=module, number_format="float32")


def quantized(path: Path, calibration: list[np.ndarray]) -> Path:
    """The network of a file with 8-bit weights, a scale for each channel, and 8-bit activations."""
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Batches(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.left, None)
            return None if batch is None else {"images": batch}

    prepared, target = path.with_suffix(".prepared.onnx"), path.with_suffix(".int8.onnx")
    quant_pre_process(path, prepared, skip_symbolic_shape=True)
    convolutions = ["Conv"]  # the training-free features and the lengths of stages stay in floats
    quantization.quantize_static(prepared, target, Batches(), per_channel=True, op_types_to_quantize=convolutions)
    return target


def engines(encoder: Encoder, squares: torch.Tensor, folder: Path) -> Iterator[tuple[str, Callable[[], Encoder]]]:
    """Name and maker of each engine that is installed; the project's own is the first."""
    batches = torch.split(squares[: _CALIBRATION_BATCHES * encoder.forward_rows], encoder.forward_rows)
    values = [encoder._normalised(batch).numpy() for batch in batches if len(batch) == encoder.forward_rows]
    yield "torch, float32", lambda: by_torch(encoder, number_format="float32")
    yield "torch, bfloat16", lambda: by_torch(encoder, number_format="bfloat16")
    yield "torch compiled, bfloat16", lambda: by_torch(encoder, number_format="bfloat16", is_compiled=True)
    has_onnx = all(importlib.util.find_spec(name) for name in ("onnxscript", "onnxruntime"))
    if has_onnx:
        yield "ONNX Runtime, float32", lambda: by_onnx(encoder, None, folder)
        yield "ONNX Runtime, int8", lambda: by_onnx(encoder, values, folder)
    if openvino_network.is_installed():
        yield "OpenVINO, float32", lambda: by_openvino(encoder, None, is_bfloat16=False)
        yield "OpenVINO, bfloat16", lambda: by_openvino(encoder, None, is_bfloat16=True)
        if importlib.util.find_spec("nncf"):
            yield "OpenVINO, int8", lambda: by_openvino(encoder, values, is_bfloat16=False)
            yield "OpenVINO, int8 and bfloat16", lambda: by_openvino(encoder, values, is_bfloat16=True)


def is_same_anywhere(encoder: Encoder, squares: torch.Tensor) -> bool:
    """Whether an image's outputs have the same bits at another place among other images."""
    rows = encoder.forward_rows
    first, turned = squares[:rows], torch.cat([squares[rows : 2 * rows - 1], squares[:1]])
    return torch.equal(encoder.features(first)[0], encoder.features(turned)[-1])


def judge(encoder: Encoder, pools: Sequence[LabelledPool]) -> dict[str, str]:
    """Per cent by 20-NN for each set, after the treatment that the project gives every network's outputs."""
    found = {}
    for pool in pools:
        fitted, squares = fitting.fitted_to(encoder, pool.images, workers=2)
        found[pool.name] = f"{nearest_neighbours(fitted.encode(squares), pool):.1f}"
    return found


def measure(side: int, pools: Sequence[LabelledPool]) -> list[dict[str, object]]:
    """The table of one image side. Engines are timed in turns, since the machine's speed drifts."""
    with tempfile.TemporaryDirectory() as folder:
        encoder = resolve.resolve(NETWORK, open_store(folder), device=CPU, side_px=side)
        count = _CALIBRATION_BATCHES * encoder.forward_rows // len(pools) + 1
        squares = [decode_pool(pool.images, count, encoder.preprocessing, workers=2) for pool in pools]
        mixed = torch.from_numpy(np.concatenate(squares))
        ready, made = {}, {}
        for name, make in engines(encoder, mixed, Path(folder)):
            started = time.perf_counter()
            made[name] = make()
            made[name].features(mixed[: encoder.forward_rows])
            ready[name] = time.perf_counter() - started
    turns = [{name: images_per_second(one) for name, one in made.items()} for _ in range(_TURNS)]
    print(*turns, sep="\n", flush=True)
    rows: list[dict[str, object]] = []
    for name, one in made.items():
        row: dict[str, object] = {
            "engine": name,
            "images/s": f"{np.median([turn[name] for turn in turns]):,.0f}",
            "ready in s": f"{ready[name]:.1f}",
            "same bits anywhere": "yes" if is_same_anywhere(one, mixed) else "no",
        }
        rows.append(row | judge(one, pools))
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="200 images a set at the smallest side, printed only")
    parser.add_argument("--sides", type=int, nargs="+", default=[96, 160])
    parser.add_argument("--images", type=int, default=2000, help="of each set, 4,096 at most")
    options = parser.parse_args()
    count = 200 if options.quick else options.images
    pools = [sample(name, reader(), count) for name, reader in readers(None).items()]
    for side in options.sides[:1] if options.quick else options.sides:
        text = (
            f"{NETWORK} in passes of 32 from memory, {torch.get_num_threads()} threads; the median of {_TURNS} turns "
            f"of all engines. 20-NN in per cent, leave one out, over {count:,} images of each set at most, after the "
            f"project's treatment. Images of all sets calibrate 8-bit integers. What is not installed is left out."
        )
        report.write("runtimes", f"Engines at {side} px", text, measure(side, pools), is_quick=options.quick)


if __name__ == "__main__":
    main()
