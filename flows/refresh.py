"""The flow `refresh`: from whatever changed in the sources to a ranking, its ladder and a report."""

from prefect import flow

from tasks.arrivals import wait_until_quiet
from tasks.embedding import embed_chunk, finish_embedding, plan_embedding
from tasks.encoders import ensure_encoder
from tasks.ingest import gather_pool, ingest_parts
from tasks.prefect_side.crashes import check_crashes
from tasks.prefect_side.failures import show_failure
from tasks.prefect_side.time_limits import limited
from tasks.refresh import commit, make_record, plan_refresh, publish_result, write_report
from tasks.selection import select
from tasks.workspaces import hold, open_for_refresh
from wtl_core.machine import Stopwatch
from wtl_core.recipe.recipe import Recipe
from wtl_core.refresh.outcome import Results
from wtl_core.report.summary import Summary


@flow(name="refresh", on_failure=[show_failure])
@limited
def refresh(
    workspace: str,
    sources: list[str] | None = None,
    recipe: Recipe | None = None,
    allow_removal: bool = False,
    quiet_seconds: float = 0,
    patience_seconds: float = 0,
    forget: list[str] | None = None,
    time_limit_hours: float = 0,
    known_too: bool = False,
) -> Summary:
    """Bring a workspace up to date with its sources.

    Args:
        workspace: A folder or an `s3://` prefix; made if it is not there.
        sources: Folders, buckets, shards or lists of URIs to read again; all known ones if none is named.
        recipe: What changes the result; the workspace's last recipe if none is given.
        allow_removal: Go on although more than half of a source has vanished.
        quiet_seconds: Wait until no new object has appeared for this many seconds, but at most 11 times that. 0 starts
            at once.
        patience_seconds: Wait this many seconds for another writer of the workspace to end; then the run is refused.
        forget: Known sources that leave the workspace with all their images, whether they are still there or not.
        time_limit_hours: The run fails when it is still at work after this many hours; 0 for no limit.
        known_too: Read all other known sources again as well, and not the named ones alone.
    """
    check_crashes()
    store = open_for_refresh(workspace)
    if quiet_seconds:
        wait_until_quiet(store, sources or [], quiet_seconds, include_known=known_too, forget=forget or [])
    with hold(store, patience_seconds) as held:
        stopwatch = Stopwatch()
        run = plan_refresh(
            store, sources or [], recipe, allow_removal=allow_removal, forget=forget or [], include_known=known_too
        )
        if run.is_noop:
            return publish_result(run, None)
        stopwatch.lap("plan", before_seconds=run.planned_before_seconds)
        # Called and not submitted: in the main thread a cancellation stops the work before the lease is given back.
        for batch in range(run.batches):
            ingest_parts(run, batch)
        pool = gather_pool(run)
        stopwatch.lap("ingest")
        encoder = ensure_encoder(run)
        stopwatch.lap("encoder")
        embeddings = [embed_chunk(run, encoder, chunk) for chunk in plan_embedding(run, encoder)]
        embedded = finish_embedding(run, encoder, embeddings)
        stopwatch.lap("embedding")
        selection = select(run, encoder)
        stopwatch.lap("selection")
        record = make_record(run, Results(pool, encoder, embedded, selection, stopwatch.seconds))
        record = write_report(run, record, held)
        commit(run, record, held)
        return publish_result(run, record)
