"""Networks whose weights travel inside packages: how they are found, checked, fitted to a pool and kept."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_encoders import images, timm_weights

from wtl_core.encoders import encoder as encoder_module
from wtl_core.encoders import openvino_network, packages, resolve
from wtl_core.encoders.cards import load_card, load_encoder
from wtl_core.encoders.packages import PACKAGED, PackagedWeights, load_packaged
from wtl_core.errors import ConfigError
from wtl_core.recipe.encoder import PACKAGE_SIDE_PX, EncoderParams
from wtl_core.training import choosing, fitting, near_copies, training
from wtl_core.training.image_cache import PoolImages
from wtl_core.workspace.storage import Store

pytestmark = pytest.mark.skipif(not packages.installed(), reason="no package with a network is installed")
LITE = "package:efficientnet-lite0"


def test_the_package_s_tensors_are_timm_s_in_their_order() -> None:
    import timm

    network, _ = load_packaged("efficientnet-lite0")
    path = packages.weights_path("efficientnet-lite0")
    assert path is not None
    published = torch.load(path, map_location="cpu", weights_only=True)
    full = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    assert [tuple(values.shape) for values in full.values()] == [tuple(values.shape) for values in published.values()]
    assert torch.equal(network.state_dict()["stem.0.weight"], next(iter(published.values())))


PAIR = "efficientnet-lite0+efficientnet-lite2"


@pytest.mark.parametrize("name", [*PACKAGED, PAIR])
def test_every_packaged_network_gives_its_last_stages_beside_training_free_features(name: str) -> None:
    network, preprocessing = load_packaged(name)
    with torch.inference_mode():
        features = network.eval()(torch.rand(2, 3, 96, 96))
    assert features.shape == (2, network.dimensions)
    assert features.square().sum(dim=1).numpy() == pytest.approx(1.25, abs=1e-4)  # all stages 1, 1/4 without training
    assert preprocessing.side_px == PACKAGE_SIDE_PX


def test_networks_side_by_side_give_what_each_gives_alone_and_are_kept_whole(tmp_path: Path) -> None:
    first, second, both = (load_packaged(name)[0].eval() for name in (*PAIR.split("+"), PAIR))
    with torch.inference_mode():
        x = torch.rand(2, 3, 96, 96)
        alone, other, together = first(x), second(x), both(x)
    pixels = together.shape[1] - first.channels - second.channels
    torch.testing.assert_close(together[:, :pixels], alone[:, :pixels])
    beside = torch.cat([alone[:, pixels:], other[:, pixels:]], dim=1) * 2**-0.5
    torch.testing.assert_close(together[:, pixels:], beside)

    store = Store(str(tmp_path))
    made = fitting.fit(pool_of(images(120)), store, f"package:{PAIR}", side_px=96, device="cpu")
    kept = resolve.resolve(made, store, device="cpu")
    assert (kept.dimensions, kept.side_px, kept.fingerprint) == (119, 96, made)
    assert kept.card["network"] == f"package:{PAIR}"
    assert kept.card["origin"] == packages.PACKAGED["efficientnet-lite0"].origin  # said once


def test_a_name_that_no_package_has_and_a_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="expected one of efficientnet-lite0, efficientnet-lite1"):
        load_packaged("resnet50")
    for name in ("efficientnet-lite0+resnet50", "efficientnet-lite0+efficientnet-lite0"):
        with pytest.raises(ConfigError, match=r"or several, each once, joined by \+"):
            load_packaged(name)
    gone = PackagedWeights("no-such-package", "a.pth", "0" * 64, "tf_efficientnet_lite0", "", "")
    monkeypatch.setattr(packages, "PACKAGED", {"gone": gone})
    with pytest.raises(ConfigError, match="expected the package no-such-package, found it not installed; run: pip"):
        load_packaged("gone")
    assert packages.installed() == []


def test_weights_other_than_the_pinned_ones_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    known = PACKAGED["efficientnet-lite0"]
    other = PackagedWeights(known.distribution, known.file, "0" * 64, known.network, "", "")
    monkeypatch.setattr(packages, "PACKAGED", {"other": other})
    with pytest.raises(ConfigError, match="expected the weights that wtl knows"):
        load_packaged("other")


@pytest.mark.skipif(not openvino_network.is_installed(), reason="OpenVINO is not installed")
def test_openvino_agrees_with_torch_and_a_vector_depends_on_its_image_alone(tmp_path: Path) -> None:
    encoder = resolve.resolve(LITE, Store(str(tmp_path)), device="cpu", side_px=96)
    squares = images(40, 96)
    vectors = encoder.encode(squares)
    assert torch.equal(encoder.encode(squares.flip(0)), vectors.flip(0))
    assert torch.equal(encoder.encode(squares[7:9]), vectors[7:9])
    network, _ = load_packaged("efficientnet-lite0")
    mean, std = encoder.preprocessing.mean[0] * 255, encoder.preprocessing.std[0] * 255
    with torch.inference_mode():
        plain = torch.nn.functional.normalize(network.eval()((squares.float() - mean) / std), dim=1)
    assert float((vectors * plain).sum(dim=1).min()) > 0.99


@pytest.mark.skipif(not openvino_network.is_installed(), reason="OpenVINO is not installed")
def test_openvino_reports_nothing_to_its_makers(tmp_path: Path) -> None:
    code = (
        "import sys, torch\n"
        "from wtl_core.encoders.openvino_network import OpenvinoNetwork\n"
        "network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten())\n"
        "OpenvinoNetwork(network, digest='', rows=2, side_px=8, is_bfloat16=False)(torch.zeros(2, 3, 8, 8))\n"
        "print(sorted(name for name in sys.modules if name.startswith('openvino_telemetry')))\n"
    )
    environment = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
    assert not (tmp_path / "intel").exists()  # where it would keep whom it reports as


def pool_of(squares: torch.Tensor) -> PoolImages:
    from torchvision.io import encode_png

    files = [bytes(encode_png(square).numpy()) for square in squares]
    ids = [f"{row:064x}" for row in range(len(files))]
    return PoolImages(ids, np.full(len(files), squares.shape[-1]), lambda rows: ((row, files[row]) for row in rows))


def test_a_fitted_network_is_whitened_kept_whole_and_the_same_again(tmp_path: Path) -> None:
    store, pool = Store(str(tmp_path)), pool_of(images(120))
    made = fitting.fit(pool, store, LITE, side_px=96, device="cpu")
    assert made == fitting.fit(pool, store, LITE, side_px=96, device="cpu")
    encoder = resolve.resolve(made, store, device="cpu")
    assert encoder.dimensions == 119  # what 120 images tell apart, centred
    assert load_encoder(store, made, device=torch.device("cpu")).fingerprint == made
    card = load_card(store, made)
    assert card is not None
    assert card["licence"].startswith("Apache-2.0")
    assert "ImageNet" in card["origin"]
    assert (card["fitted_on"], card["images"], card["method"]) == (120, 120, "pretrained")  # what a run is named after
    assert card["seconds_since_last_start"] >= 0
    assert encoder.near_copy_distance == card["near_copy_distance"] > 0
    squares = torch.stack([encoder.fit(image) for image in images(120)])
    assert float(encoder.features(squares[:32]).mean(dim=0).norm()) < float(
        encoder.features(squares[:32]).norm(dim=1).mean()
    )
    assert near_copies.distance(encoder, squares) == pytest.approx(encoder.near_copy_distance, abs=1e-3)


def test_near_duplicates_are_closer_than_any_two_images_however_far_near_copies_are(tmp_path: Path) -> None:
    noise = images(70, 32)  # each pixel for itself: a shifted copy has nothing in common with its origin
    encoder, squares = fitting.fitted_to(
        resolve.resolve("pixels", Store(str(tmp_path)), device="cpu"), pool_of(noise), workers=1
    )
    vectors = encoder.encode(squares)
    apart = float((vectors - vectors.roll(1, dims=0)).norm(dim=1).median())
    moved = (vectors - encoder.encode(near_copies.copies(squares))).norm(dim=1)
    assert float(moved.quantile(0.9)) > 0.7 * apart
    assert near_copies.distance(encoder, squares) == pytest.approx(0.6 * apart, abs=1e-3)


def test_few_images_leave_a_network_as_it_is(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    made = fitting.fit(pool_of(images(10)), store, LITE, side_px=96, device="cpu")
    encoder, raw = (resolve.resolve(name, store, device="cpu", side_px=96) for name in (made, LITE))
    assert (encoder.fingerprint, encoder.whitening, encoder.side_px) == (raw.fingerprint, None, 96)
    assert encoder.card[fitting.FITTED_ON] == 0
    name = timm_weights("resnet10t", tmp_path)
    assert fitting.fit(pool_of(images(10)), store, name, side_px=32, device="cpu") == name


def test_a_fitted_network_keeps_its_number_format_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A workspace that was made on a GPU goes on on a processor."""
    name, store = timm_weights("resnet10t", tmp_path), Store(str(tmp_path / "w"))
    monkeypatch.setattr(encoder_module, "default_format", lambda _: "bfloat16")
    made = fitting.fit(pool_of(images(120)), store, name, side_px=32, device="cpu")
    monkeypatch.setattr(encoder_module, "default_format", lambda _: "float32")
    assert resolve.resolve(made, store, device="cpu").fingerprint == made


