"""The embedding stage as tasks: plan the missing vectors, embed some ten thousand images a task, finish the table."""

from prefect import task

from tasks.prefect_side import artifacts
from tasks.prefect_side.device import device_tags
from tasks.prefect_side.progress import reported
from tasks.prefect_side.retries import STAGE
from wtl_core import pipeline
from wtl_core.embedding.chunks import ChunkResult, Embedded, EmbeddingChunk
from wtl_core.encoders.encoder_ref import EncoderRef
from wtl_core.workspace.run import Run


@task(name="plan-embedding", **STAGE)
def plan_embedding(run: Run, encoder: EncoderRef) -> list[EmbeddingChunk]:
    """Chunks of the samples without a vector of this encoder."""
    return pipeline.plan_embedding(run, encoder)


@task(name="embed", task_run_name="embed part {chunk.number}: {chunk.samples} images", tags=device_tags(), **STAGE)
def embed_chunk(run: Run, encoder: EncoderRef, chunk: EmbeddingChunk) -> ChunkResult:
    """Vectors of one chunk, committed to the table as they are made."""
    with reported("embedding", "images") as on_progress:
        return pipeline.embed_chunk(run, encoder, chunk, on_progress=on_progress)


@task(name="finish-embedding", **STAGE)
def finish_embedding(run: Run, encoder: EncoderRef, results: list[ChunkResult]) -> Embedded:
    """See that no vector is missing; compact the table."""
    embedded = pipeline.finish_embedding(run, encoder, results)
    artifacts.publish_vectors(run, encoder, embedded)
    return embedded
