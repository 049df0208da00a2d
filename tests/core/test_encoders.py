"""Encoders: fingerprints tell apart what gives other vectors, files are read without being run, names find networks."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from tests.small_encoders import SHAPE, images, weights
from wtl_core.encoders.cards import CARD, FOLDER, WEIGHTS, load_encoder, save_encoder
from wtl_core.encoders.encoder import Encoder, build, default_format
from wtl_core.encoders.networks import NetworkShape, beside_pixels, build_network, fold_norms, trained_part
from wtl_core.encoders.pixels import pixels
from wtl_core.encoders.preprocessing import Preprocessing, from_json
from wtl_core.encoders.resolve import resolve
from wtl_core.errors import ConfigError, CorruptArtifactError
from wtl_core.workspace.storage import Store

CPU = torch.device("cpu")


def save(store: Store, seed: int = 0, side: int = 32, number_format: str = "float32") -> str:
    return save_encoder(
        store,
        weights(seed),
        shape=SHAPE,
        preprocessing=Preprocessing(side),
        number_format=number_format,  # type: ignore[arg-type]
        card={"method": "none"},
    )


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


def test_what_is_kept_of_a_training_has_training_free_features_beside_its_own() -> None:
    network = build_network(SHAPE)
    network.load_state_dict(weights(0, SHAPE))
    shape, kept = beside_pixels(SHAPE, network.eval())
    squares = images(4)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (Preprocessing.mean, Preprocessing.std))
    with torch.no_grad():
        features = kept((squares / 255 - mean) / std)
        learnt = functional.normalize(network((squares / 255 - mean) / std), dim=1)
    torch.testing.assert_close(features[:, :64], learnt)
    torch.testing.assert_close(features[:, 64:] / 0.7, pixels(CPU).encode(squares), rtol=1e-3, atol=1e-4)
    assert features.shape == (4, shape.dimensions)
    again, bare = trained_part(shape, kept.state_dict())
    assert again == SHAPE
    assert bare.keys() == network.state_dict().keys()
    assert all(torch.equal(values, bare[name]) for name, values in network.state_dict().items())
    assert trained_part(SHAPE, network.state_dict())[0] == SHAPE


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
