"""What ranking a source would take on given hardware, told by its listing, a sample of its images, and rates."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from wtl_core.encoders import loading, resolve
from wtl_core.errors import InputError
from wtl_core.machine import Machine
from wtl_core.recipe.encoder import EncoderParams
from wtl_core.recipe.recipe import Recipe
from wtl_core.refresh import forecast, last_result, planning, source_sample
from wtl_core.refresh.forecast import Rates, StageForecast
from wtl_core.refresh.source_sample import Sample
from wtl_core.training import choosing
from wtl_core.workspace import commits
from wtl_core.workspace.forecasts import Hardware, Work
from wtl_core.workspace.storage import Store

_EMBEDDED = 128
"""Images of the sample that are embedded: a few passes of the network."""


@dataclass(frozen=True)
class SourceForecast:
    """What a refresh of sources is expected to take.

    Attributes:
        sources: As the workspace would know them.
        work: What there is to do; `to_embed` and `pool` follow from the sample.
        sample: What was found in the new objects; None where nothing is new.
        encoder: The encoder that would be used, in words.
        stages: In their order.
    """

    sources: list[str]
    work: Work
    sample: Sample | None
    encoder: str
    stages: list[StageForecast]


def make(
    store: Store, sources: Sequence[str], recipe: Recipe | None, machine: Machine, hardware: Hardware
) -> SourceForecast:
    """List the sources, read and embed a sample of what is new, and forecast each stage. Writes nothing.

    Args:
        store: The workspace that they would go to; it need not exist.
        sources: As `planning.plan` takes them.
        recipe: As `planning.plan` takes it.
        machine: This machine, which the sample is measured on.
        hardware: What the refresh would run on; its cores and GPUs are taken to be like this machine's.

    Raises:
        What `planning.plan` and `resolve.resolve` do; InputError if no image of the sample can be read.
    """
    planned = planning.plan(store, sources, recipe)
    work, earlier = planned.work, commits.readable(store, forecast.REMEMBERED)
    rates = forecast.learnt(forecast.shipped_rates(), hardware, earlier)
    if planned.fresh.is_empty():
        stages = forecast.expected(work, hardware, rates)
        return SourceForecast(planned.sources, work, None, planned.recipe.encoder.name, stages)
    sample = source_sample.draw(planned.fresh, planned.recipe.ingest)
    if not sample.decoded:
        raise InputError(
            f"{', '.join(planned.sources)}: expected images, found none that can be read in {sample.opened:,} of "
            f"{planned.fresh.height:,} objects; `wtl run` lists each with its reason"
        )
    pool = max(0, work.pool - work.images) + sample.images
    to_embed = pool
    if not work.is_new_encoder:  # of images that are only read again the vectors are there
        to_embed = round(sample.images * work.to_embed / work.images) if work.images else sample.images
    work = work.model_copy(update={"images": sample.images, "pool": pool, "to_embed": to_embed})
    rates = rates.with_measured(
        "ingest",
        seconds_per_image=sample.seconds_per_image,
        seconds_per_megabyte=0.0,
        stored_bytes_per_image=sample.stored_bytes_per_image,
    )
    device = machine.device if hardware.gpus else "cpu"
    work, rates, encoder = _with_encoder(store, planned, work, rates, sample, replace(machine, device=device))
    return SourceForecast(planned.sources, work, sample, encoder, forecast.expected(work, hardware, rates))


def _with_encoder(
    store: Store, planned: planning.RefreshPlan, work: Work, rates: Rates, sample: Sample, machine: Machine
) -> tuple[Work, Rates, str]:
    """The work and the rates with the encoder that would be used, timed on the sample, and its name."""
    params = planned.recipe.encoder
    last = planned.last
    if last is not None and last_result.keeps_encoder(store, last, planned.recipe):
        name, side = loading.kept(store, last.encoder) or params.name, params.side_px
    else:
        name, side = _chosen(params, work, sample, store, machine)
    if name == "ssl":
        return work.model_copy(update={"network": "own", "encoder_seconds": float(params.seconds)}), rates, name
    encoder = resolve.resolve(name, store, device=machine.device, side_px=side)
    speed = source_sample.images_per_second(encoder, sample.files[:_EMBEDDED], workers=machine.workers)
    kind = "gpu" if encoder.device.type == "cuda" else work.network
    side_px = None if speed else encoder.side_px  # what was timed needs no scaling by the side
    dimensions = min(encoder.dimensions, work.dimensions)
    work = work.model_copy(update={"side_px": side_px, "auto_seconds": None, "dimensions": dimensions})
    if speed:  # else the encoder takes none of these images, and the shipped rate stands
        rates = rates.with_measured("embedding", **{kind: speed})
    return work, rates, f"{params.name}: {name} at {encoder.side_px} px"


def _chosen(
    params: EncoderParams, work: Work, sample: Sample, store: Store, machine: Machine
) -> tuple[str, int | None]:
    if params.name != "auto":
        return params.name, params.side_px
    choice = choosing.choose(sample.sides_px, store, count=work.to_embed, seconds=params.seconds, device=machine.device)
    return choice.name, choice.side_px
