"""Takes what README.md shows of a first run from a real one: the last lines of `make run`, and a picture of its report.

    make pictures          (some minutes; needs Chromium: apt-get install chromium)

Run it again when the sample source, the report or the printed lines have changed, and look at the picture.
"""

import io
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

from tests.docs import DOCS, README, ROOT

PICTURE = DOCS / "report.png"
MOST_BYTES = 400_000
_WORK = ROOT / "test-output" / "first-run"
_LINES = 13
"""Of the output, up to the coverage at some per cents; seconds, paths and the next commands follow."""
_WIDTH, _HEIGHT = 1200, 1640
_COLOURS = 128
_PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def first_run() -> tuple[str, Path]:
    """What `make run` prints on stdout for the sample in a new workspace, and the path of the report."""
    shutil.rmtree(_WORK, ignore_errors=True)
    workspace = _WORK / "workspace"
    done = subprocess.run(
        ["make", "--no-print-directory", "--silent", "run", f"WORKSPACE={workspace}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    [report] = (workspace / "reports").glob("*.html")
    return done.stdout, report


def with_short_paths(text: str) -> str:
    """A text without the folders of this machine."""
    return text.replace(f"{_WORK}/", "").replace(f"{ROOT}/", "")


def as_shown(text: str) -> str:
    """The first printed lines, with short paths."""
    lines = with_short_paths(text).strip().splitlines()
    return "\n".join([*lines[:_LINES], "..."] if len(lines) > _LINES else lines)


def write_output(text: str) -> None:
    """Put the printed lines into README.md."""
    block = f"```\n{as_shown(text)}\n```"
    pattern = r"(<!-- output, [^\n]*-->\n).*?(\n<!-- end of output -->)"
    page, count = re.subn(pattern, lambda m: m[1] + block + m[2], README.read_text(), flags=re.DOTALL)
    assert count == 1, README
    README.write_text(page)


def photograph(report: Path, picture: Path = PICTURE) -> None:
    """A picture of the top of a report, in few colours so that the file is small."""
    program = next((path for name in _PROGRAMS if (path := shutil.which(name))), None)
    if program is None:
        raise SystemExit("expected Chromium to take a picture of the report, found none: apt-get install chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        shot, page = Path(folder) / "shot.png", Path(folder) / "report.html"
        page.write_text(with_short_paths(report.read_text()))
        options = ["--headless=new", "--no-sandbox", "--hide-scrollbars", f"--user-data-dir={folder}"]
        options += ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]  # the map, in software
        options.append("--virtual-time-budget=20000")  # until the script has drawn
        size = f"--window-size={_WIDTH},{_HEIGHT}"
        command = [program, *options, size, f"--screenshot={shot}", page.as_uri()]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL, timeout=120)
        buffer = io.BytesIO()
        few = Image.open(shot).convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
        few.save(buffer, "PNG", optimize=True)
    assert buffer.tell() <= MOST_BYTES, f"{buffer.tell()} bytes: lower _COLOURS or _HEIGHT"
    picture.write_bytes(buffer.getvalue())


if __name__ == "__main__":
    printed, made = first_run()
    write_output(printed)
    photograph(made)
