"""What the benchmark compares: pools, orders, queries and judges, on small arrays."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from wtl_core.benchmark import judges, loops, network, pools, queries, strategies
from wtl_core.benchmark.datasets import Split
from wtl_core.benchmark.network import ScratchRecipe
from wtl_core.benchmark.params import ONE_PASS, ORACLES
from wtl_core.benchmark.queries import Predictions
from wtl_core.benchmark.stored_images import StoredImages
from wtl_core.recipe.selection import SelectionParams
from wtl_core.selection import linear_probe
from wtl_core.selection.dense import cover_by
from wtl_core.selection.greedy import new_state
from wtl_core.selection.kernels import kernel_table
from wtl_core.selection.label_votes import Votes
from wtl_core.selection.label_weights import listen
from wtl_core.selection.neighbours import prepare
from wtl_core.selection.ranking import rank

CLASSES = 4


def blobs(count: int, seed: int = 0, side: int = 12) -> Split:
    """Images whose class is the place of a bright square, with noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    images = rng.integers(0, 60, (count, 3, side, side), dtype=np.uint8)
    half = side // 2
    for image, label in zip(images, labels, strict=True):
        top, left = divmod(int(label), 2)
        image[:, top * half : (top + 1) * half, left * half : (left + 1) * half] += 120
    ids = [f"{number:064x}" for number in range(count)]
    return Split(StoredImages.new(side).plus(images), labels, ids, np.arange(count))


def vectors_of(split: Split) -> np.ndarray:
    small = split.images[:].reshape(len(split), 3, 4, 3, 4, 3).mean((3, 5)).reshape(len(split), -1)
    return (small - small.mean(0)).astype(np.float32)


def test_a_pool_is_the_same_again_and_keeps_its_promises() -> None:
    train = blobs(400)
    for kind in ("balanced", "long-tail", "bursts", "long-tail-bursts", "outliers"):
        pool, again = (pools.make(kind, train, seed=3) for _ in range(2))
        np.testing.assert_array_equal(pool.images[:], again.images[:])
        assert pool.sample_ids == again.sample_ids == sorted(set(pool.sample_ids))
        real = pool.labels >= 0
        np.testing.assert_array_equal(pool.labels[real], train.labels[pool.origin[real]])
    tail = np.bincount(pools.make("long-tail", train, seed=3).labels, minlength=CLASSES)
    share = np.sort(tail / np.bincount(train.labels))[::-1]
    even = pools.TAIL_RATIO ** -(np.arange(CLASSES) / (CLASSES - 1))
    np.testing.assert_allclose(share, even, atol=1 / 100)  # of about 100 images a class
    bursts = pools.make("bursts", train, seed=3)
    assert 400 + 40 * 4 <= len(bursts.labels) <= 400 + 40 * 40
    gaps = np.abs(bursts.images[bursts.is_copy].astype(int) - train.images[bursts.origin[bursts.is_copy]]).mean()
    assert 0.5 < gaps < 30  # near-copies, and no exact ones
    outliers = pools.make("outliers", train, seed=3)
    assert (outliers.labels == pools.OUTLIER).sum() == 40
    assert pools.make("bursts", train, seed=4).sample_ids != bursts.sample_ids


@pytest.mark.parametrize(
    "strategy", ["stratified-random", "k-center", "typicality", "probability-coverage", "coverage"]
)
def test_what_draws_is_marked_as_seeded(strategy: str) -> None:
    train = blobs(150)
    orders = [
        strategies.order_by_strategy(strategy, vectors_of(train), train.sample_ids, count=60, seed=seed, device="cpu")
        for seed in (0, 1)
    ]
    assert np.array_equal(*orders) == (strategy not in strategies.SEEDED)


@pytest.mark.parametrize("strategy", [name for name in ONE_PASS if name not in ORACLES])
def test_every_order_takes_each_row_once(strategy: str) -> None:
    if strategy == "mundig":
        pytest.importorskip("lightly_mundig")
    train = blobs(150)
    rows = strategies.order_by_strategy(strategy, vectors_of(train), train.sample_ids, count=60, seed=0, device="cpu")
    assert len(rows) >= 60
    assert len(np.unique(rows[:60])) == 60


