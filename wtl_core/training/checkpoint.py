"""Unfinished trainings on disk, below `encoders/.training/<key>/`: the committed plan, one checkpoint, the outcome.

Safetensors and JSON only. A checkpoint is replaced in one write, so a kill leaves either the old one or the new one.
"""

import json
import logging
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from wtl_core.encoders.cards import CARD, FOLDER, read_head
from wtl_core.errors import CorruptArtifactError
from wtl_core.training.sizing import TrainingPlan, plan_from_json
from wtl_core.workspace.storage import Store

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """Everything that the rest of a training depends on. Random numbers are functions of the step, so none are kept.

    Attributes:
        step: Steps done.
        tensors: Weights, running statistics and momenta by name.
        history: The figures of each check of the training's health so far.
    """

    step: int
    tensors: dict[str, torch.Tensor]
    history: list[dict[str, Any]]


@dataclass(frozen=True)
class TrainingFolder:
    """Where one training keeps its state."""

    store: Store
    key: str

    def path(self, name: str) -> str:
        """The store key of one of its files."""
        return f"{FOLDER}/.training/{self.key}/{name}"

    def load_plan(self) -> TrainingPlan | None:
        """The committed plan; None before the commit."""
        try:
            return plan_from_json(json.loads(self.store.read_bytes(self.path("plan.json"))))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise self._broken("plan.json", error) from error

    def commit_plan(self, plan: TrainingPlan) -> TrainingPlan:
        """Commit a plan for good; returns the committed plan, which is an earlier one if there was one."""
        self.store.create(self.path("plan.json"), json.dumps(plan.to_json(), indent=2, sort_keys=True).encode())
        committed = self.load_plan()
        assert committed is not None
        return committed

    def load_checkpoint(self) -> Checkpoint | None:
        """The latest checkpoint; None before the first one. A broken file counts as none: its steps are repeated."""
        try:
            data = self.store.read_bytes(self.path("checkpoint.safetensors"))
        except FileNotFoundError:
            return None
        try:
            head = read_head(data) or {}
            return Checkpoint(head["step"], load_tensors(data), head["history"])
        except (SafetensorError, ValueError, KeyError) as error:
            where = self.store.path(self.path("checkpoint.safetensors"))
            _log.warning("training: %s cannot be read (%s); it begins again", where, error)
            return None

    def save_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint."""
        head = {"wtl": json.dumps({"step": checkpoint.step, "history": checkpoint.history})}
        tensors = {key: value.detach().cpu().contiguous() for key, value in checkpoint.tensors.items()}
        self.store.write_bytes(self.path("checkpoint.safetensors"), save_tensors(tensors, head))

    def outcome(self) -> str | None:
        """The fingerprint of the finished encoder, if it is finished and still there."""
        try:
            digest = str(json.loads(self.store.read_bytes(self.path("outcome.json")))["fingerprint"])
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise self._broken("outcome.json", error) from error
        return digest if self.store.exists(f"{FOLDER}/{digest}/{CARD}") else None

    def _broken(self, name: str, error: Exception) -> CorruptArtifactError:
        where = self.store.path(self.path(name))
        return CorruptArtifactError(
            f"{where}: expected what a training wrote, found something else ({error}); delete its folder and run again"
        )

    def finish(self, fingerprint: str) -> None:
        """Record the outcome, then drop the checkpoint."""
        self.store.write_bytes(self.path("outcome.json"), json.dumps({"fingerprint": fingerprint}).encode())
        self.store.delete(self.path("checkpoint.safetensors"))
