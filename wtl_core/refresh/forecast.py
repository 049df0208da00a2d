"""How long a refresh takes and what it needs, told before it starts: a rule for each stage, and measured rates.

The rates are those of `rates.toml`, which a bench writes; a sample of the source gives better ones (`source_sample`),
and what earlier refreshes of the workspace took on such a machine corrects both (`learnt`). Imports no torch.
"""

import logging
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import resources
from statistics import median
from typing import Any

import numpy as np

from wtl_core.machine import Machine, duration
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.forecasts import Forecast, Hardware, Work

_log = logging.getLogger("wtl_core.progress")  # what a user hears without asking for more

_WORTH_TELLING = 20.0
"""Seconds from which on an expected duration is told: a shorter run is over before it is read."""
_LEAST_SECONDS = 2.0
"""A stage that took less, or was to take less, teaches nothing: starting it, or one wait, makes up most of that."""
REMEMBERED = 5
"""Refreshes that corrections are taken from: the last ones, since sources change."""
_GIB = 2**30


@dataclass(frozen=True)
class Rates:
    """What stages cost: the tables of `rates.toml`, and by stage a factor that earlier refreshes correct it by."""

    tables: Mapping[str, Any] = field(repr=False)
    factors: Mapping[str, float] = field(default_factory=dict)

    def with_measured(self, stage: str, **values: float) -> "Rates":
        """With values of a stage that were measured now, for this source and machine; nothing corrects them."""
        tables = {**self.tables, stage: {**self.tables[stage], **values}}
        return Rates(tables, {name: factor for name, factor in self.factors.items() if name != stage})


@dataclass(frozen=True)
class StageForecast:
    """What one stage is expected to take.

    Attributes:
        stage: Its name.
        seconds: Of the wall.
        gib: Peak memory of one machine.
        stored_bytes: What it adds to the workspace.
        passing_bytes: What it writes there besides, and deletes when it ends.
    """

    stage: str
    seconds: float
    gib: float
    stored_bytes: float
    passing_bytes: float = 0.0


def hardware_of(machine: Machine) -> Hardware:
    """A machine as stages use it: a process or thread of each worker, and its GPUs if it is to use them."""
    return Hardware(cores=machine.workers, gpus=0 if machine.device == "cpu" else machine.devices)


@lru_cache(maxsize=1)
def shipped_rates() -> Rates:
    """The rates that come with this version."""
    text = resources.files(__package__).joinpath("rates.toml").read_text("utf-8")
    return Rates(tomllib.loads(text))


def expected(work: Work, hardware: Hardware, rates: Rates) -> list[StageForecast]:
    """Each stage of a refresh, in the order of the stages.

    Decoding, embedding and what is ranked by regions spread evenly over all cores and machines. Selection at once and
    report take what they took on the machine of the rates, whatever is beside it, since most of their work is done by
    one process: by a straight line between the measured sizes (of logarithms), which is prolonged beyond them.
    """
    t, cores = rates.tables, hardware.machines * hardware.cores
    decoding = work.images * t["ingest"]["seconds_per_image"] + work.megabytes * t["ingest"]["seconds_per_megabyte"]
    stages = [
        StageForecast("plan", work.objects * t["plan"]["seconds_per_object"], 0.2, 0.0),
        StageForecast(
            "ingest",
            decoding / cores,
            t["ingest"]["gib"] + hardware.cores * t["ingest"]["gib_per_core"] if work.images else 0.0,
            1e6 * work.megabytes * work.keeps_bytes + work.images * t["ingest"]["stored_bytes_per_image"],
        ),
        StageForecast("encoder", _encoder_seconds(work, rates), t["encoder"]["gib"] if work.to_embed else 0.0, 0.0),
        StageForecast(
            "embedding",
            _embedding_seconds(work, hardware, rates, decoding=decoding),
            _embedding_gib(t["embedding"], hardware) if work.to_embed else 0.0,
            work.to_embed * (2.0 * work.dimensions + t["embedding"]["stored_bytes_per_image"]),
        ),
        _selection(work, hardware, rates),
        StageForecast(
            "report",
            _report_seconds(t, work),
            _at(t["report"], "gib", work.pool) if work.pool else 0.0,
            work.pool * t["report"]["stored_bytes_per_image"],
        ),
    ]
    return [replace(one, seconds=one.seconds * rates.factors.get(one.stage, 1.0)) for one in stages]


def of_run(work: Work, hardware: Hardware, commits: Sequence[Commit]) -> Forecast:
    """What a refresh is expected to take after `commits`, the workspace's last ones."""
    rates = learnt(shipped_rates(), hardware, commits)
    return Forecast(
        hardware=hardware,
        work=work,
        seconds={one.stage: round(one.seconds, 3) for one in expected(work, hardware, rates)},
    )


def log(made: Forecast) -> None:
    """Tell how long a run is expected to take, if it is not over at once."""
    total = sum(made.seconds.values())
    if total >= _WORTH_TELLING:
        parts = ", ".join(f"{stage} {duration(value)}" for stage, value in made.seconds.items() if value >= 1)
        _log.info("expected: about %s: %s", duration(total), parts)


