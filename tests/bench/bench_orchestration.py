"""What Prefect adds: the flow against the plain script, on a running server, over 1,000 small shards.

    python tests/bench/bench_orchestration.py [--quick]

Writes tests/bench/reports/orchestration.md. Each refresh is a process of its own; plain and flow alternate, times are
whole processes from start to end, imports included. The bound is 3 s + 5 % of the plain script.
"""

import argparse
import io
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from service_stack import Stack

from tests.bench import report

PLAIN = (
    "import sys\nfrom wtl_core import pipeline\nfrom wtl_core.workspace import storage\n"
    "from wtl_core.recipe.recipe import build_recipe\n"
    "recipe = build_recipe({'encoder': {'name': 'pixels'}}, name='bench')\n"
    "pipeline.refresh_workspace(storage.open_store(sys.argv[2]), [sys.argv[1]], recipe, pipeline.Machine(workers=2))\n"
)
FLOW = (
    "import sys\nfrom flows.refresh import refresh\nfrom wtl_core.recipe.recipe import build_recipe\n"
    "recipe = build_recipe({'encoder': {'name': 'pixels'}}, name='bench')\n"
    "refresh(sys.argv[2], [sys.argv[1]], recipe)\n"
)


def flow(folder: Path, *, is_quick: bool) -> list[dict[str, object]]:
    """`pixels` encoder, two workers; the server runs before and after."""
    shards, each, repeats = (100, 20, 1) if is_quick else (1000, 50, 3)
    source = make_shards(folder / "source", shards, each)
    stack = Stack(folder / "stack", sources=[str(source)])
    stack.start_server()
    try:
        seconds: dict[str, list[float]] = {"plain": [], "flow": []}
        for repeat in range(repeats):
            for kind, script in (("plain", PLAIN), ("flow", FLOW)):
                seconds[kind].append(timed(script, source, folder / f"{kind}-{repeat}", stack.environment))
        time.sleep(5)
        tasks = stack.api("POST", "/task_runs/count", {}) / repeats
    finally:
        stack.stop()
    plain, with_flow = (statistics.median(seconds[kind]) for kind in ("plain", "flow"))
    bound = 3 + 0.05 * plain
    what = f"{shards * each:,} images in {shards:,} tars"
    return [
        {"what": f"{what}, plain script", "seconds": f"{plain:.1f}", "runs": told(seconds["plain"])},
        {"what": f"{what}, flow on a running server", "seconds": f"{with_flow:.1f}", "runs": told(seconds["flow"])},
        {"what": "added", "seconds": f"{with_flow - plain:.1f}", "runs": f"bound {bound:.1f}"},
        {"what": "task runs of one refresh", "seconds": f"{tasks:.0f}", "runs": ""},
    ]


def timed(script: str, source: Path, workspace: Path, environment: dict[str, str]) -> float:
    quiet = {"OMP_NUM_THREADS": "2", "PREFECT_LOGGING_LEVEL": "ERROR", "PYTHONPATH": str(ROOT)}
    env = {**environment, **quiet}
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", script, str(source), str(workspace)], check=True, env=env)
    return time.perf_counter() - start


def told(seconds: list[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in seconds)


def make_shards(folder: Path, shards: int, each: int) -> Path:
    """Small distinct JPEGs, `each` to a tar."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for shard in range(shards):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for number in range(each):
                buffer = io.BytesIO()
                coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
                coarse.resize((32, 32), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=85)
                member = tarfile.TarInfo(f"{number}.jpg")
                member.size = buffer.tell()
                buffer.seek(0)
                tar.addfile(member, buffer)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wtl-bench-") as folder:
        rows = flow(Path(folder), is_quick=given.quick)
    assert flow.__doc__ is not None
    report.write("orchestration", "What Prefect adds to a refresh", flow.__doc__, rows, is_quick=given.quick)


if __name__ == "__main__":
    main()
