"""What the HTML report of a refresh says."""

from pathlib import Path

from tests.near_duplicates import write_near_duplicates
from tests.plain_refresh import refresh
from wtl_core.workspace import commits
from wtl_core.workspace.storage import Store


def page_of(workspace: Path) -> str:
    store = Store(str(workspace))
    last = commits.latest(store)
    assert last is not None
    return store.read_bytes(last.report).decode()


def test_the_report_counts_near_duplicate_groups_and_names_the_largest(tmp_path: Path) -> None:
    write_near_duplicates(tmp_path / "source", pairs=3, alone=2)
    refresh(tmp_path / "w", tmp_path / "source")
    page = page_of(tmp_path / "w")
    assert "Near-duplicate groups: 3 groups of 6 images, the largest of 2." in page
    assert page.count('<td>2</td><td class="name">') == 3


def test_a_report_without_near_duplicates_says_nothing_of_groups(tmp_path: Path) -> None:
    write_near_duplicates(tmp_path / "source", pairs=0, alone=4)
    refresh(tmp_path / "w", tmp_path / "source")
    assert "Near-duplicate groups" not in page_of(tmp_path / "w")
