"""Encoders: fingerprints tell apart what gives other vectors, files are read without being run, names find networks."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from wtl_core.encoders import preprocessing
from wtl_core.encoders.cards import CARD, FOLDER, WEIGHTS, load_encoder, save_encoder
from wtl_core.encoders.encoder import Encoder, build, default_format
from wtl_core.encoders.networks import NetworkShape, build_network, fold_norms
from wtl_core.encoders.preprocessing import Preprocessing, fit, from_json
from wtl_core.encoders.resolve import resolve, start_from
from wtl_core.errors import ConfigError, CorruptArtifactError
from wtl_core.training.augment import Strength, ViewParameters, random_parameters, views
from wtl_core.workspace.storage import Store, open_store

CPU = torch.device("cpu")
SHAPE = NetworkShape("resnet9", 8)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "workspace"))


def weights(seed: int = 0, shape: NetworkShape = SHAPE) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    network = build_network(shape)
    for _ in range(2):
        network(torch.rand(16, 3, 32, 32))  # moves the running statistics away from 0 and 1
    return network.state_dict()


def save(store: Store, seed: int = 0, side: int = 32, number_format: str = "float32") -> str:
    return save_encoder(
        store,
        weights(seed),
        shape=SHAPE,
        preprocessing=Preprocessing(side),
        number_format=number_format,  # type: ignore[arg-type]
        card={"method": "none"},
    )


def images(count: int, side: int = 32) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 3, side, side), dtype=np.uint8))


def test_weights_preprocessing_and_number_format_each_change_the_fingerprint(store: Store) -> None:
    all_of_them = [save(store), save(store, 1), save(store, side=48), save(store, number_format="bfloat16")]
    assert len(set(all_of_them)) == 4
    assert save(store) == all_of_them[0]


def test_a_stored_encoder_gives_the_same_vectors_again(store: Store) -> None:
    digest = save(store)
    first, second = (load_encoder(store, digest, device=CPU) for _ in range(2))
    assert first.fingerprint == digest
    assert first.dimensions == 64
    assert torch.equal(first.encode(images(5)), second.encode(images(5)))


def test_the_ways_to_name_a_stored_encoder_lead_to_the_same_one(store: Store) -> None:
    digest = save(store)
    folder = store.path(f"{FOLDER}/{digest}")
    for name in (digest, folder, f"file:{folder}/{WEIGHTS}"):
        assert resolve(name, store, device="cpu").fingerprint == digest


def test_folding_normalisations_changes_vectors_by_rounding_alone() -> None:
    for shape in (SHAPE, NetworkShape("resnet18", 8), NetworkShape("resnet18", 8, 4), NetworkShape("resnet9", 8, 2)):
        network = build_network(shape)
        network.load_state_dict(weights(0, shape))
        values = torch.rand(4, 3, 32, 32)
        with torch.no_grad():
            plain = network.eval()(values)
            folded = fold_norms(network)(values)
        assert folded.shape == (4, shape.dimensions)
        torch.testing.assert_close(plain, folded, rtol=1e-4, atol=1e-4)


def test_changed_weights_are_refused(store: Store) -> None:
    digest = save(store)
    other = save(store, 1)
    store.write_bytes(f"{FOLDER}/{digest}/{WEIGHTS}", store.read_bytes(f"{FOLDER}/{other}/{WEIGHTS}"))
    with pytest.raises(CorruptArtifactError, match="delete the folder"):
        load_encoder(store, digest, device=CPU)


def test_a_broken_weights_file_is_refused(store: Store) -> None:
    digest = save(store)
    store.write_bytes(f"{FOLDER}/{digest}/{WEIGHTS}", b"\x80\x04no safetensors")
    with pytest.raises(CorruptArtifactError, match="expected a safetensors file"):
        load_encoder(store, digest, device=CPU)


def test_an_unknown_fingerprint_names_those_that_are_there(store: Store) -> None:
    digest = save(store)
    with pytest.raises(ConfigError, match=digest[:16]):
        resolve("f" * 64, store, device="cpu")


def test_without_its_card_a_folder_is_no_encoder(store: Store) -> None:
    digest = save(store)
    store.delete(f"{FOLDER}/{digest}/{CARD}")
    with pytest.raises(ConfigError, match="found 1 others"):
        load_encoder(store, digest, device=CPU)


def test_the_card_is_json_with_network_preprocessing_and_method(store: Store) -> None:
    digest = save(store)
    card = json.loads(store.read_bytes(f"{FOLDER}/{digest}/{CARD}"))
    assert card["fingerprint"] == digest
    assert card["method"] == "none"
    assert from_json(card["preprocessing"]) == Preprocessing(32)
    assert NetworkShape(**card["network"]) == SHAPE


def test_vectors_are_of_unit_length_and_do_not_depend_on_neighbours() -> None:
    for number_format in ("float32", "bfloat16"):
        encoder = make_encoder(number_format)
        every = encoder.encode(images(70))
        assert torch.allclose(every.norm(dim=1), torch.ones(70), atol=1e-5)
        for start, stop in ((0, 1), (3, 40), (69, 70)):
            assert torch.equal(encoder.encode(images(70)[start:stop]), every[start:stop])


def make_encoder(number_format: str) -> Encoder:
    network = build_network(SHAPE)
    network.load_state_dict(weights())
    return build(
        network,
        name="t",
        architecture={},
        preprocessing=Preprocessing(32),
        device=CPU,
        number_format=number_format,  # type: ignore[arg-type]
    )


def test_the_number_format_follows_the_processor() -> None:
    expected = "bfloat16" if torch.cpu._is_avx512_bf16_supported() else "float32"
    assert default_format(CPU) == expected


def test_pixels_needs_no_weights_and_gives_even_a_blank_image_a_vector(store: Store) -> None:
    encoder = resolve("pixels", store, device="cpu")
    grey = torch.full((1, 3, 32, 32), 127, dtype=torch.uint8)
    vectors = encoder.encode(torch.cat([grey, 0 * grey, images(2)]))
    assert torch.isfinite(vectors).all()
    assert torch.allclose(vectors.norm(dim=1), torch.ones(4), atol=1e-5)
    assert encoder.fingerprint == resolve("pixels", store, device="cpu").fingerprint


def test_pixels_puts_a_shifted_image_nearer_than_another_one(store: Store) -> None:
    encoder = resolve("pixels", store, device="cpu")
    smooth = nn.functional.interpolate(images(20, 5).float(), 36, mode="bicubic").clamp(0, 255).to(torch.uint8)
    here, there = encoder.encode(smooth[..., 2:34, 2:34]), encoder.encode(smooth[..., 3:35, 1:33])
    assert ((here @ there.T).argmax(dim=1) == torch.arange(20)).all()


@pytest.mark.parametrize("size", [(32, 32), (500, 375), (20, 90)])
def test_squash_keeps_the_whole_image_and_crop_its_middle(size: tuple[int, int]) -> None:
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    assert fit(image, Preprocessing(24)).shape == (3, 24, 24)
    assert fit(image, Preprocessing(24, "crop", 28)).shape == (3, 24, 24)
    both = fit(torch.stack([image, image]), Preprocessing(24))
    assert torch.equal(both[0], fit(image, Preprocessing(24)))


@pytest.mark.parametrize("is_upright", [False, True])
def test_a_long_strip_is_cropped_before_it_is_scaled_up(is_upright: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, int]] = []
    scale = preprocessing._resize
    monkeypatch.setattr(
        preprocessing, "_resize", lambda batch, size, how: sizes.append(size) or scale(batch, size, how)
    )
    ramp = torch.linspace(0, 255, 4000).to(torch.uint8).expand(3, 8, 4000)
    strip = ramp.transpose(1, 2) if is_upright else ramp
    found = fit(strip, Preprocessing(24, "crop", 28))
    assert sorted(sizes[0]) == [28, 8 * 28]
    assert found.shape == (3, 24, 24)
    assert (found.float() - 127).abs().max() <= 2  # the middle of the ramp


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


def timm_weights(name: str, folder: Path) -> str:
    """A timm network's name with random weights in a file."""
    import timm

    torch.manual_seed(0)
    save_file(timm.create_model(name, pretrained=False).state_dict(), folder / f"{name}.safetensors")
    return f"timm:{name}@{folder / name}.safetensors"


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


