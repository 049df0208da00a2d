"""Classes of labels steer the picks: the factors by a plain reference, and when they count."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tests.clustered_pool import LARGE, clustered, rank
from wtl_core.errors import InputError
from wtl_core.recipe.selection import EMPTY, SelectionParams
from wtl_core.selection import label_votes, label_weights
from wtl_core.selection.dense import cover_by
from wtl_core.selection.greedy import new_state
from wtl_core.selection.kernels import kernel_table
from wtl_core.selection.label_votes import OTHER, Votes
from wtl_core.selection.label_weights import LabelSay, Lesson, likely_classes
from wtl_core.selection.linear_probe import fit_probe
from wtl_core.selection.neighbours import prepare

pytestmark = pytest.mark.usefixtures("two_threads")

Classes = list[tuple[str, ...] | None]


def learn(vectors: np.ndarray, labelled: np.ndarray, classes: Sequence[Sequence[str] | None]) -> tuple[Lesson, Votes]:
    order = np.random.default_rng(1).permutation(len(vectors))
    points, others = prepare(vectors), prepare(labelled)
    votes = Votes(classes, len(vectors))
    marks = np.arange(len(labelled), dtype=np.int32)
    cover_by(points, others, kernel_table("gaussian", 0.5), new_state(len(vectors)), marks=marks, on_bits=votes.add)
    return label_weights.learn(votes, vectors, others, labelled, order=order), votes


def listen(vectors: np.ndarray, labelled: np.ndarray, classes: Sequence[Sequence[str] | None]) -> LabelSay:
    lesson, votes = learn(vectors, labelled, classes)
    return lesson.say(votes, vectors)


UNEVEN = (0.5, 0.25, 0.12, 0.06, 0.04, 0.03)


def pool_with_classes(
    rows: int, *, seed: int = 0, shares: Sequence[float] = UNEVEN, spread: float = 0.6
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors in six clusters, and the cluster of each, the first ones far commoner."""
    draw = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(6, 12))
    codes = draw.choice(6, rows, p=shares)
    vectors = centres[codes] + spread * draw.normal(size=(rows, 12))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), codes


def named(codes: np.ndarray) -> Classes:
    return [(f"class {code}",) for code in codes]


def reference(vectors: np.ndarray, labelled: np.ndarray, classes: Classes) -> tuple[np.ndarray, np.ndarray]:
    """Factors and disagreement by the formula, in float64 and without blocks."""
    known = [(row, list(found) or [EMPTY]) for row, found in enumerate(classes) if found is not None]
    names = sorted({name for _, found in known for name in found})
    target = np.zeros((len(known), len(names)))
    for at, (_, found) in enumerate(known):
        for name in found:
            target[at, names.index(name)] = 1 / len(found)
    rows = [row for row, _ in known]
    given = torch.from_numpy(labelled[rows])
    probe = fit_probe(given, torch.from_numpy(target.astype(np.float32)), classes=len(names), is_equalised=True)
    probed = probe.logits(torch.from_numpy(vectors)).softmax(1).numpy().astype(np.float64)
    squared = ((vectors[:, None].astype(np.float64) - labelled[rows][None].astype(np.float64)) ** 2).sum(2)
    votes = np.exp(-squared / 2 / 0.07) @ target
    voted = votes / votes.sum(1, keepdims=True)
    both = (probed + voted) / 2
    sets = [tuple(sorted(found)) for _, found in known]
    sets = sorted(set(sets), key=lambda one: (-sets.count(one), one))
    counts = np.zeros(len(names))
    for shares in both:  # the nearest of the sets of classes that labelled images have
        away = [((shares - [(name in one) / len(one) for name in names]) ** 2).sum() for one in sets]
        for name in sets[int(np.argmin(away))]:
            counts[names.index(name)] += 1
    share = np.maximum(counts / counts.sum(), 1e-3 / len(names))
    disagreement = np.abs(probed - voted).sum(1) / 2
    factors = (1 + 5 * disagreement) * (both @ share**-0.5)
    if all(len(found) == 1 for found in sets):
        among = np.exp(-((labelled[rows][:, None] - labelled[rows][None]) ** 2).sum(2) / 2 / 0.07)
        np.fill_diagonal(among, 0)
        agreement, commonest = ((among @ target).argmax(1) == target.argmax(1)).mean(), target.mean(0).max()
        unevenness = 1 - np.exp(-(share * np.log(share)).sum()) / len(names)
        clearness = (agreement - commonest) / (1 - commonest)
        strength = 10 * unevenness * clearness**4
        strength = (strength if strength >= 1 else 0) + 3 * clearness**4 * len(rows) / (len(rows) + 100 * len(names))
        third = fit_probe(given, torch.from_numpy(target.astype(np.float32)), classes=len(names))
        first, second = np.sort(third.logits(torch.from_numpy(vectors)).softmax(1).numpy(), axis=1)[:, :-3:-1].T
        factors *= 1 + strength * (1 - first + second)
    return factors, disagreement


