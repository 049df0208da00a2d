"""The report of 100,000 images: time to build it with and without a map that is there already, its bytes, and its page.

    python tests/bench/bench_report.py [--quick]

Writes tests/bench/reports/report.md. The pool is 100,000 JPEGs of 64 px, shifted crops of the 60,000 images in
../shared/data/cifar10, ranked by `pixels`. The page is opened by a headless Chromium without a card: there the map
takes a canvas, since WebGL is slower.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import report
from bench_pipeline import make_tars

from tests.browser.conftest import Browser, program
from wtl_core.pool import live_pool
from wtl_core.report import page
from wtl_core.workspace import commits, snapshots
from wtl_core.workspace.storage import Store

_FRAMES = """new Promise(done => { const slider = document.getElementById('slider'); let left = 100, start = 0;
(function next(now) { if (!start) start = now; if (!left--) return done(100000 / (now - start));
slider.value = 1000 - 9 * left; slider.dispatchEvent(new Event('input')); requestAnimationFrame(next); })(0); })"""


def build(workspace: Path, *, workers: int = 2) -> tuple[float, float, str]:
    """Wall-clock and processor seconds of rendering the page of the last refresh, and the page."""
    store = Store(str(workspace))
    last = commits.latest(store)
    assert last is not None
    live = live_pool.load(store, snapshots.read_snapshot(store, last.listing))
    start, used = time.perf_counter(), time.process_time()
    text = page.render(store, last, live, workers=workers)
    return time.perf_counter() - start, time.process_time() - used, text


def opened(address: str, folder: Path) -> tuple[float, float]:
    """Seconds until the page can be used, and frames a second while the slider moves; a browser of its own."""
    browser = Browser(program(), folder, "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
    try:
        browser.call("Page.enable")
        browser.call("Page.navigate", url=address)
        start = time.monotonic()
        while browser.evaluate("document.documentElement?.dataset.ready") != "yes":
            assert time.monotonic() - start < 60
            time.sleep(0.02)
        ready = float(browser.evaluate("performance.getEntriesByName('ready')[0].startTime")) / 1000
        return ready, float(browser.evaluate(_FRAMES))
    finally:
        browser.close()


def main() -> None:
    """The report is built twice, and opened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--keep", type=Path, help="a folder for source and workspace that stays, and is used again")
    options = parser.parse_args()
    count = 3_000 if options.quick else 100_000
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder = options.keep or Path(temporary)
        workspace = folder / "w"
        if not (folder / "source").exists():
            make_tars(folder / "source", count)
        wtl = str(Path(sys.executable).with_name("wtl"))
        call = [wtl, "run", str(folder / "source"), "-w", str(workspace), "--encoder", "pixels", "--json"]
        subprocess.run(call, check=True, stdout=subprocess.DEVNULL)
        for made in [*workspace.glob("encoders/*/positions/*"), *workspace.glob("previews/*")]:
            made.unlink()
        rows = []
        for what in ("first report: map fitted, previews made", "next report: no new image"):
            seconds, used, text = build(workspace)
            size = f"{len(text.encode()) / 1e6:.1f}"
            rows.append({"what": what, "seconds": f"{seconds:.1f}", "of a processor": f"{used:.1f}", "MB": size})
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        rows.append({"what": f"peak memory of both: {peak:.2f} GiB"})
        file = folder / "report.html"
        file.write_text(text)
        for what, fragment in (("canvas", ""), ("WebGL imitated by the processor", "#webgl")):
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
                ready, rate = opened(file.as_uri() + fragment, Path(profile))
            rows.append({"what": f"page opened, {what}; {rate:.0f} frames a second", "seconds": f"{ready:.1f}"})
        report.write("report", f"{count:,} images", str(main.__doc__), rows, is_quick=options.quick)


if __name__ == "__main__":
    main()
