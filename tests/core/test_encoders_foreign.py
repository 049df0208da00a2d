"""Encoders of timm and torchvision, and weights files that others wrote."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.small_encoders import images, timm_weights
from wtl_core.encoders.resolve import resolve, start_from
from wtl_core.errors import ConfigError
from wtl_core.workspace.storage import Store


def test_torchvision_weights_come_from_a_file_without_running_it(tmp_path: Path, store: Store) -> None:
    from torchvision import models

    torch.manual_seed(0)
    torch.save(models.resnet18(weights=None).state_dict(), tmp_path / "w.pth")
    encoder = resolve(f"torchvision:resnet18@{tmp_path / 'w.pth'}", store, device="cpu")
    assert (encoder.dimensions, encoder.side_px) == (512, 224)
    assert encoder.preprocessing.fit == "crop"


def test_a_pickle_is_not_run(tmp_path: Path, store: Store) -> None:
    torch.save({"fc.weight": Path("a")}, tmp_path / "w.pth")
    with pytest.raises(ConfigError, match=r"expected weights of torchvision:resnet18"):
        resolve(f"torchvision:resnet18@{tmp_path / 'w.pth'}", store, device="cpu")


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("is_zip", [True, False])
def test_code_in_the_cache_of_published_weights_is_not_run(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, is_zip: bool
) -> None:
    from torchvision import models

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    planted = tmp_path / "hub" / "checkpoints" / models.ResNet18_Weights.DEFAULT.url.rpartition("/")[2]
    planted.parent.mkdir(parents=True)
    torch.save({"fc.weight": Bomb(tmp_path / "ran")}, planted, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(ConfigError, match=rf"^{planted}: expected plain weights .* delete it"):
        resolve("torchvision:resnet18", store, device="cpu")
    assert not (tmp_path / "ran").exists()


def test_published_weights_come_from_the_cache_and_equal_a_file_that_is_named(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision import models

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub" / "checkpoints" / models.GoogLeNet_Weights.DEFAULT.url.rpartition("/")[2]
    cached.parent.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(models.googlenet(weights=None, init_weights=False).state_dict(), cached)
    published = resolve("torchvision:googlenet", store, device="cpu")
    named = resolve(f"torchvision:googlenet@{cached}", store, device="cpu")
    batch = images(2, published.side_px)
    assert torch.equal(published.encode(batch), named.encode(batch))


def test_features_that_are_not_pooled_are_refused(tmp_path: Path, store: Store) -> None:
    from torchvision import models

    torch.save(models.squeezenet1_0(weights=None).state_dict(), tmp_path / "w.pth")
    for call in (lambda name: resolve(name, store, device="cpu"), lambda name: start_from(name, store)):
        with pytest.raises(ConfigError, match=r"expected at most 8,192 dimensions, found 86,528.* namesake of timm"):
            call(f"torchvision:squeezenet1_0@{tmp_path / 'w.pth'}")


def test_weights_of_another_network_are_refused(tmp_path: Path, store: Store) -> None:
    save_file({"layer.weight": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(ConfigError, match="do not fit"):
        resolve(f"torchvision:resnet18@{tmp_path / 'w.safetensors'}", store, device="cpu")


def test_timm_weights_come_from_a_file(tmp_path: Path, store: Store) -> None:
    import timm

    network = timm.create_model("test_resnet", pretrained=False)
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    encoder = resolve(f"timm:test_resnet@{tmp_path / 'w.safetensors'}", store, device="cpu")
    assert encoder.encode(images(2, encoder.side_px)).shape == (2, encoder.dimensions)
    start = start_from(f"timm:test_resnet@{tmp_path / 'w.safetensors'}", store)
    assert start.shape.dimensions == encoder.dimensions


@pytest.mark.parametrize("network", ["test_resnet", "test_vit"])  # of any size, and with position embeddings
def test_a_network_of_others_takes_another_side(network: str, tmp_path: Path, store: Store) -> None:
    name = timm_weights(network, tmp_path)
    plain, small = (resolve(name, store, device="cpu", side_px=side) for side in (None, 64))
    assert (plain.side_px, plain.preprocessing.resize_px) == (160, 168)
    assert (small.side_px, small.preprocessing.resize_px) == (64, 67)
    assert small.encode(images(2, 64)).shape == (2, plain.dimensions)
    assert small.fingerprint != plain.fingerprint
    assert small.fingerprint == resolve(name, store, device="cpu", side_px=64).fingerprint


def test_torchvisions_networks_take_another_side_too(tmp_path: Path, store: Store) -> None:
    from torchvision import models

    torch.save(models.resnet18(weights=None).state_dict(), tmp_path / "w.pth")
    encoder = resolve(f"torchvision:resnet18@{tmp_path / 'w.pth'}", store, device="cpu", side_px=112)
    assert (encoder.side_px, encoder.preprocessing.resize_px) == (112, 128)


def test_a_side_that_a_network_cannot_take_is_refused(tmp_path: Path, store: Store) -> None:
    with pytest.raises(ConfigError, match=r"encoder.side_px: .* found 50 \(.*patch size.* leave it out$"):
        resolve(timm_weights("test_vit", tmp_path), store, device="cpu", side_px=50)


def test_without_a_network_the_message_says_which_file_to_put_where(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    with pytest.raises(ConfigError, match=r"download https://.*resnet18.*pth.*torchvision:resnet18@"):
        resolve("torchvision:resnet18", store, device="cpu")
    monkeypatch.setattr("timm.create_model", refuse)
    with pytest.raises(ConfigError, match=r"download https://.*safetensors.*timm:resnet18.a1_in1k@"):
        resolve("timm:resnet18.a1_in1k", store, device="cpu")


@pytest.mark.parametrize(
    ("name", "tagged"),
    [("resnet50", "resnet50.a1_in1k"), ("vit_small_patch14_dinov2", "vit_small_patch14_dinov2.lvd142m")],
)
def test_a_plain_timm_name_takes_the_default_weights(
    name: str, tagged: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, bool]] = []

    def refuse(name: str, *, pretrained: bool, **_: object) -> None:
        asked.append((name, pretrained))
        raise OSError("no route to host")

    monkeypatch.setattr("timm.create_model", refuse)
    with pytest.raises(ConfigError, match=f"download https://huggingface.co/timm/{tagged}/.*timm:{name}@"):
        resolve(f"timm:{name}", store, device="cpu")
    assert asked == [(name, True)]


@pytest.mark.parametrize("name", ["torchvision:resnet19", "timm:resnet18x", "timm:resnet18.nobody_in1k"])
def test_an_unknown_network_is_refused_with_some_that_are_known(name: str, store: Store) -> None:
    with pytest.raises(ConfigError, match=r"no such network; near it: .*resnet18"):
        resolve(name, store, device="cpu")


def test_a_missing_file_is_named(store: Store, tmp_path: Path) -> None:
    for name in (f"file:{tmp_path}/no.safetensors", f"torchvision:resnet18@{tmp_path}/no.pth"):
        with pytest.raises(ConfigError, match=f"{tmp_path}/no"):
            resolve(name, store, device="cpu")


def test_foreign_weights_need_their_networks_name(store: Store, tmp_path: Path) -> None:
    save_file({"layer.weight": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(ConfigError, match="name the network too"):
        resolve(f"file:{tmp_path}/w.safetensors", store, device="cpu")


def test_weights_are_found_in_what_training_scripts_save(tmp_path: Path, store: Store) -> None:
    import timm

    torch.manual_seed(0)
    weights = timm.create_model("test_resnet", pretrained=False).state_dict()
    fingerprints = set()
    for name, saved in (
        ("plain", weights),
        ("wrapped", {"epoch": 3, "state_dict": weights}),
        ("parallel", {"model": {f"module.{key}": value for key, value in weights.items()}}),
    ):
        torch.save(saved, tmp_path / f"{name}.pth")
        fingerprints.add(resolve(f"timm:test_resnet@{tmp_path / name}.pth", store, device="cpu").fingerprint)
    assert len(fingerprints) == 1


def test_a_home_folder_is_written_short(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import models

    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save(models.resnet18(weights=None).state_dict(), tmp_path / "w.pth")
    assert resolve("torchvision:resnet18@~/w.pth", store, device="cpu").dimensions == 512


def test_a_classifier_may_be_left_over_and_features_may_not_be_missing(tmp_path: Path, store: Store) -> None:
    import timm

    torch.manual_seed(0)
    network = timm.create_model("inception_v4", pretrained=False)
    torch.save(network.state_dict(), tmp_path / "i.pth")  # its classifier is called last_linear
    assert resolve(f"timm:inception_v4@{tmp_path / 'i.pth'}", store, device="cpu").dimensions == 1536
    weights = timm.create_model("efficientvit_b0", pretrained=False).state_dict()
    torch.save({key: value for key, value in weights.items() if not key.startswith("head.")}, tmp_path / "e.pth")
    with pytest.raises(ConfigError, match=r"entries do not fit \(first: head\."):  # part of the features there
        resolve(f"timm:efficientvit_b0@{tmp_path / 'e.pth'}", store, device="cpu")


def test_timm_networks_that_squash_see_the_whole_image(tmp_path: Path, store: Store) -> None:
    import timm

    kept = timm.get_pretrained_cfg("test_vit").to_dict()
    name = timm_weights("test_vit", tmp_path)
    assert resolve(name, store, device="cpu").preprocessing.fit == "crop"
    for mode, expected in (("squash", ("squash", 160)), ("border", None)):
        config = {**kept, "crop_mode": mode}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("timm.data.config.resolve_model_data_config", lambda _, c=config: {**c, "crop_pct": 0.9})
            if expected is None:
                with pytest.raises(ConfigError, match="expected a network of squares"):
                    resolve(name, store, device="cpu")
                continue
            found = resolve(name, store, device="cpu").preprocessing
            assert (found.fit, found.side_px) == expected


def test_a_tag_that_timm_does_not_know_is_refused(tmp_path: Path, store: Store) -> None:
    name = timm_weights("test_vit", tmp_path)
    with pytest.raises(ConfigError, match=r"timm has no such weights of resnet18, but resnet18\.a1_in1k"):
        resolve(f"timm:resnet18.bogus@{name.partition('@')[2]}", store, device="cpu")