@pytest.mark.parametrize("rows", [60, 3000])
@pytest.mark.parametrize("are_single", [False, True])
def test_factors_are_those_of_the_formula(rows: int, are_single: bool) -> None:
    vectors, codes = pool_with_classes(rows)
    labelled, theirs = pool_with_classes(700, seed=1)
    classes = named(theirs)
    classes[1], classes[2], classes[3] = (), None, ("rare",)
    if not are_single:
        classes[0], classes[3] = ("class 0", "class 3"), ("class 1", "class 2", "rare")
    say = listen(vectors, labelled, classes)
    factors, disagreement = reference(vectors, labelled, classes)
    # distances are rounded by 0.2 %, so that a vote differs by some per cent
    np.testing.assert_allclose(say.disagreement, disagreement, atol=0.03)
    np.testing.assert_allclose(say.factors, factors, rtol=0.05)
    assert say.names == sorted({*(f"class {code}" for code in range(6)), EMPTY, "rare"})
    assert ([say.names[code] for code in say.likeliest] == np.char.add("class ", codes.astype(str))).mean() > 0.8
    assert (say.likeliest != say.second).all()
    assert say.labelled == 699


@pytest.mark.parametrize(
    ("shares", "spread", "labels", "least", "most"),
    [
        (UNEVEN, 0.6, 300, 4.0, 5.0),  # told apart
        ((1 / 6,) * 6, 0.6, 300, 0.8, 1.1),  # even
        ((1 / 6,) * 6, 0.6, 3000, 2.2, 2.5),  # even, and with very many labels
        (UNEVEN, 2.0, 300, 0.0, 0.05),  # overlapping
    ],
)
def test_doubt_counts_where_classes_are_told_apart_most_where_they_are_uneven(
    shares: tuple[float, ...], spread: float, labels: int, least: float, most: float
) -> None:
    vectors, _ = pool_with_classes(1000, shares=shares, spread=spread)
    labelled, codes = pool_with_classes(labels, seed=1, shares=shares, spread=spread)
    lesson, votes = learn(vectors, labelled, named(codes))
    assert lesson.is_heard
    assert least < lesson.doubt < most
    assert lesson.doubter is not None
    of_several, _ = learn(vectors, labelled, [*named(codes)[1:], ("class 0", "class 1")])
    assert of_several.doubter is None
    without = replace(lesson, doubter=None).say(votes, vectors).factors
    more = lesson.say(votes, vectors).factors / without
    probabilities = lesson.doubter.logits(torch.from_numpy(vectors)).softmax(1).numpy()
    first = probabilities.max(1)
    sure, unsure = first > 0.95, first < 0.6
    assert more[unsure].min() > more[sure].max()


def test_the_check_asks_all_other_labels_of_an_image() -> None:
    labelled, codes = pool_with_classes(400)
    squared = ((labelled[:, None] - labelled[None]) ** 2).sum(2)
    votes = np.exp(-squared / 2 / 0.07)
    np.fill_diagonal(votes, 0)
    expected = ((votes @ np.eye(6)[codes]).argmax(1) == codes).mean()
    say = listen(labelled[:50], labelled, named(codes))
    assert say.agreement == pytest.approx(expected, abs=0.01)
    assert say.commonest == pytest.approx(np.bincount(codes).max() / 400)
    assert say.is_heard