def test_a_users_own_factory_is_called(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_nets.py").write_text(
        "from torch import nn\nfrom wtl_core.encoders.preprocessing import Preprocessing\n"
        "def build():\n    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()), Preprocessing(16)\n"
        "def wrong():\n    return 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    encoder = resolve("python:my_nets:build", store, device="cpu")
    assert (encoder.dimensions, encoder.side_px) == (12, 16)
    monkeypatch.delitem(sys.modules, "my_nets")
    (tmp_path / "my_nets.py").write_text((tmp_path / "my_nets.py").read_text().replace("AdaptiveAvg", "AdaptiveMax"))
    os.utime(tmp_path / "my_nets.py", (1, 1))  # not the time that the compiled file names
    assert resolve("python:my_nets:build", store, device="cpu").fingerprint != encoder.fingerprint
    with pytest.raises(ConfigError, match="found int"):
        resolve("python:my_nets:wrong", store, device="cpu")
    with pytest.raises(ConfigError, match="expected a function to import"):
        resolve("python:my_nets:nothing", store, device="cpu")


FACTORY = """
import torch
from torch import nn
from wtl_core.encoders.preprocessing import Preprocessing
torch.manual_seed(3)
NET = nn.Sequential(nn.Conv2d(3, 16, 3, 2), nn.BatchNorm2d(16), nn.AdaptiveAvgPool2d(1), nn.Flatten())
def kept(): return NET, Preprocessing(32)
def drawn(): return nn.Sequential(nn.Conv2d(3, 16, 3, 2), nn.Flatten()), Preprocessing(32)
class Wrong(nn.Module):
    def __init__(self, give):
        super().__init__()
        self.give = give
    def forward(self, x): return self.give(x)
def pair(): return Wrong(lambda x: (x, x)), Preprocessing(32)
def flat(): return Wrong(lambda x: x.mean((1, 2, 3))), Preprocessing(32)
def one(): return Wrong(lambda x: x.mean(0, keepdim=True)), Preprocessing(32)
def none(): return ()
def broken(): raise FileNotFoundError("weights.bin")
"""


def test_a_network_that_its_module_keeps_stays_what_it_is(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kept_nets.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(str(tmp_path))
    first = resolve("python:kept_nets:kept", store, device="cpu")
    assert resolve("python:kept_nets:kept", store, device="cpu").fingerprint == first.fingerprint
    kept = sys.modules["kept_nets"].NET
    assert kept[0].weight.dtype == torch.float32
    assert isinstance(kept[1], torch.nn.BatchNorm2d)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("pair", "found tuple of 2 images"),
        ("flat", r"found \(2,\) of 2 images"),
        ("one", r"found \(1, 3, 32, 32\) of 2 images"),
        ("none", "found tuple"),
        ("broken", "it raised FileNotFoundError: weights.bin; mend the factory"),
    ],
)
def test_what_a_factory_gets_wrong_is_said(
    factory: str, message: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wrong_nets.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=message):
        resolve(f"python:wrong_nets:{factory}", store, device="cpu")