def test_the_oracle_takes_classes_in_turn_and_outliers_last() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, -1])
    rows = strategies.class_balanced(labels, [str(i) for i in range(10)], seed=1)
    assert sorted(labels[rows[:3]]) == sorted(labels[rows[3:6]]) == [0, 1, 2]
    assert labels[rows[-1]] == -1
    assert sorted(rows) == list(range(10))


def with_labels(train: Split, budgets: list[int], labels: np.ndarray | None = None) -> np.ndarray:
    labels = train.labels if labels is None else labels
    vectors, ids = vectors_of(train), train.sample_ids
    picks, seconds = strategies.order_with_labels(vectors, ids, labels, budgets=budgets, device="cpu")
    assert len(picks) == len(set(picks.tolist())) == budgets[-1]
    assert (np.diff(seconds) > 0).all()
    assert len(seconds) == len(budgets)
    return picks


def uncounted(
    kernel: np.ndarray, is_beyond: np.ndarray, covered: np.ndarray, place: int, near_value: float
) -> np.ndarray:
    """What does not count of rows' gains for themselves when `place` are picked, by docs/concepts.md#tail."""
    second = np.sort(np.where(is_beyond, kernel, 0.0), axis=1)[:, -2]
    lowered = (1 - np.median(second)) * min(1.0, 2 * place / (len(kernel) - place))
    own = 1 - covered
    return np.asarray(np.minimum(own - np.minimum(own, 1 - near_value) / 16, lowered))


def greedy_shares(train: Split, picks: np.ndarray, budgets: list[int], *, is_steered: bool) -> np.ndarray:
    """Each pick's gain over the largest at its step, in float64, by all pairs anew at every pick."""
    vectors = vectors_of(train).astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    distances = np.sqrt(np.maximum(2 - 2 * vectors @ vectors.T, 0))
    scale = rank(vectors_of(train), SelectionParams(), sample_ids=train.sample_ids).scale
    kernel, shares = np.exp(-((distances / scale) ** 2)), []
    for known, until in zip([0, *budgets], budgets, strict=False):
        rest = np.setdiff1d(np.arange(len(vectors)), picks[:known])
        weights = 1.0 / (distances[np.ix_(rest, rest)] <= min(0.25, scale * 2 / 3)).sum(1)
        if known and is_steered:
            pool, labelled = vectors[rest].astype(np.float32), vectors[picks[:known]].astype(np.float32)
            named = [(str(label),) for label in train.labels[picks[:known]]]
            votes, others = Votes(named, len(rest)), prepare(labelled)
            marks, table = np.arange(known, dtype=np.int32), kernel_table("gaussian", scale)
            cover_by(prepare(pool), others, table, new_state(len(rest)), marks=marks, on_bits=votes.add)
            say = listen(votes, pool, others, labelled, order=np.arange(len(rest)))
            assert say.is_heard
            weights *= say.factors
        near = min(0.25, scale * 2 / 3)
        for place in range(known, until):
            covered = kernel[np.ix_(picks[:place], rest)].max(0, initial=0.0)
            gains = np.maximum(kernel[np.ix_(rest, rest)] - covered, 0.0) @ weights
            if not known:  # all weigh the same, so there is a tail
                gains -= uncounted(kernel, distances > near, covered, place, np.exp(-((near / scale) ** 2))) * weights
            shares.append(gains[np.searchsorted(rest, picks[place])] / gains.max())
    return np.array(shares)


def test_coverage_with_labels_takes_what_a_slow_reference_takes() -> None:
    train, budgets = blobs(400), [20, 50, 90]
    picks = with_labels(train, budgets)
    # distances are rounded by 0.2 %, which is more of a gain once most is covered
    assert greedy_shares(train, picks, budgets, is_steered=True).min() > 0.95
    assert greedy_shares(train, picks, budgets, is_steered=False)[20:].min() < 0.9


