"""`wtl progress` as a person or a script calls it."""

import csv
import re
from pathlib import Path

import pytest

from tests.conftest import result_of, write_pictures
from tests.flows.conftest import Wtl
from tests.plain_refresh import ranking, refresh
from wtl_core.workspace import ledger
from wtl_core.workspace.storage import Store

pytestmark = pytest.mark.usefixtures("two_threads")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A workspace of 150 images."""
    refresh(tmp_path / "w", write_pictures(tmp_path / "photos", count=150))
    return tmp_path / "w"


def exported(wtl_here: Wtl, work: Path, *words: object) -> list[str]:
    """The ids of a batch."""
    file = work.parent / "batch.csv"
    assert wtl_here("export", *words, "-o", file, "-w", work).returncode == 0
    with file.open() as rows:
        return [row["sample_id"] for row in csv.DictReader(rows)]


def classes_of(ids: list[str]) -> list[list[str]]:
    return [["even"] if int(sample_id[0], 16) % 2 else ["odd"] for sample_id in ids]


def test_progress_says_why_labels_do_not_count_as_random_and_what_to_do(work: Path, wtl_here: Wtl) -> None:
    ids = exported(wtl_here, work, "--new", "6", "--control", "6")
    ledger.append(Store(str(work)), "labelled", [*ids[:2], *ids[3:]], classes=[["a"]] * 5)
    shown = wtl_here("progress", "-w", work).stdout
    assert shown.startswith(
        "5 images are labelled: the classes of 5 are known, and 2 of these are drawn at random.\n"
        "3 more will count as drawn at random when another one is labelled: 1 that is handed out already.\n"
        "Accuracy is not known yet: it takes 40 labelled images that were drawn at random, and as many others, of "
        "known classes; found 2 and 3. `wtl export --control 10%` draws some at random.\n"
    )
    ledger.append(Store(str(work)), "labelled", ids[2:3])
    assert wtl_here("progress", "-w", work).stdout.startswith(
        "6 images are labelled: the classes of 5 are known, and 5 of these are drawn at random.\n"
        "1 image is drawn at random too, and left out, since no class is known.\n"
    )


def test_progress_tells_accuracy_choosing_the_forecast_and_classes(work: Path, wtl_here: Wtl) -> None:
    store = Store(str(work))
    random = exported(wtl_here, work, "--new", "45", "--control", "45")
    others = [sample_id for sample_id in ranking(work)["sample_id"] if sample_id not in random][:41]
    ledger.append(store, "labelled", random + others, classes=classes_of(random + others))
    shown = wtl_here("progress", "-w", work).stdout
    assert "Whether choosing helped is not known yet: it takes 36 labelled picks of batches, found 0. " in shown
    picks = exported(wtl_here, work, "--new", "60")
    ledger.append(store, "labelled", picks, classes=[["rare"], *classes_of(picks[1:])])
    shown = wtl_here("progress", "--more", "1000", "-w", work).stdout
    told = result_of(wtl_here("progress", "--more", "1000", "-w", work, "--json"))
    assert (told["known"], told["controls"] + told["taught"]) == (146, 146)
    assert told["forecast"]["more"] == 150 - 146  # all that are left, of the 1,000
    percent, points = r"\d+\.\d %", r"[+-]\d+\.\d points \([+-]\d+\.\d to [+-]\d+\.\d\)"
    for line in (
        rf"Accuracy: {percent} \([\d.]+ to [\d.]+\), the 95 % interval in brackets\. A linear probe, a simple "
        rf"classifier, learned from {told['taught']} labels and was tested on the {told['controls']} images that "
        r"were drawn at random\.",
        r"(Choosing helped|Choosing did not help|Whether choosing helped cannot be told from so few labels): the first "
        rf"(\d+) picks teach an accuracy of {percent}, \2 random images {percent}; {points}\.",
        rf"{told['forecast']['more']} more labels will bring about {points}, judging by other data\.",
        r"class +labels +of labels +of the pool +next picks",
        r"rare +1 +0\.7% +\d+\.\d% to \d+\.\d% *",
        r"Classes with fewer than 20 labels: rare\.",
    ):
        assert re.search(f"^{line}$", shown, re.MULTILINE), line
    for goal in ("99%", "0.99"):
        told = result_of(wtl_here("progress", "--goal", goal, "-w", work, "--json"))["goal"]
        assert (told["goal"], told["left"], told["now"]["taught"]) == (0.99, 4, told["now"]["taught"])
    shown = wtl_here("progress", "--goal", "99%", "-w", work).stdout
    assert "The accuracy goal of 99 % is not within reach, judging by other data: accuracy is " in shown
    assert "labels of all 4 images that are left would bring it to about " in shown
    for wrong in ("90", "0", "101%", "x", "-5%", "nan", "inf%"):
        refused = wtl_here("progress", "--goal", wrong, "-w", work)
        assert (refused.returncode, "expected a share such as 90% or 0.9, found" in refused.stderr) == (2, True)


def test_runs_and_status_say_why_an_accuracy_goal_ends_no_picks(tmp_path: Path, wtl: Wtl, wtl_here: Wtl) -> None:
    (tmp_path / "r.toml").write_text('[encoder]\nname = "pixels"\n[selection]\naccuracy_goal = 0.9\nbudget = "10%"\n')
    source, work = write_pictures(tmp_path / "photos", count=20), tmp_path / "w"
    done = wtl("run", source, "-w", work, "--recipe", tmp_path / "r.toml")
    assert done.returncode == 0, done.stderr
    for shown in (done.stdout, wtl_here("status", "-w", work).stdout):
        assert "20 ranked, 2 picked (budget 10%)" in shown
        assert "The accuracy goal of 90 % ends no picks yet, since accuracy is not known: it takes 40 labelled" in shown


def test_where_a_stop_condition_ends_the_picks_the_next_step_is_to_cut_these(tmp_path: Path, wtl: Wtl) -> None:
    (tmp_path / "r.toml").write_text('[encoder]\nname = "pixels"\n[selection]\ncoverage_goal = 0.5\n')
    source = write_pictures(tmp_path / "photos", count=40)
    shown = wtl("run", source, "-w", tmp_path / "w", "--recipe", tmp_path / "r.toml").stdout
    found = re.search(r"40 ranked, (\d+) picked", shown)
    assert found is not None
    assert 0 < int(found[1]) < 40
    assert f"wtl cut --at {found[1]} -w " in shown