def test_the_code_that_a_factory_imports_is_part_of_the_fingerprint(store: Store, tmp_path: Path) -> None:
    """Also constants, what functions import, and packages without `__init__.py`; not what is installed."""
    files = {
        "plain/models/net.py": "from .parts import GAIN\n" + FACTORY.replace("def kept", "def build"),
        "plain/models/parts.py": "import json\nGAIN = 1.0\n",
        "late.py": FACTORY.replace(
            "def kept():", "def build():\n    import helper, torch, wtl_core.refresh.planning\n   "
        ),
        "helper.py": "WIDTH = 3\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    code = (
        "import sys\nfrom wtl_core.encoders.resolve import resolve\nfrom wtl_core.workspace.storage import open_store\n"
        "from wtl_core.encoders.factory_source import source_files\n"
        "print([path.name for path in source_files(sys.argv[1])])\n"
        "print(resolve(f'python:{sys.argv[1]}:build', open_store('w'), device='cpu').fingerprint)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONDONTWRITEBYTECODE": "1"}

    def looked(module: str) -> list[str]:
        command = [sys.executable, "-c", code, module]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    for module, imported, sources in (
        ("plain.models.net", "plain/models/parts.py", "['net.py', 'parts.py']"),
        ("late", "helper.py", "['helper.py', 'late.py']"),
    ):
        first = looked(module)
        assert first[0] == sources
        assert looked(module) == first
        (tmp_path / imported).write_text("GAIN = WIDTH = 7\n")
        assert looked(module)[1] != first[1]


def test_a_network_that_cannot_be_copied_is_taken_as_it_is(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = "    net = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())\n    net.lock = threading.Lock()\n"
    text = f"import threading\n{FACTORY}\ndef build():\n{locked}    return net, Preprocessing(16)\n"
    (tmp_path / "locked_nets.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert resolve("python:locked_nets:build", store, device="cpu").dimensions == 12


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fit": "cover"}, "expected fit squash or crop, found 'cover'"),
        ({"fit": "crop"}, "expected resize_px of at least side_px, 32"),
        ({"std": (0.0, 1.0, 1.0)}, "above 0"),
    ],
)
def test_preprocessing_that_would_do_something_else_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Preprocessing(32, **values)


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