def test_coverage_with_labels_begins_as_coverage_and_sees_no_label_before_it_is_back() -> None:
    train = blobs(300)
    vectors, ids = vectors_of(train), train.sample_ids
    once = strategies.order_by_strategy("coverage", vectors, ids, count=80, seed=0, device="cpu")
    picks = with_labels(train, [20, 40, 80])
    np.testing.assert_array_equal(picks[:20], once[:20])
    assert not np.array_equal(picks, once[:80])
    np.testing.assert_array_equal(with_labels(train, [20, 40]), picks[:40])
    others = (train.labels + 1) % CLASSES
    others[picks[:20]] = train.labels[picks[:20]]
    np.testing.assert_array_equal(with_labels(train, [20, 40], others), picks[:40])
    none = np.full(300, pools.OUTLIER)
    np.testing.assert_array_equal(with_labels(train, [20, 300], none)[:20], picks[:20])


def predictions(count: int = 60, labelled: int = 5, seed: int = 0) -> Predictions:
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.randn(count, CLASSES, generator=generator).softmax(1)
    dropped = torch.randn(7, count, CLASSES, generator=generator).softmax(2).mean(0)
    features = torch.randn(count, 6, generator=generator)
    return Predictions(probabilities, features, torch.randn(labelled, 6, generator=generator), dropped)


@pytest.mark.parametrize("query", ["least-confidence", "margin", "entropy", "mc-dropout", "core-set", "dal", "badge"])
@pytest.mark.parametrize("count", [1, 13, 60])
def test_a_query_names_distinct_rows_and_repeats_itself(query: str, count: int) -> None:
    first, again = (
        queries.ask(query, predictions(), count, generator=torch.Generator().manual_seed(1)) for _ in range(2)
    )
    assert len(first) == count
    assert len(set(first.tolist())) == count
    assert 0 <= first.min() <= first.max() < 60
    torch.testing.assert_close(first, again)


def test_badge_among_rows_that_are_all_alike_takes_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    alike = Predictions(torch.full((200, CLASSES), 1 / CLASSES), torch.zeros(200, 6), torch.zeros(5, 6))
    # memory that nobody wrote may hold anything, valid rows too
    monkeypatch.setattr(torch, "empty", lambda *shape, **kinds: torch.full(shape, 150, **kinds))
    assert queries.ask("badge", alike, 100, generator=torch.Generator()).tolist() == list(range(100))


def test_doubt_by_hand() -> None:
    sure, torn, split = [0.98, 0.01, 0.01, 0.0], [0.5, 0.49, 0.01, 0.0], [0.4, 0.2, 0.2, 0.2]
    held = Predictions(torch.tensor([sure, torn, split]), torch.zeros(3, 2), torch.zeros(1, 2))
    generator = torch.Generator()
    assert queries.ask("margin", held, 1, generator=generator).item() == 1
    assert queries.ask("least-confidence", held, 1, generator=generator).item() == 2
    assert queries.ask("entropy", held, 1, generator=generator).item() == 2
    quarrel, agreed = torch.tensor([[1.0, 0.0], [0.4, 0.6]]), torch.tensor([[0.45, 0.55]] * 2)
    held = Predictions(torch.zeros(2, 2), torch.zeros(2, 2), torch.zeros(1, 2), torch.stack([quarrel, agreed]).mean(1))
    assert queries.ask("mc-dropout", held, 1, generator=generator).item() == 1  # in doubt most, though draws agree


def test_the_mean_of_a_hundred_draws_agrees_with_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    train = blobs(90)
    tensors = [torch.from_numpy(a) for a in (vectors_of(train), train.labels)]
    learner = loops.ProbeLearner(*tensors, *tensors, classes=CLASSES, dropout=loops.DROPOUT)
    learner.fit(np.arange(20), seed=3)
    state = learner.generator.get_state()
    monkeypatch.setattr(loops, "CHUNK", 7)
    ours = learner.predict(np.arange(20, 90), np.arange(20), has_draws=True).dropout_probabilities
    assert loops.DRAWS == 100
    masks = linear_probe.dropout_mask(
        (100, tensors[0].shape[1]), loops.DROPOUT, learner.generator.set_state(state), "cpu"
    )
    ready = (tensors[0][20:] - learner.probe.mean) / learner.probe.scale
    draws = [((ready * mask) @ learner.probe.weight + learner.probe.bias).softmax(1) for mask in masks]
    torch.testing.assert_close(ours, torch.stack(draws).mean(0))


