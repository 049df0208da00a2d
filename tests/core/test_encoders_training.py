"""A training from outside: what it gives, what it depends on, and what it can start from."""

from pathlib import Path

import pytest
import torch

from tests.small_training import TINY, make_pool
from wtl_core.encoders.cards import load_card, load_encoder
from wtl_core.encoders.resolve import resolve
from wtl_core.errors import ConfigError
from wtl_core.recipe.encoder import EncoderParams
from wtl_core.training import training
from wtl_core.training.image_cache import decode_pool
from wtl_core.training.training import train
from wtl_core.workspace.storage import Store, open_store


def test_a_trained_encoder_resolves_and_says_how_it_was_made(store: Store) -> None:
    seen: list[tuple[int, int]] = []
    fingerprint = train(make_pool(40), store, TINY, device="cpu", on_progress=lambda *done: seen.append(done))
    encoder = resolve(fingerprint, store, device="cpu")
    assert (encoder.fingerprint, encoder.dimensions, encoder.side_px) == (fingerprint, 64 + 177, 16)
    assert seen == [(done, 5) for done in range(1, 6)]  # 2 epochs of 40 images in steps of 16
    card = load_card(store, fingerprint)
    assert card is not None
    assert card["plan"]["steps"] == 5
    assert 0.0 < card["near_copy_distance"] < 2.0
    assert {"step", "loss", "effective_rank", "alignment", "uniformity", "agreement"} == set(card["watch"][-1])


def test_the_same_call_again_trains_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fingerprint = train(make_pool(40), store, TINY, device="cpu")
    monkeypatch.setattr(training, "decode_pool", None)
    assert train(make_pool(40), store, TINY, device="cpu") == fingerprint


def test_seed_and_images_change_the_weights_and_nothing_else_does(store: Store, tmp_path: Path) -> None:
    first = train(make_pool(40), store, TINY, device="cpu")
    other_place = open_store(str(tmp_path / "other"))
    assert train(make_pool(40), other_place, TINY, device="cpu", workers=1) == first
    assert train(make_pool(40), store, TINY.model_copy(update={"seed": 1}), device="cpu") != first
    assert train(make_pool(41), store, TINY, device="cpu") != first


def test_the_global_generator_is_left_alone(store: Store) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(make_pool(20), store, TINY, device="cpu")
    assert torch.equal(torch.rand(3), expected)


def test_training_goes_on_from_an_earlier_encoder(store: Store) -> None:
    first = train(make_pool(40), store, TINY, device="cpu")
    further = train(make_pool(48), store, TINY.model_copy(update={"start": first}), device="cpu")
    assert further != first
    card = load_card(store, further)
    assert card is not None
    assert card["plan"]["start"] is not None
    assert (card["plan"]["shape"]["kind"], card["network"]["kind"]) == ("resnet9", "resnet9+pixels")
    assert resolve(further, store, device="cpu").dimensions == 64 + 177


def test_a_start_without_weights_is_refused(store: Store) -> None:
    with pytest.raises(ConfigError, match="expected weights to go on from"):
        train(make_pool(40), store, TINY.model_copy(update={"start": "pixels"}), device="cpu")


@pytest.mark.parametrize("name", ["torchvision:googlenet", "torchvision:inception_v3@w.pth"])
def test_a_start_with_several_outputs_in_training_is_refused(name: str, store: Store) -> None:
    with pytest.raises(ConfigError, match=r"encoder.start .*expected a network with one output in training"):
        train(make_pool(20), store, EncoderParams(epochs=1, start=name), device="cpu")


def test_an_encoder_pretrained_elsewhere_is_trained_further(store: Store, tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    save_file(timm.create_model("test_resnet", pretrained=False).state_dict(), tmp_path / "w.safetensors")
    params = EncoderParams(epochs=1, batch_images=16, side_px=32, start=f"timm:test_resnet@{tmp_path}/w.safetensors")
    encoder = resolve(train(make_pool(32), store, params, device="cpu"), store, device="cpu")
    assert encoder.card["plan"]["shape"]["kind"] == "timm:test_resnet"
    assert encoder.side_px == 32


def test_a_start_that_drops_layers_by_chance_gives_the_same_bits(tmp_path: Path) -> None:
    from torchvision import models

    torch.manual_seed(0)
    torch.save(models.efficientnet_b0(weights=None).state_dict(), tmp_path / "w.pth")
    start = f"torchvision:efficientnet_b0@{tmp_path / 'w.pth'}"
    params = EncoderParams(start=start, epochs=1, side_px=32, batch_images=8)
    trained = set()
    for seed in range(2):
        torch.manual_seed(seed)  # the caller's generator has no say, and is left alone
        before = torch.random.get_rng_state()
        trained.add(train(make_pool(16, side=32), open_store(str(tmp_path / str(seed))), params, device="cpu"))
        assert torch.equal(torch.random.get_rng_state(), before)
    assert len(trained) == 1


def test_a_start_that_cannot_take_the_side_is_refused(store: Store, tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    network = timm.create_model("vit_tiny_patch16_224", pretrained=False)
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    params = EncoderParams(start=f"timm:vit_tiny_patch16_224@{tmp_path}/w.safetensors", epochs=1, side_px=32)
    with pytest.raises(ConfigError, match=r"encoder.side_px: .* found 32"):
        train(make_pool(16), store, params, device="cpu")


def test_a_trained_encoder_is_whitened_by_the_pool_and_may_be_trained_on(store: Store) -> None:
    first = train(make_pool(64), store, TINY, device="cpu")
    encoder = load_encoder(store, first, device=torch.device("cpu"))
    assert encoder.whitening is not None
    vectors = encoder.encode(torch.from_numpy(decode_pool(make_pool(64), 64, encoder.preprocessing)))
    assert vectors.mean(0).norm() < 0.3  # without it a ReLU's features have nearly all of their length in common
    assert train(make_pool(64), store, TINY.model_copy(update={"start": first}), device="cpu") != first