def test_networks_of_others_keep_their_fit_alone(tmp_path: Path) -> None:
    name, store = timm_weights("resnet10t", tmp_path), Store(str(tmp_path / "w"))
    made = fitting.fit(pool_of(images(120)), store, name, side_px=32, device="cpu")
    encoder = resolve.resolve(made, store, device="cpu")
    assert (encoder.dimensions, encoder.side_px, encoder.fingerprint) == (119, 32, made)
    assert Path(store.path(f"encoders/{made}/weights.safetensors")).stat().st_size < 2_000_000
    raw = resolve.resolve(name, store, device="cpu", side_px=32)
    assert raw.dimensions == 512
    assert raw.fingerprint != made


@pytest.mark.parametrize(
    ("value", "told"), [(1.0, "the same for all of 120 images"), (float("nan"), "no numbers for 120 of 120")]
)
def test_a_network_that_tells_nothing_apart_is_refused(value: float, told: str, tmp_path: Path) -> None:
    base = resolve.resolve("pixels", Store(str(tmp_path)), device="cpu")
    broken = replace(base, module=Constant(value))
    with pytest.raises(ConfigError, match=f"pixels: expected features that tell images apart, found {told}"):
        fitting.fitted_to(broken, pool_of(images(120)), workers=1)


class Constant(torch.nn.Module):
    """A network whose weights are broken."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return torch.full((len(values), 8), self.value)


def test_the_largest_side_of_use_that_fits_into_the_time() -> None:
    def of(count: int, side: int, seconds: float) -> int:
        return choosing.side_for(np.full(9, side), count=count, per_image=0.001, seconds=seconds)[0]

    assert of(1000, 32, 300) == 160  # five times 32 px, not more
    assert of(1000, 8, 300) == 96  # the smallest of all
    assert of(1000, 500, 300) == 224
    assert of(60_000, 32, 300) == 160  # 167 s of the 180 that the network may take
    assert of(60_000, 32, 180) == 128
    assert of(10_000_000, 32, 300) == 96  # the cheapest where none fits


def test_a_wait_for_the_processor_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other programs on the machine lengthen a pass by the clock; the stand-in for an encoder sleeps instead."""

    class Waiting:
        forward_rows, device = 32, torch.device("cpu")

        def encode(self, batch: torch.Tensor) -> torch.Tensor:
            time.sleep(0.01)
            return batch

    monkeypatch.setattr(resolve, "resolve", lambda *_, **__: Waiting())
    assert choosing._seconds_per_image(LITE, Store(str(tmp_path)), "cpu") < 0.01 / 32 / 2