def test_a_loop_with_dropout_is_judged_without_it_where_it_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = blobs(60), blobs(80, seed=1)
    held = {"labels": torch.from_numpy(train.labels), "test_labels": torch.from_numpy(test.labels), "classes": CLASSES}
    vectors = {"vectors": torch.from_numpy(vectors_of(train)), "test_vectors": torch.from_numpy(vectors_of(test))}
    images = {"images": train.images, "test_images": torch.from_numpy(test.images[:])}
    recipe = ScratchRecipe(8, effort=0.05, has_flips=False)

    def learners(dropout: float) -> list[loops.Learner]:
        of_images = loops.ScratchLearner(**images, **held, recipe=replace(recipe, dropout=dropout))
        return [loops.ProbeLearner(**vectors, **held, dropout=dropout), of_images]

    arguments = {"start": np.arange(60), "seed": 0, "candidates": 40, "reported": [8]}
    told, fit_probe, train_network = [], linear_probe.fit_probe, network.train

    def watched_probe(*args: Any, dropout: float, **kinds: Any) -> linear_probe.Probe:
        told.append(dropout)
        return fit_probe(*args, dropout=dropout, **kinds)

    def watched_network(*args: Any, recipe: ScratchRecipe, **kinds: Any) -> network.ScratchNetwork:
        told.append(recipe.dropout)
        return train_network(*args, recipe=recipe, **kinds)

    monkeypatch.setattr(linear_probe, "fit_probe", watched_probe)
    monkeypatch.setattr(network, "train", watched_network)
    for learner, plain in zip(learners(loops.DROPOUT), learners(0.0), strict=True):
        told.clear()
        first, last = loops.run_loop("mc-dropout", learner, train.labels, [4, 8], **arguments)
        assert told == [loops.DROPOUT, loops.DROPOUT, 0.0]
        assert np.isnan(first.accuracy)
        plain.fit(last.picks, seed=0)
        assert last.accuracy == plain.accuracy()


def test_core_set_agrees_with_a_plain_loop() -> None:
    held = predictions(40)
    known, expected = held.labelled_features, []
    for _ in range(8):
        gap = torch.cdist(held.features, known).amin(1)
        expected.append(int(gap.argmax()))
        known = torch.cat([known, held.features[expected[-1:]]])
    assert queries.ask("core-set", held, 8, generator=torch.Generator()).tolist() == expected


def test_badge_keeps_distances_of_whole_gradients() -> None:
    held = predictions(30)
    errors = held.probabilities.clone()
    errors[torch.arange(30), errors.argmax(1)] -= 1
    gradients = (errors.unsqueeze(2) * held.features.unsqueeze(1)).flatten(1)
    first = queries.ask("badge", held, 1, generator=torch.Generator()).item()
    assert first == int(gradients.norm(dim=1).argmax())
    rows = queries.ask("badge", held, 10, generator=torch.Generator().manual_seed(0))
    spread = torch.pdist(gradients[rows]).mean()
    assert spread > torch.pdist(gradients).mean()


def test_nearest_agrees_with_a_plain_loop() -> None:
    train, test = blobs(90), blobs(40, seed=1)
    ours = judges.nearest_accuracy(
        *(torch.from_numpy(a) for a in (vectors_of(train), train.labels, vectors_of(test), test.labels)),
        classes=CLASSES,
    )
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (vectors_of(train), vectors_of(test))]
    hits = 0
    for vector, answer in zip(unit[1], test.labels, strict=True):
        near = np.argsort(-(unit[0] @ vector))[:20]
        votes = np.bincount(train.labels[near], np.exp((unit[0] @ vector)[near] / 0.07), minlength=CLASSES)
        hits += votes.argmax() == answer
    assert ours == pytest.approx(hits / 40)


