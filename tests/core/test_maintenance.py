from pathlib import Path

from tests.core.test_pipeline import ranking, refresh
from wtl_core import commits, labels, maintenance, vectors
from wtl_core.storage import Store


def test_house_keeping_keeps_what_labelled_samples_that_left_still_say(source: Path, tmp_path: Path) -> None:
    root = tmp_path / "w"
    refresh(root, source)
    store = Store(str(root))
    loose = ranking(root).filter(ranking(root)["uri"].str.contains("/loose/[0-9]"))
    labelled, other = loose["sample_id"][0], loose["sample_id"][1]
    (tmp_path / "done.txt").write_text(labelled)
    labels.add(store, tmp_path / "done.txt")
    for uri in loose["uri"].head(2):
        Path(uri).unlink()
    refresh(root, source)
    before = ranking(root)
    assert maintenance.run(store, keep=1).vectors_dropped == 1
    last = commits.latest(store)
    assert last is not None
    kept = vectors.existing_ids(store, last.encoder)
    assert labelled in kept
    assert other not in kept
    Path(loose["uri"][2]).unlink()
    refresh(root, source)
    assert set(ranking(root)["sample_id"]) < set(before["sample_id"])
    (tmp_path / "left.txt").write_text(labelled)
    assert labels.add(store, tmp_path / "left.txt") == {"named": 1, "found": 1, "added": 0}