def learnt(rates: Rates, hardware: Hardware, commits: Sequence[Commit]) -> Rates:
    """The rates, corrected by what earlier refreshes on such hardware took: for each stage the median of the ratios.

    A refresh with a new encoder teaches nothing: much of it is done once.
    """
    ratios: dict[str, list[float]] = {}
    for commit in commits[:REMEMBERED]:
        if commit.forecast is None or commit.forecast.hardware != hardware or commit.forecast.work.is_new_encoder:
            continue
        for one in expected(commit.forecast.work, hardware, replace(rates, factors={})):
            took = commit.seconds.get(one.stage, 0.0)
            if min(took, one.seconds) >= _LEAST_SECONDS:
                ratios.setdefault(one.stage, []).append(took / one.seconds)
    return replace(rates, factors={stage: median(found) for stage, found in ratios.items()})


def _encoder_seconds(work: Work, rates: Rates) -> float:
    if work.encoder_seconds is not None:
        return work.encoder_seconds
    table = rates.tables["encoder"]
    return min(float(table["seconds"]), float(table["seconds_per_image"]) * work.to_embed)


def _embedding_seconds(work: Work, hardware: Hardware, rates: Rates, *, decoding: float) -> float:
    """Cores decode and, where there is no GPU, compute; on GPUs both go on at once."""
    table, cores = rates.tables["embedding"], hardware.machines * hardware.cores
    units, rate = (hardware.machines * hardware.gpus, "gpu") if hardware.gpus else (cores, work.network)
    whole = work.pool / float(table[rate]) / units
    computing = work.to_embed / float(table[rate]) / units * _scale(work, table, whole)
    if not hardware.gpus:
        return computing
    share = work.to_embed / work.images if work.images else 0.0
    return max(computing, share * decoding * float(table["decoding_share"]) / cores)


def _scale(work: Work, table: Mapping[str, Any], seconds: float) -> float:
    """Time of the network over what it takes at the side of the rates, by which the whole pool takes `seconds`.

    `auto` takes a larger side, and a second network, as far as its time goes for the whole pool.
    """
    if work.side_px is not None:
        return float((work.side_px / table["side_px"]) ** 2)
    if work.auto_seconds is None or not seconds:
        return 1.0
    return min(float(table["auto_scale"]), max(1.0, float(table["auto_share"]) * work.auto_seconds / seconds))


def _embedding_gib(table: Mapping[str, Any], hardware: Hardware) -> float:
    """One process for the whole machine; on a cluster each core, or each GPU, has a worker with its own network."""
    processes = table["gib"]
    if hardware.machines > 1:
        processes = max(processes, (hardware.gpus or hardware.cores) * table["gib_per_worker"])
    return float(processes + hardware.cores * table["gib_per_core"])


def _selection(work: Work, hardware: Hardware, rates: Rates) -> StageForecast:
    """Ranking and ladder; by regions, a part is one process's and the rest is spread."""
    table, stored = rates.tables["selection"], work.pool * rates.tables["selection"]["stored_bytes_per_image"]
    if work.regions_from is None or work.pool < work.regions_from:
        seconds, gib = (_at(table, name, work.pool) if work.pool else 0.0 for name in ("seconds", "gib"))
        return StageForecast("selection", seconds, gib, stored)
    by_regions = rates.tables["regions"]
    spread = by_regions["core_seconds_per_image"] / (hardware.machines * hardware.cores)
    gib = work.pool * by_regions["gib_per_image"] + hardware.cores * by_regions["gib_per_core"]
    vectors = 2.0 * work.dimensions * by_regions["passing_vectors_per_image"]
    return StageForecast(
        "selection",
        work.pool * (by_regions["seconds_per_image"] + spread),
        gib,
        stored,
        work.pool * (vectors + by_regions["passing_bytes_per_image"]),
    )


def _report_seconds(tables: Mapping[str, Any], work: Work) -> float:
    if not work.pool:
        return 0.0
    once = _at(tables["map"], "seconds", work.pool) if work.is_new_encoder else 0.0
    return _at(tables["report"], "seconds", work.pool) + once


def _at(table: Mapping[str, Any], name: str, rows: int) -> float:
    """A measured curve at a number of rows: by straight lines between the logarithms, the outermost prolonged."""
    x, y = np.log(table["rows"]), np.log(table[name])
    place = int(np.clip(np.searchsorted(x, np.log(max(1, rows))), 1, len(x) - 1))
    slope = (y[place] - y[place - 1]) / (x[place] - x[place - 1])
    return float(np.exp(y[place - 1] + slope * (np.log(max(1, rows)) - x[place - 1])))


def stored_gib(stages: Sequence[StageForecast]) -> float:
    """What all stages add to the workspace."""
    return sum(one.stored_bytes for one in stages) / _GIB