def test_one_near_label_outvotes_more_that_are_far() -> None:
    train = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.6, -0.8]])  # cosines to the question: 1, 0.6, 0.6
    question, answer = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    assert judges.nearest_accuracy(train, torch.tensor([0, 1, 1]), question, answer, classes=CLASSES) == 1.0


def test_few_labels_teach_more_by_the_main_directions_than_by_all_alike() -> None:
    draw = np.random.default_rng(0)
    codes = draw.integers(0, 5, 2000)
    values = np.concatenate([draw.normal(size=(5, 6))[codes] + 0.5 * draw.normal(size=(2000, 6)),
                             0.1 * draw.normal(size=(2000, 200))], axis=1).astype(np.float32)  # fmt: skip
    given, asked = (torch.from_numpy(values[rows]) for rows in (slice(0, 60), slice(60, None)))
    labels, answers = (torch.from_numpy(codes[rows]) for rows in (slice(0, 60), slice(60, None)))
    found = [
        judges.probe_accuracy(
            linear_probe.fit_probe(given, labels, classes=5, is_equalised=is_equalised), asked, answers
        )
        for is_equalised in (False, True)
    ]
    assert found[0] > found[1] + 0.2
    # one size for all numbers changes nothing
    again = linear_probe.fit_probe(7.0 * given + 1.0, labels, classes=5)
    torch.testing.assert_close(
        again.weight, linear_probe.fit_probe(given, labels, classes=5).weight, atol=1e-3, rtol=1e-2
    )


def test_a_probe_learns_and_repeats_itself() -> None:
    train, test = blobs(60), blobs(200, seed=1)
    values, labels = torch.from_numpy(vectors_of(train)), torch.from_numpy(train.labels)
    probes = [linear_probe.fit_probe(values, labels, classes=CLASSES) for _ in range(2)]
    torch.testing.assert_close(probes[0].weight, probes[1].weight)
    got = judges.probe_accuracy(probes[0], torch.from_numpy(vectors_of(test)), torch.from_numpy(test.labels))
    assert got > 0.95


def test_the_network_from_scratch_learns_follows_its_seed_and_leaves_torchs_generator_alone() -> None:
    train, test = blobs(64), blobs(100, seed=1)
    recipe = ScratchRecipe(8, effort=0.15, has_flips=False)
    images, labels = torch.from_numpy(train.images[:]), torch.from_numpy(train.labels)
    before = torch.random.get_rng_state()
    first = network.train(images, labels, classes=CLASSES, recipe=recipe, seed=5)
    assert torch.equal(before, torch.random.get_rng_state())
    again = network.train(images, labels, classes=CLASSES, recipe=recipe, seed=5)
    torch.testing.assert_close(first.head.weight, again.head.weight, rtol=0, atol=0)
    got = network.accuracy(first, torch.from_numpy(test.images[:]), torch.from_numpy(test.labels), has_flips=False)
    assert got > 0.5


def test_the_schedule_gives_small_sets_more_passes_and_large_ones_more_steps() -> None:
    recipe = ScratchRecipe(16)
    passes = [steps * batch / n for n in (500, 5000, 20_000) for batch, steps in [recipe.schedule(n)]]
    assert passes[0] > passes[1] > passes[2]
    assert passes[1] == pytest.approx(40, rel=0.02)
    batch, steps = ScratchRecipe(16, largest_batch=64).schedule(5000)
    assert (batch, steps * batch / 5000) == (64, pytest.approx(40, rel=0.02))


def test_augmentation_shifts_and_mirrors_but_invents_nothing() -> None:
    images = torch.arange(3 * 8 * 8, dtype=torch.uint8).view(1, 3, 8, 8).repeat(50, 1, 1, 1)
    views = network.augmented(images, ScratchRecipe(8), torch.Generator().manual_seed(0))
    known = set(network.normalised_pixels(images[:1]).flatten().tolist())
    assert set(views.flatten().tolist()) <= known
    assert len({tuple(view.flatten().tolist()) for view in views}) > 5


