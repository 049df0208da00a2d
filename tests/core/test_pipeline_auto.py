"""The default encoder end to end: chosen, fitted, kept, used again, and honest where its features are weak."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import make_jpeg, write_pictures
from tests.plain_refresh import refresh
from wtl_core.embedding import chunks
from wtl_core.encoders import cards, packages, whitening
from wtl_core.machine import Machine
from wtl_core.pipeline import train_successor
from wtl_core.recipe.recipe import Recipe
from wtl_core.training import choosing, fitting, succession
from wtl_core.workspace import commits
from wtl_core.workspace.encoder_check import EncoderCheck
from wtl_core.workspace.storage import Store

pytestmark = pytest.mark.skipif(not packages.installed(), reason="no package with a network is installed")


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """As many images as say how strong features are, and so small that the smallest side is chosen."""
    return write_pictures(tmp_path / "source", count=110, side=20)


@pytest.fixture
def enough(tmp_path: Path) -> Path:
    """As few images as a network is fitted to."""
    return write_pictures(tmp_path / "source", count=whitening.LEAST_IMAGES, side=20)


def test_the_default_encoder_is_chosen_once_kept_and_followed_by_a_successor(many: Path, tmp_path: Path) -> None:
    root, store = tmp_path / "w", Store(str(tmp_path / "w"))
    first = refresh(root, many, recipe=Recipe())
    assert first.encoder_name == "auto"
    card = cards.load_card(store, first.encoder)
    assert card is not None
    assert card["chosen"]["name"] == card["network"] == "package:efficientnet-lite0+efficientnet-lite2"
    assert card["chosen"]["side_px"] == card["preprocessing"]["side_px"] == 96
    assert first.encoder_check is not None
    assert 0 <= first.encoder_check.by_pixels <= 1

    (many / "more.jpg").write_bytes(make_jpeg(500))
    second = refresh(root, recipe=None)
    assert (second.number, second.encoder) == (2, first.encoder)
    assert second.encoder_age is not None
    assert second.encoder_age.images_then == first.encoder_age.images_now if first.encoder_age else True
    assert refresh(root, recipe=None) == second  # nothing to do

    successor = train_successor(store, None, Machine())
    assert successor != first.encoder  # one image more
    third = refresh(root, recipe=None)
    assert (third.number, third.encoder) == (3, successor)
    assert refresh(root, recipe=None) == third


def test_a_pool_that_is_too_small_to_fit_a_network_grows(tmp_path: Path) -> None:
    root, store, source = tmp_path / "w", Store(str(tmp_path / "w")), tmp_path / "source"
    first = refresh(root, write_pictures(source, count=30, side=20), recipe=Recipe())
    card = cards.load_card(store, first.encoder)
    assert card is not None
    assert card["chosen"]["side_px"] == card["preprocessing"]["side_px"] == 96  # where it runs is what was told
    (source / "more.jpg").write_bytes(make_jpeg(500))
    assert refresh(root, recipe=None).encoder == first.encoder
    for number in range(80):
        (source / f"later-{number}.jpg").write_bytes(make_jpeg(600 + number))
    grown = refresh(root, recipe=None)
    assert grown.encoder != first.encoder
    fitted = cards.load_card(store, grown.encoder)
    assert fitted is not None
    assert fitted[fitting.FITTED_ON] >= whitening.LEAST_IMAGES
    assert fitted["near_copy_distance"] is not None


def test_a_workspace_of_few_images_whose_choice_was_not_kept_goes_on(tmp_path: Path) -> None:
    """Version 0.x kept no network that was not fitted; the next refresh then ended with a message that led nowhere."""
    root, source = tmp_path / "w", tmp_path / "source"
    first = refresh(root, write_pictures(source, count=20, side=20), recipe=Recipe())
    shutil.rmtree(root / "encoders")
    (source / "more.jpg").write_bytes(make_jpeg(500))
    assert refresh(root, recipe=None).encoder == first.encoder


def test_a_named_network_is_fitted_once_there_are_images(tmp_path: Path) -> None:
    root, store, source = tmp_path / "w", Store(str(tmp_path / "w")), tmp_path / "source"
    recipe = Recipe.model_validate({"encoder": {"name": "package:efficientnet-lite0", "side_px": 96}})
    first = refresh(root, write_pictures(source, count=20, side=20), recipe=recipe)
    for number in range(90):
        (source / f"later-{number}.jpg").write_bytes(make_jpeg(600 + number))
    grown = refresh(root, recipe=None)
    assert cards.load_whitening(store, grown.encoder).dimensions < cards.load_card(store, first.encoder)["dimensions"]  # type: ignore[index]


def test_a_run_after_a_kill_does_not_choose_again(
    enough: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The choice depends on a timed pass: chosen again on a busier machine, the side could be another one."""
    root = tmp_path / "w"
    monkeypatch.setattr(choosing, "side_for", lambda *_, **__: (96, 1.0))
    with monkeypatch.context() as killed:
        killed.setattr(chunks, "plan", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):  # right after the encoder was made
            refresh(root, enough, recipe=Recipe())
    made = [path.parent.name for path in root.glob("encoders/*/card.json")]
    monkeypatch.setattr(choosing, "side_for", lambda *_, **__: (128, 1.0))
    assert [refresh(root, enough, recipe=Recipe()).encoder] == made