def test_no_image_is_named_by_a_set_of_classes_that_it_alone_has() -> None:
    labelled, codes = pool_with_classes(40)
    alone: Classes = [(f"class {code}", f"image {row}") for row, code in enumerate(codes)]
    assert listen(labelled[:5], labelled, alone).agreement == 0.0
    twice = np.repeat(labelled, 2, axis=0)
    assert listen(labelled[:5], twice, [names for names in alone for _ in range(2)]).agreement > 0.8


def test_fewer_than_two_classes_say_nothing() -> None:
    vectors, _ = pool_with_classes(40)
    for classes, has_say in (([("a",)] * 5, False), ([None] * 5, False), ([("a",), (), None, None, None], True)):
        found = rank(vectors[5:], labelled=vectors[:5], labelled_classes=classes)
        assert (found.labels is not None) == has_say


def test_rare_classes_get_more_picks() -> None:
    vectors, codes = pool_with_classes(1500)
    labelled, theirs = pool_with_classes(150, seed=1)
    order = {
        mode: rank(vectors, {"labels": mode}, labelled=labelled, labelled_classes=named(theirs)).rows[:150]
        for mode in ("auto", "ignore")
    }
    rare = {mode: int((codes[rows] >= 3).sum()) for mode, rows in order.items()}
    assert rare["auto"] > 1.3 * rare["ignore"]


@pytest.mark.parametrize("more", [{}, LARGE])
def test_labels_that_name_each_other_no_better_than_by_chance_do_not_count(more: dict[str, object]) -> None:
    vectors, _ = pool_with_classes(300)
    labelled, codes = pool_with_classes(200, seed=1)
    shuffled = named(np.random.default_rng(0).permutation(codes))
    plain = rank(vectors, more, labelled=labelled)
    auto = rank(vectors, more, labelled=labelled, labelled_classes=shuffled)
    assert auto.labels is not None
    assert not auto.labels.is_heard
    np.testing.assert_array_equal(auto.rows, plain.rows)
    forced = rank(vectors, {**more, "labels": "use"}, labelled=labelled, labelled_classes=shuffled)
    assert not np.array_equal(forced.rows, plain.rows)
    ignored = rank(vectors, {**more, "labels": "ignore"}, labelled=labelled, labelled_classes=named(codes))
    assert ignored.labels is None
    np.testing.assert_array_equal(ignored.rows, plain.rows)


@pytest.mark.parametrize("more", [{}, LARGE])
def test_a_steered_ranking_gives_reasons(more: dict[str, object]) -> None:
    vectors, _ = pool_with_classes(300)
    labelled, codes = pool_with_classes(200, seed=1)
    first = rank(vectors, more, labelled=labelled, labelled_classes=named(codes))
    assert first.labels is not None
    assert first.labels.is_heard
    assert sorted(first.rows) == list(range(300))
    by_row = {int(row): first.labels.reason(int(at)) for row, at in zip(first.rows, first.label_rows, strict=True)}
    probes = sum(reason.startswith("unsure between class ") for reason in by_row.values())
    assert 0 < probes < len(by_row)


def test_what_labels_say_depends_on_no_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's own threads, by as many labels as make it split a sum among three."""
    monkeypatch.undo()
    draw = np.random.default_rng(0)
    codes = draw.integers(0, 20, 6000)
    drawn = draw.normal(size=(20, 128))[codes] + 1.5 * draw.normal(size=(6000, 128))
    labelled = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
    vectors = labelled[:500]
    said, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            say = listen(vectors, labelled, named(codes))
            assert torch.get_num_threads() == threads
            said.append(say.factors)
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(said[0], said[1])
    np.testing.assert_array_equal(said[0], said[2])


def test_a_class_that_every_image_has_beside_others_says_nothing() -> None:
    """As `person` in a set of boxes: naming it always is right always."""
    draw = np.random.default_rng(0)
    vectors, labelled = (draw.normal(size=(300, 16)).astype(np.float32) for _ in range(2))
    classes = [("person", f"thing {code}") for code in draw.integers(0, 5, 300)]
    found = rank(vectors, labelled=labelled, labelled_classes=classes)
    assert found.labels is not None
    assert found.labels.commonest < 0.3  # of `person` and one of the things together
    assert not found.labels.is_heard
    np.testing.assert_array_equal(found.rows, rank(vectors, labelled=labelled).rows)


