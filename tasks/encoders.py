"""The encoder stage as tasks: the workspace's own, a pretrained one by name, one trained on the pool, the next one."""

from prefect import task

from tasks import artifacts
from tasks.progress import reported
from tasks.retries import STAGE
from tasks.settings import machine
from wtl_core import pipeline, pool, refresh, training_images
from wtl_core.commits import Commit
from wtl_core.encoders import names, succession, training
from wtl_core.errors import ConfigError
from wtl_core.pipeline import EncoderRef, Run
from wtl_core.recipe import EncoderParams
from wtl_core.storage import Store


@task(name="encoder", tags=["wtl-device"], **STAGE)
def ensure_encoder(run: Run, counts: dict[str, int]) -> EncoderRef:
    """The encoder that the recipe names, trained here if the workspace has none; `counts` says the pool is there."""
    with reported("encoder", "steps") as on_progress:
        encoder = pipeline.ensure_encoder(run, on_progress=on_progress)
    artifacts.publish_encoder(run, encoder)
    return encoder


@task(name="train-next", tags=["wtl-device"], **STAGE)
def train_next(store: Store, last: Commit, params: EncoderParams) -> str:
    """Train an encoder on the pool of the last refresh and name it the workspace's next; its fingerprint."""
    if not names.is_trained_here(last.encoder_name):
        raise ConfigError(
            f"{store.root}: expected an encoder that is trained here, found {last.encoder_name!r}; change to one by "
            "`wtl run --encoder ssl`, which trains it at once"
        )
    here = machine()
    live = pool.load(store, refresh.read_snapshot(store, last.listing), filters=last.recipe.ingest.filters)
    images = training_images.of_pool(store, live.samples, endpoint_url=here.endpoint_url)
    with reported("encoder", "steps") as on_progress:
        fingerprint = training.train(images, store, params, device=here.device, on_progress=on_progress)
    succession.name_successor(store, fingerprint)
    return fingerprint
