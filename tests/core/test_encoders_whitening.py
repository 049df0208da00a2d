"""Features centred and half whitened: what that does to a spread, what it leaves alone, how it travels with weights."""

from pathlib import Path

import torch

from wtl_core.encoders.cards import load_encoder, save_encoder
from wtl_core.encoders.networks import NetworkShape, build_network
from wtl_core.encoders.preprocessing import Preprocessing
from wtl_core.encoders.whitening import fit_whitening, split
from wtl_core.workspace.storage import open_store

CPU = torch.device("cpu")


def features(count: int = 2000, dimensions: int = 6) -> torch.Tensor:
    """One direction that all share, and spreads that fall by 32 to 1."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.randn(count, dimensions, generator=generator) * 2.0 ** -torch.arange(dimensions)
    return 0.1 * spread + torch.ones(dimensions)


def spread_of(values: torch.Tensor) -> torch.Tensor:
    centred = (values - values.mean(0)).double()
    return torch.linalg.svdvals(centred) / len(values) ** 0.5


def test_directions_are_centred_and_spread_by_the_root_of_what_they_were() -> None:
    values = features()
    found = fit_whitening(values)(values)
    before, after = spread_of(torch.nn.functional.normalize(values, dim=1)), spread_of(found)
    assert found.mean(0).abs().max() < 1e-4
    wide = before**2 > 0.01 * (before**2).mean()
    assert wide.sum() >= 3
    torch.testing.assert_close(after[wide], before[wide].sqrt(), rtol=1e-3, atol=0)
    assert (after[~wide] < after[wide].min()).all()


def test_it_does_not_depend_on_the_length_of_features_nor_on_their_order() -> None:
    values, order = features(), torch.randperm(2000, generator=torch.Generator().manual_seed(1))
    one, other = fit_whitening(values), fit_whitening(7.0 * values[order])
    torch.testing.assert_close(one(values), other(3.0 * values), rtol=1e-3, atol=1e-4)


def test_few_images_give_as_many_directions_as_they_tell_apart() -> None:
    """The rest of a space of more dimensions than images has no directions of its own, but those of a library."""
    generator = torch.Generator().manual_seed(0)
    few = torch.rand(100, 689, generator=generator)
    found = fit_whitening(torch.cat([few, few]))
    assert found.dimensions == 99  # they are centred
    signs = torch.where(torch.arange(689) % 2 == 0, 1.0, -1.0)  # another basis of the same space
    mirrored = fit_whitening(torch.cat([few, few]) * signs)
    later = torch.rand(20, 689, generator=generator)
    torch.testing.assert_close(
        torch.cdist(found(later), found(later)),
        torch.cdist(mirrored(later * signs), mirrored(later * signs)),
        rtol=1e-3,
        atol=1e-4,
    )
    assert fit_whitening(torch.rand(400, 689, generator=generator)).dimensions == 256


def test_the_number_of_threads_changes_no_bit() -> None:
    values, before = features(1500, 400), torch.get_num_threads()
    try:
        made = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            made.append(fit_whitening(values))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(made[0].matrix, made[1].matrix)
    assert torch.equal(made[0].mean, made[1].mean)


def test_a_dead_network_stays_dead() -> None:
    values = features()
    whitening = fit_whitening(values)
    assert whitening(torch.zeros(2, 6)).abs().max() == 0
    assert whitening(torch.full((1, 6), float("nan"))).isnan().all()
    same = torch.ones(50, 6)
    assert fit_whitening(same)(same).isfinite().all()


def test_it_is_kept_among_the_weights_and_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    store, shape = open_store(str(tmp_path)), NetworkShape("resnet9", 8)
    torch.manual_seed(0)
    network = build_network(shape).state_dict()
    whitening = fit_whitening(torch.rand(100, shape.dimensions))
    fixed = {"shape": shape, "preprocessing": Preprocessing(16), "number_format": "float32", "card": {}}
    plain = save_encoder(store, network, **fixed)
    both = network | whitening.tensors()
    white = save_encoder(store, both, **fixed)
    assert plain != white
    images = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8)
    raw = load_encoder(store, plain, device=CPU).encode(images)
    loaded = load_encoder(store, white, device=CPU)
    assert loaded.fingerprint == white
    torch.testing.assert_close(loaded.encode(images), torch.nn.functional.normalize(whitening(raw), dim=1))
    assert split(both)[0].keys() == network.keys()