def test_classes_beside_one_that_every_image_has_steer_and_are_told() -> None:
    labelled, theirs = pool_with_classes(500)
    vectors, codes = pool_with_classes(400, seed=1)
    classes: Classes = [("person", f"class {code}") if code else ("person",) for code in theirs]
    found = rank(vectors, labelled=labelled, labelled_classes=classes)
    say = found.labels
    assert say is not None
    assert say.is_heard
    reasons = [say.reason(row) for row in range(len(vectors))]
    rare = np.flatnonzero(codes == 5)
    assert np.mean([set(likely_classes(reasons[row], say.names)) == {"person", "class 5"} for row in rare]) > 0.6
    assert np.mean([likely_classes(reasons[row], say.names) == ["person"] for row in np.flatnonzero(codes == 0)]) > 0.6


def test_of_very_many_classes_the_commonest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_votes, "_MOST_CLASSES", 3)
    votes = Votes([("b",), ("a",), ("c", "d"), ("a",), ("b",), ("e",), None], 10)
    assert votes.names == [OTHER, "a", "b"]
    assert votes.target.tolist() == [[0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]]
    assert votes.sums.shape == (3, 10)


def test_classes_of_another_number_of_images_are_refused() -> None:
    vectors = clustered(60)
    with pytest.raises(InputError, match=r"labelled_classes: expected those of each labelled image \(20\), found 19"):
        rank(vectors[20:], labelled=vectors[:20], labelled_classes=named(np.arange(19) % 2))


def test_labels_combine_with_quotas_weights_and_frozen_picks() -> None:
    vectors, _ = pool_with_classes(300)
    labelled, codes = pool_with_classes(200, seed=1)
    groups = np.array(["a", "b", "c"])[np.arange(300) % 3]
    weights = np.where(np.arange(300) < 10, 0.0, 1.0)
    params = {"budget": 60, "group_by": "x", "quotas": [{"group": "a", "maximum": 5}]}
    found = rank(
        vectors, params, labelled=labelled, labelled_classes=named(codes), groups=groups, weights=weights,
        frozen=np.array([20, 11]),
    )  # fmt: skip
    assert found.rows[:2].tolist() == [20, 11]
    assert (groups[found.rows[:60]] == "a").sum() <= 5
    assert set(range(10)) == set(found.rows[-10:].tolist())
    assert (found.label_rows[-10:] == -1).all()


def test_an_objective_without_weights_refuses_labels_that_are_to_be_used() -> None:
    with pytest.raises(ValidationError, match="labels: expected objective coverage"):
        SelectionParams.model_validate({"objective": "k-center", "labels": "use"})
    vectors = clustered(60)
    labelled = {"labelled": vectors[:20], "labelled_classes": named(np.arange(20) % 2)}
    found = rank(vectors[20:], {"objective": "k-center"}, **labelled)
    assert found.labels is None


def test_the_classes_that_a_reason_speaks_of_are_found_whatever_they_are_called() -> None:
    names = ["a", "salt and pepper", "b and c", "a and b", "c", "like a", "unsure between a"]
    assert likely_classes("like a", names) == ["a"]
    assert likely_classes("like like a", names) == ["like a"]
    assert likely_classes("unsure between a and salt and pepper", names) == ["a", "salt and pepper"]
    assert likely_classes("unsure between salt and pepper and a", names) == ["salt and pepper", "a"]
    assert likely_classes("unsure between unsure between a and c", names) == ["unsure between a", "c"]
    assert likely_classes("unsure between a and b and c", names) == ["a", "b and c", "a and b", "c"]
    assert likely_classes("like salt and pepper", ["salt", "pepper", *names]) == ["salt and pepper", "salt", "pepper"]
    assert likely_classes("unsure between a and (other)", names) == ["a", "(other)"]
    for reason in ("like salt", "unsure between a and pepper", "unsure between a"):
        assert likely_classes(reason, names) == []