def test_a_loop_goes_through_its_counts_and_goes_on_after_a_kill() -> None:
    train, test = blobs(300), blobs(100, seed=1)
    tensors = [torch.from_numpy(a) for a in (vectors_of(train), train.labels, vectors_of(test), test.labels)]
    start = strategies.random_order(train.sample_ids, seed=0)

    def rounds(query: str, last: loops.Round | None = None) -> list[loops.Round]:
        learner = loops.ProbeLearner(*tensors, classes=CLASSES, dropout=loops.DROPOUT if query == "mc-dropout" else 0.0)
        counts = loops.label_counts([20, 60], rounds=2)
        arguments = {"start": start, "seed": 0, "candidates": 100, "last": last, "reported": [20, 60]}
        return list(loops.run_loop(query, learner, train.labels, counts, **arguments))

    for query in ("margin", "badge", "mc-dropout"):
        whole = rounds(query)
        assert [len(one.picks) for one in whole] == [4, 12, 20, 40, 60]
        assert [one.label_waits for one in whole] == [1, 2, 3, 4, 5]
        assert len(set(whole[-1].picks.tolist())) == 60
        rest = rounds(query, last=whole[2])
        np.testing.assert_array_equal(rest[-1].picks, whole[-1].picks)
        assert rest[-1].accuracy == whole[-1].accuracy


def loop_of(query: str, counts: list[int], *, candidates: int, labels: np.ndarray | None = None) -> list[loops.Round]:
    train, test = blobs(300), blobs(100, seed=1)
    labels = train.labels if labels is None else labels
    tensors = [torch.from_numpy(a) for a in (vectors_of(train), labels, vectors_of(test), test.labels)]
    learner = loops.ProbeLearner(*tensors, classes=CLASSES)
    start = strategies.random_order(train.sample_ids, seed=0)
    arguments = {"reported": counts, "start": start, "seed": 0, "candidates": candidates}
    return list(loops.run_loop(query, learner, labels, counts, **arguments))


def test_a_loops_clock_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []

    class OnCuda:
        device = torch.device("cuda")

        def fit(self, rows: np.ndarray, seed: int) -> None:
            told.append("fit")

        def accuracy(self) -> float:
            told.append("accuracy")
            return 0.5

        def predict(self, rows: np.ndarray, labelled: np.ndarray, *, has_draws: bool) -> Predictions:
            told.append("predict")
            return predictions(len(rows))

    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: told.append(device.type))
    arguments = {"reported": [8], "start": np.arange(60), "seed": 0, "candidates": 40}
    assert len(list(loops.run_loop("margin", OnCuda(), np.zeros(60, np.int64), [4, 8], **arguments))) == 2
    assert told == ["cuda", "fit", "cuda", "cuda", "predict", "cuda", "cuda", "fit", "cuda", "accuracy"]


def test_a_loop_starts_with_the_smallest_budget_at_most() -> None:
    assert loops.label_counts([1, 10], rounds=2) == [1, 5, 10]
    assert loops.label_counts([2], rounds=3) == [2]
    assert [len(one.picks) for one in loop_of("margin", loops.label_counts([1, 4], rounds=1), candidates=100)] == [1, 4]


@pytest.mark.parametrize("query", ["margin", "core-set", "dal", "badge"])
def test_a_round_that_asks_for_more_than_its_candidates_looks_at_more(query: str) -> None:
    last = loop_of(query, [4, 60], candidates=10)[-1]
    assert len(last.picks) == len(set(last.picks.tolist())) == 60


def test_a_loop_asks_at_random_until_a_label_names_a_class() -> None:
    train = blobs(300)
    labels = train.labels.copy()
    labels[strategies.random_order(train.sample_ids, seed=0)[:4]] = pools.OUTLIER
    rounds = loop_of("margin", [2, 4, 40], candidates=296, labels=labels)
    assert [len(one.picks) for one in rounds] == [2, 4, 40]
    assert rounds[0].accuracy == 0.0
    assert rounds[-1].accuracy > 1 / CLASSES
