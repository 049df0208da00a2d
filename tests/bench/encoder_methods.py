"""Ways to train that were compared with the one in `wtl_core`, over the same data path, network and schedule."""

import copy

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from wtl_core.training.trainer import Trainer


def unit_projections(trainer: Trainer, rows: np.ndarray, generator: torch.Generator) -> torch.Tensor:
    """(views x rows, D) of unit length, one view of all rows after the other."""
    seen = trainer.inputs(rows, trainer.plan.views, generator)
    return functional.normalize(trainer.projector(trainer.features(seen)).float(), dim=1)


def with_predictor(trainer: Trainer) -> nn.Module:
    """What predicts a projection from another one; the trainer's optimiser learns it too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(trainer.plan.seed + 1)
        predictor = nn.Sequential(
            nn.Linear(128, 1024, bias=False), nn.BatchNorm1d(1024), nn.ReLU(), nn.Linear(1024, 128)
        ).to(trainer.device)
    trainer.optimizer.add_param_group({"params": list(predictor.parameters())})
    return predictor


class CodingRate(Trainer):
    """Many views pulled to their mean while the batch's volume grows (EMP-SSL, arXiv:2304.03977)."""

    eps, weight = 0.2, 200.0

    def loss(self, rows: np.ndarray, generator: torch.Generator) -> torch.Tensor:
        count = self.plan.views
        projected = unit_projections(self, rows, generator)
        by_view = projected.view(count, len(rows), -1)
        agreement = functional.cosine_similarity(by_view, by_view.mean(dim=0, keepdim=True), dim=2).mean()
        dimensions = by_view.shape[2]
        gram = by_view @ by_view.transpose(1, 2) * (dimensions / (len(rows) * self.eps))
        rate = torch.logdet(torch.eye(len(rows), device=gram.device) + gram).mean() / 2
        return -(self.weight * agreement + rate) / 100


class Decoupled(Trainer):
    """Contrast without the positives in the denominator (DCL, arXiv:2110.06848)."""

    def loss(self, rows: np.ndarray, generator: torch.Generator) -> torch.Tensor:
        count = self.plan.views
        unit = unit_projections(self, rows, generator)
        logits = unit @ unit.T / self.plan.temperature
        image = torch.arange(len(unit), device=unit.device) % len(rows)
        is_same = image.unsqueeze(0) == image.unsqueeze(1)
        own = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
        among = torch.logsumexp(logits.masked_fill(is_same, float("-inf")), dim=1)
        right = (logits * (is_same & ~own)).sum(dim=1) / (count - 1)
        return (among - right).mean()


class Redundancy(Trainer):
    """Two views' correlation matrix towards the identity (Barlow Twins, arXiv:2103.03230)."""

    trade = 5e-3

    def loss(self, rows: np.ndarray, generator: torch.Generator) -> torch.Tensor:
        seen = self.inputs(rows, 2, generator)
        first, second = self.projector(self.features(seen)).float().chunk(2)
        first, second = ((z - z.mean(0)) / z.std(0).clamp(min=1e-5) for z in (first, second))
        cross = first.T @ second / len(rows)
        on = (cross.diagonal() - 1).square().sum()
        off = cross.square().sum() - cross.diagonal().square().sum()
        return (on + self.trade * off) * 0.1


class Variance(Trainer):
    """Two views drawn together while every dimension keeps its spread and shares none (VICReg, arXiv:2105.04906)."""

    agreement, spread, independence = 25.0, 25.0, 1.0

    def loss(self, rows: np.ndarray, generator: torch.Generator) -> torch.Tensor:
        seen = self.inputs(rows, 2, generator)
        first, second = self.projector(self.features(seen)).float().chunk(2)
        total = self.agreement * functional.mse_loss(first, second)
        for z in (first - first.mean(0), second - second.mean(0)):
            deviation = (z.square().sum(0) / (len(rows) - 1) + 1e-4).sqrt()
            covariance = z.T @ z / (len(rows) - 1)
            off = covariance.square().sum() - covariance.diagonal().square().sum()
            total = total + self.spread * functional.relu(1 - deviation).mean() / 2
            total = total + self.independence * off / z.shape[1]
        return total / 25


class MomentumContrast(Trainer):
    """The other view's right answer comes from a slowly moving copy of the network (MoCo v3, arXiv:2104.02057)."""

    momentum = 0.99

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.teacher = copy.deepcopy(nn.ModuleList([self.network, self.projector]))
        self.teacher_forward = (
            torch.compile(self.teacher[0], dynamic=False) if self.device.type == "cuda" else self.teacher[0]
        )
        self.predictor = with_predictor(self)

    def asked_and_keys(self, rows: np.ndarray, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        """Of two views: what the network predicts, twice, and the slow copy's projections, twice; of unit length."""
        seen = self.inputs(rows, 2, generator)
        asked = functional.normalize(self.predictor(self.projector(self.features(seen))).float(), dim=1)
        with torch.no_grad():
            student = [*self.network.parameters(), *self.projector.parameters()]
            torch._foreach_lerp_(list(self.teacher.parameters()), student, 1 - self.momentum)
            with torch.autocast(self.device.type, torch.bfloat16):
                features = self.teacher_forward(seen)
            keys = functional.normalize(self.teacher[1](features.float()), dim=1)
        return *asked.chunk(2), *keys.chunk(2)

    def loss(self, rows: np.ndarray, generator: torch.Generator) -> torch.Tensor:
        first, second, left, right = self.asked_and_keys(rows, generator)
        target = torch.arange(len(rows), device=first.device)
        warm = self.plan.temperature
        return functional.cross_entropy(first @ right.T / warm, target) + functional.cross_entropy(
            second @ left.T / warm, target
        )


class SelfDistilled(MomentumContrast):
    """No negatives at all: predict the slow copy's projection of the other view (BYOL, arXiv:2006.07733)."""

    def loss(self, rows: np.ndarray, generator: torch.Generator) -> torch.Tensor:
        first, second, left, right = self.asked_and_keys(rows, generator)
        return 4 - 2 * (first * right).sum(1).mean() - 2 * (second * left).sum(1).mean()


class FastSiam(Trainer):
    """Each view predicts the mean of the others' projections; no negatives, no slow copy (FastSiam, 2022)."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.predictor = with_predictor(self)

    def loss(self, rows: np.ndarray, generator: torch.Generator) -> torch.Tensor:
        seen = self.inputs(rows, self.plan.views, generator)
        projected = self.projector(self.features(seen)).float()
        asked = functional.normalize(self.predictor(projected), dim=1).view(self.plan.views, len(rows), -1)
        unit = functional.normalize(projected.detach(), dim=1).view_as(asked)
        others = functional.normalize(unit.sum(0) - unit, dim=2)
        return 1 - (asked * others).sum(2).mean()
