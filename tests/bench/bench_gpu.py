"""Every measure that waits for a GPU, one after the other, within nine minutes, into one report.

    python tests/bench/bench_gpu.py [--device cuda] [--seconds 530] [--only equal ...] [--quick]

It needs torch, torchvision, timm, numba and Pillow; beside them polars, pydantic, simplejpeg, blake3 and zstandard,
which are small enough to be carried. The sets (`bench_proof.py --data`) and anything else that is not there is named in
the report and left out. `--quick --device cpu` shows on any machine that all steps run. A step that does not end within
its share of the time is ended and said to be; what it had written is kept. Writes tests/bench/reports/gpu.md.
"""

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import report

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PLACE = ROOT / "test-output" / "gpu"
"""Where the steps keep what they have done, so that the next run goes on with the grid."""


@dataclass(frozen=True)
class Step:
    """A bench, or tests, and the share of the time that it may take.

    Attributes:
        title: What it answers.
        words: The command, behind `python`.
        share: Of all seconds.
        own_limit: The option by which the command itself stops in time; empty where it has none.
    """

    title: str
    words: tuple[str, ...]
    share: float
    own_limit: str = ""


STEPS = {
    "tests": Step(
        "Tests that need a GPU",
        (
            "-m",
            "pytest",
            "-q",
            "-n",
            "0",
            "-m",
            "gpu",
            "tests/core/test_embedding.py",
            "tests/core/test_training_killed.py",
        ),
        0.1,
    ),
    "equal": Step(
        "Selection on the device: the same ranking as on the processor, and how long",
        ("tests/bench/bench_selection.py", "--only", "equal", "coverage"),
        0.15,
    ),
    "embedding": Step(
        "Embedding: vectors on the device beside the processor's, and against the same network fed from memory",
        ("tests/bench/bench_embedding.py", "--only", "equal", "ratio"),
        0.1,
    ),
    "training": Step(
        "An encoder trained on the pool's own images, and what it is worth",
        ("tests/bench/bench_encoders.py", "--only", "best"),
        0.2,
        "--seconds",
    ),
    "scratch": Step(
        "Networks from scratch: coverage against random, balanced and with a long tail and bursts",
        ("tests/bench/bench_proof.py", "--only", "scratch", "tail"),
        0.45,
        "--seconds",
    ),
}


def main() -> None:
    """Run the steps and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default=report.default_device())
    parser.add_argument("--seconds", type=float, default=530, help="for all steps together")
    parser.add_argument("--only", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--quick", action="store_true", help="small sizes; nothing is written")
    options = parser.parse_args()
    began, shares = time.monotonic(), sum(STEPS[name].share for name in options.only)
    for name in options.only:
        left = options.seconds - (time.monotonic() - began)
        limit = max(10.0, left * STEPS[name].share / shares)
        shares -= STEPS[name].share
        seconds, state, text = run(name, STEPS[name], limit, options)
        rows: list[dict[str, object]] = [{"step": name, "ended": state, "seconds": f"{seconds:.0f}"}]
        shown = text.strip().replace("\n## ", "\n### ").removeprefix("## ")
        report.write("gpu", STEPS[name].title, f"```\n{shown[-6000:]}\n```", rows, is_quick=options.quick)


def run(name: str, step: Step, limit: float, options: argparse.Namespace) -> tuple[float, str, str]:
    """How long a step took, how it ended, and what it printed."""
    words = [sys.executable, *step.words]
    if name == "tests":
        if not options.device.startswith("cuda"):
            return 0.0, "left out, there is no GPU", ""
    else:
        words += ["--device", options.device, *(["--quick"] if options.quick else [])]
    if step.own_limit:  # a third is left for what comes before its loop and after it
        words += [step.own_limit, str(round(0.66 * limit))]
    if name == "scratch":
        words += ["--output", str(PLACE / "proof"), "--report", str(PLACE / "proof.md")]
    places = {"BENCH_REPORTS": str(PLACE), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    started = time.monotonic()
    with subprocess.Popen(
        words, cwd=ROOT, env={**os.environ, **places}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            text, _ = process.communicate(timeout=limit)
            state = "well" if process.returncode == 0 else f"with exit code {process.returncode}"
        except subprocess.TimeoutExpired:
            process.kill()
            text, _ = process.communicate()
            state = f"by its limit of {limit:.0f} s"
    return time.monotonic() - started, state, text


if __name__ == "__main__":
    main()