def test_a_network_that_is_installed_later_is_chosen_by_the_successor(
    enough: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "w"
    monkeypatch.setattr(choosing, "side_for", lambda *_, **__: (96, 1.0))
    installed = packages.installed()
    with monkeypatch.context() as patch:
        patch.setattr(packages, "installed", lambda: installed[1:])
        first = refresh(root, enough, recipe=Recipe())
    store = Store(str(root))
    assert cards.load_card(store, first.encoder)["chosen"]["name"] == f"package:{installed[1]}"  # type: ignore[index]
    made = train_successor(store, None, Machine())
    assert cards.load_card(store, made)["chosen"]["name"] == f"package:{installed[0]}+{installed[2]}"  # type: ignore[index]


def test_a_successor_is_for_the_name_that_it_was_made_for(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    succession.name_successor(store, "a" * 64, "auto")
    assert succession.successor(store, "auto") == succession.successor(store) == "a" * 64
    assert succession.successor(store, "ssl") is None


def test_another_side_of_a_named_network_is_another_encoder(enough: Path, tmp_path: Path) -> None:
    root = tmp_path / "w"

    def of(side_px: int) -> str:
        values = {"encoder": {"name": "package:efficientnet-lite0", "side_px": side_px}}
        return refresh(root, enough, recipe=Recipe.model_validate(values)).encoder

    assert of(96) != of(128)
    assert of(96) == of(96)


def test_weak_features_are_named_with_a_remedy(many: Path, tmp_path: Path) -> None:
    commit = refresh(tmp_path / "w", many)
    assert succession.advice(commit) is None
    weak = commit.model_copy(update={"encoder_check": EncoderCheck(shared_neighbours=0.11, by_pixels=0.15)})
    told = succession.advice(weak)
    assert told is not None
    assert told.startswith("the features say little about these images")
    assert "share 11% of their nearest neighbours, 15% without any learning" in told
    assert "--encoder ssl" in told
    strong = commit.model_copy(update={"encoder_check": EncoderCheck(shared_neighbours=0.36, by_pixels=0.23)})
    assert succession.advice(strong) is None


def test_a_workspace_that_used_a_network_as_it_was_goes_on_so(enough: Path, tmp_path: Path) -> None:
    """Before networks were fitted to pools, a commit named the network's own fingerprint, and nothing was kept."""
    root, store = tmp_path / "w", Store(str(tmp_path / "w"))
    values = {"encoder": {"name": "package:efficientnet-lite0", "side_px": 96}}
    first = refresh(root, enough, recipe=Recipe.model_validate(values))
    store.delete(f"encoders/{first.encoder}/card.json")  # as if it had not been kept
    (enough / "more.jpg").write_bytes(make_jpeg(500))
    second = refresh(root, recipe=None)
    assert second.encoder != first.encoder
    assert cards.load_card(store, second.encoder) is None
    assert commits.latest(store) == second