@pytest.mark.parametrize(("seconds", "is_both"), [(60, True), (2, False)])
def test_a_second_network_stands_beside_the_first_where_there_is_time(
    seconds: float, is_both: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "_seconds_per_image", lambda *_: 0.001)
    choice = choosing.choose(np.full(9, 8), Store(str(tmp_path)), count=100, seconds=seconds, device="cpu")
    assert choice.side_px == 96
    assert choice.name == (f"package:{PAIR}" if is_both else LITE)
    with monkeypatch.context() as patch:
        patch.setattr(packages, "installed", lambda: ["efficientnet-lite0", "efficientnet-lite1"])
        alone = choosing.choose(np.full(9, 8), Store(str(tmp_path)), count=100, seconds=seconds, device="cpu")
    assert alone.name == LITE
    # the fit sees an image once, near-copies three times, the check twice, and the vectors take one more pass
    assert alone.seconds == pytest.approx(0.001 * 100 * 7)


def test_without_packages_auto_trains_on_the_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "PACKAGED", {})
    choice = choosing.choose(np.full(8, 32), Store(str(tmp_path)), count=8, seconds=40, device="cpu")
    assert (choice.name, choice.side_px, str(choice)) == ("ssl", None, "ssl, about 40 s")


def test_a_training_from_a_package_says_what_its_network_has_seen(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    made = training.train(pool_of(images(16)), store, EncoderParams(start=LITE, epochs=1, side_px=32), device="cpu")
    card = load_card(store, made)
    assert card is not None
    assert (card["method"], card["start"]) == ("contrastive", LITE)
    assert "ImageNet" in card["origin"]
    assert "Apache-2.0" in card["licence"]
