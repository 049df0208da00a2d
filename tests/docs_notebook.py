"""Writes docs/notebook.ipynb: the cells below, run on the sample source by a real kernel, with what they show.

    make pictures          (with the other pictures of the docs; the notebook itself takes half a minute)

Run it again when the cells, the Python face or the sample source have changed, and look at the notebook.
"""

import tempfile
from pathlib import Path

from tests import sample_source
from tests.docs import DOCS

NOTEBOOK = DOCS / "notebook.ipynb"
MOST_BYTES = 400_000
CELLS = (
    "# What to label, in a notebook\n"
    "The sample source of `make run`, ranked by features without training (`pixels`), which takes some seconds. "
    "Everything that follows reads what a refresh left; the page [Python](python.md) explains it.",
    "import wtl\n\n"
    'ws = wtl.open("workspace", create=True)\n'
    'done = ws.refresh("sample", encoder="pixels", budget="5%")\n'
    "ws",
    "How much does each per cent cover, beside random picks?",
    "ws.ladder()",
    "The first picks. Nothing is recorded by looking at them.",
    'picks = ws.cut("5%")\npicks',
    "Images like one of them. Bursts and copies lie near each other, and few of each are picked.",
    "ws.similar(picks.ids[7], count=8)",
    "Tables are polars frames.",
    'picks.table.select("rank", "gain", "stands_for", "radius").head()',
    "The engine takes vectors of your own as well, without a workspace.",
    "ids, vectors = ws.vectors()\n"
    'own = wtl.rank(vectors, ids, budget="5%")\n'
    'own.ladder().at("5%")',
)  # fmt: skip
"""Text and code in turn; text comes first."""


def main() -> None:
    """Run the cells and write the notebook."""
    import nbformat
    from nbclient import NotebookClient

    kinds = (nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell)
    cells = [kinds[place % 2](text, id=f"cell-{place}") for place, text in enumerate(CELLS)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    with tempfile.TemporaryDirectory() as folder:
        sample_source.build(Path(folder) / "sample")
        NotebookClient(notebook, resources={"metadata": {"path": folder}}, record_timing=False).execute()
        text = nbformat.writes(notebook, version=4).replace(folder, "")
    NOTEBOOK.write_text(text + "\n")
    assert NOTEBOOK.stat().st_size < MOST_BYTES, f"{NOTEBOOK}: {NOTEBOOK.stat().st_size:,} bytes"


if __name__ == "__main__":
    main()
