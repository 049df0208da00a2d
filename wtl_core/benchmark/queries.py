"""Which labels a trained model asks for next: seven methods of active learning, on arrays.

Plain torch and not scikit-activeml: that asks through scikit-learn's estimators on the CPU, and its BADGE lays out
every gradient, N x C x D numbers, which are left factored here. The rules are those of the methods' papers, but for
`dal`: its classifier of labelled and unlabelled is linear and takes 60 steps, where the published one is a network of
three layers.
Legend: `N` rows looked at, `C` classes, `D` features.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional

_DAL_ROUNDS, _DAL_STEPS, _DAL_UNLABELLED = 10, 60, 10_000  # sub-batches, steps of each, unlabelled rows trained on


@dataclass(frozen=True)
class Predictions:
    """A round's predictions for the rows that may be asked for, all on one device.

    Attributes:
        probabilities: (N, C).
        features: (N, D), what the last layer sees.
        labelled_features: (L, D) of the labelled rows.
        dropout_probabilities: (N, C), the mean over Monte-Carlo draws with dropout; only where the query needs them.
    """

    probabilities: torch.Tensor
    features: torch.Tensor
    labelled_features: torch.Tensor
    dropout_probabilities: torch.Tensor | None = None


def ask(query: str, predictions: Predictions, count: int, *, generator: torch.Generator) -> torch.Tensor:
    """`count` distinct rows out of the N, (count,) int64 on the CPU.

    Args:
        query: `least-confidence`, `margin`, `entropy`, `mc-dropout`, `core-set`, `dal` or `badge`.
        predictions: Of the unlabelled rows looked at.
        count: At most N.
        generator: On the CPU, for the queries that draw.
    """
    if query == "core-set":
        rows = _farthest_first(predictions.features, predictions.labelled_features, count)
    elif query == "dal":
        rows = _discriminative(predictions, count, generator)
    elif query == "badge":
        rows = _badge(predictions, count, generator)
    else:
        rows = _doubt(query, predictions).topk(count).indices
    return rows.cpu()


def _doubt(query: str, predictions: Predictions) -> torch.Tensor:
    """(N,), higher for rows to ask for."""
    if query == "least-confidence":
        return -predictions.probabilities.amax(dim=1)
    if query == "margin":
        best = predictions.probabilities.topk(2, dim=1).values
        return best[:, 1] - best[:, 0]
    if query == "entropy":
        return entropy(predictions.probabilities)
    assert query == "mc-dropout", query
    assert predictions.dropout_probabilities is not None
    return entropy(predictions.dropout_probabilities)  # not BALD: as Gissin and Shalev-Shwartz compare it


def entropy(probabilities: torch.Tensor) -> torch.Tensor:
    """Over the last axis, in nats."""
    return -(probabilities * probabilities.clamp(min=1e-12).log()).sum(dim=-1)


def _farthest_first(features: torch.Tensor, labelled: torch.Tensor, count: int) -> torch.Tensor:
    """k-center greedy from the labelled rows on (Sener and Savarese)."""
    lengths = features.square().sum(dim=1)
    nearest = torch.full_like(lengths, torch.inf)
    for chunk in torch.split(labelled, 1024):
        distances = lengths.unsqueeze(1) + chunk.square().sum(dim=1) - 2 * features @ chunk.T
        nearest = torch.minimum(nearest, distances.amin(dim=1))
    picks = torch.empty(count, dtype=torch.int64, device=features.device)
    for number in range(count):
        pick = nearest.argmax()
        picks[number] = pick
        nearest = torch.minimum(nearest, lengths + lengths[pick] - 2 * features @ features[pick])
        nearest[pick] = -torch.inf
    return picks


def _badge(predictions: Predictions, count: int, generator: torch.Generator) -> torch.Tensor:
    """k-means++ on the last layer's gradients for the likeliest label (Ash et al.), kept as factors.

    The gradient of row i is the outer product of (p_i - y_i) and h_i: its products are products of products.
    """
    errors = predictions.probabilities.clone()
    errors[torch.arange(len(errors), device=errors.device), errors.argmax(dim=1)] -= 1.0
    features = predictions.features
    lengths = errors.square().sum(dim=1) * features.square().sum(dim=1)
    picks = torch.full((count,), -1, dtype=torch.int64, device=features.device)
    nearest = torch.full_like(lengths, torch.inf)
    draws = torch.rand(count, generator=generator).to(features.device)
    pick = lengths.argmax()
    for number in range(count):
        picks[number] = pick
        products = (errors @ errors[pick]) * (features @ features[pick])
        nearest = torch.minimum(nearest, (lengths + lengths[pick] - 2 * products).clamp(min=0.0))
        nearest[pick] = 0.0
        # sums of zeros (all rows picked or alike) fall back to the first row left
        chances = nearest.double().cumsum(dim=0)
        pick = torch.searchsorted(chances, (draws[number].double() * chances[-1])).clamp(max=len(nearest) - 1)
        if number % 64 == 63 and not bool(chances[-1] > 0):
            break
    return _distinct(picks, count, len(lengths))


def _distinct(picks: torch.Tensor, count: int, rows: int) -> torch.Tensor:
    """The picks without repeats, filled up with the first rows that are not among them."""
    known: dict[int, None] = dict.fromkeys(row for row in picks.tolist() if 0 <= row < rows)
    for row in range(rows):
        if len(known) >= count:
            break
        known.setdefault(row)
    return torch.tensor(list(known)[:count], dtype=torch.int64)


def _discriminative(predictions: Predictions, count: int, generator: torch.Generator) -> torch.Tensor:
    """Rows that a classifier takes for unlabelled most surely, in ten goes (Gissin and Shalev-Shwartz)."""
    features, labelled = predictions.features, predictions.labelled_features
    mean, scale = features.mean(0), features.std(0).clamp(min=1e-4)
    features, labelled = (features - mean) / scale, (labelled - mean) / scale
    is_free = torch.ones(len(features), dtype=torch.bool, device=features.device)
    picks: list[torch.Tensor] = []
    goes = min(_DAL_ROUNDS, count)
    for go in range(goes):
        wanted = count * (go + 1) // goes - count * go // goes
        free = is_free.nonzero()[:, 0]
        sample = free[torch.randperm(len(free), generator=generator)[:_DAL_UNLABELLED].to(free.device)]
        scores = _unlabelled_score(features, torch.cat([labelled, features[~is_free]]), features[sample])
        chosen = scores.masked_fill(~is_free, -torch.inf).topk(wanted).indices
        is_free[chosen] = False
        picks.append(chosen)
    return torch.cat(picks)


def _unlabelled_score(rows: torch.Tensor, labelled: torch.Tensor, unlabelled: torch.Tensor) -> torch.Tensor:
    """How surely a one-layer classifier takes each row for unlabelled, (N,)."""
    values = torch.cat([labelled, unlabelled])
    answers = torch.cat([torch.zeros(len(labelled)), torch.ones(len(unlabelled))]).to(values.device)
    balance = torch.tensor(len(labelled) / len(unlabelled), device=values.device)
    weight = torch.zeros(values.shape[1], device=values.device, requires_grad=True)
    bias = torch.zeros((), device=values.device, requires_grad=True)
    optimizer = torch.optim.Adam([weight, bias], lr=0.05, weight_decay=1e-4)
    for _ in range(_DAL_STEPS):
        loss = functional.binary_cross_entropy_with_logits(values @ weight + bias, answers, pos_weight=balance)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return (rows @ weight + bias).detach()