def test_an_encoders_folder_may_be_named_from_inside_its_workspace(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fingerprint = save(store)
    monkeypatch.chdir(store.root)
    assert resolve(f"encoders/{fingerprint}", Store(str(tmp_path)), device="cpu").fingerprint == fingerprint


def test_half_an_encoder_is_named(store: Store) -> None:
    fingerprint = save(store)
    folder = Path(store.root) / "encoders" / fingerprint
    (folder / "weights.safetensors").rename(folder / "away")
    with pytest.raises(CorruptArtifactError, match=r"expected weights\.safetensors beside card\.json"):
        resolve(fingerprint, store, device="cpu")
    (folder / "card.json").write_text("")
    with pytest.raises(CorruptArtifactError, match=r"card\.json: expected a JSON object"):
        resolve(fingerprint, store, device="cpu")


def test_a_users_module_is_found_in_the_current_folder_after_installed_ones(tmp_path: Path) -> None:
    factory = (
        "from torch import nn\nfrom wtl_core.encoders.preprocessing import Preprocessing\n"
        "class Late(nn.Flatten):\n"
        "    def forward(self, values):\n        import my_late\n        return super().forward(values)\n"
        "def build():\n    return nn.Sequential(nn.AdaptiveAvgPool2d(2), Late()), Preprocessing(16)\n"
    )
    (tmp_path / "my_late.py").write_text("")
    for name in ("my_nets", "timm"):
        (tmp_path / f"{name}.py").write_text(factory)
    code = (
        "import sys\nfrom wtl_core.encoders.resolve import resolve\nfrom wtl_core.workspace.storage import open_store\n"
        "import torch\n"
        "for _ in range(2): encoder = resolve('python:my_nets:build', open_store('w'), device='cpu')\n"
        "print(encoder.encode(torch.ones(2, 3, 16, 16, dtype=torch.uint8)).shape[1])\n"
        "import timm; print('create_model' in dir(timm), sys.path.count(sys.argv[1]))"
    )
    # -P as for the console script: the current folder is not on the path
    command = [sys.executable, "-P", "-c", code, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["12", "True", "0"], done.stderr


def test_a_draw_that_changes_nothing_gives_the_image_itself() -> None:
    still = ViewParameters(torch.eye(2, 3).repeat(8, 1, 1), torch.eye(3).repeat(8, 1, 1), torch.ones(8))
    assert torch.allclose(views(images(8), still, 32), images(8).float() / 255, atol=1e-5)


def test_a_crop_shows_the_part_that_was_drawn() -> None:
    ramp = torch.arange(32, dtype=torch.uint8).view(1, 1, 1, 32).expand(64, 3, 32, 32)
    seen = views(
        ramp, random_parameters(64, Strength(jitter=0, hue=0, grey_probability=0), torch.Generator().manual_seed(1)), 24
    )
    row = seen[:, 0, 12] * 255
    assert (row.amin(dim=1) >= -0.01).all()
    assert (row.amax(dim=1) <= 31.01).all()
    spans = row.amax(dim=1) - row.amin(dim=1)
    assert 8 < float(spans.min()) < float(spans.max()) < 31.1
    assert ((row[:, -1] - row[:, 0]) < 0).float().mean() > 0.3  # some are flipped


def test_colour_jitter_is_one_matrix_and_a_contrast() -> None:
    strength = Strength(least_area=1, grey_probability=0)
    random = random_parameters(512, strength, torch.Generator().manual_seed(0))
    grey = torch.tensor((0.299, 0.587, 0.114))
    plain = (random.colours - torch.eye(3)).abs().amax(dim=(1, 2)) < 1e-5
    assert 0.1 < plain.float().mean() < 0.3  # one in five keeps its colours
    white = random.colours @ torch.ones(3)
    assert torch.allclose(white, white[:, :1].expand(-1, 3), atol=2e-3)  # hue and saturation leave white and grey alone
    assert (white[:, 0] - 1).abs().max() <= 0.4 + 1e-3
    only_grey = random_parameters(64, Strength(jitter=0, hue=0, grey_probability=1), torch.Generator()).colours
    assert torch.allclose(only_grey, grey.expand(64, 3, 3), atol=1e-5)
