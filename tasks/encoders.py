"""The encoder stage as tasks: find or train the encoder of a refresh, and train the next one ahead of a refresh."""

from prefect import task

from tasks.prefect_side import artifacts, run_names
from tasks.prefect_side.device import device_tags
from tasks.prefect_side.progress import reported
from tasks.prefect_side.retries import STAGE
from tasks.settings import machine
from wtl_core import pipeline
from wtl_core.encoders import cards
from wtl_core.encoders.encoder_ref import EncoderRef
from wtl_core.recipe.encoder import EncoderParams
from wtl_core.workspace.run import Run
from wtl_core.workspace.storage import Store


@task(name="encoder", tags=device_tags(), **STAGE)
def ensure_encoder(run: Run) -> EncoderRef:
    """The encoder that the recipe names, trained here if it is to be and the workspace has none that serves."""
    with reported("encoder", "steps") as on_progress:
        encoder = pipeline.ensure_encoder(run, on_progress=on_progress)
    artifacts.publish_encoder(run, encoder)
    return encoder


@task(name="train-next", tags=device_tags(), **STAGE)
def train_next(store: Store, params: EncoderParams | None) -> str:
    """Train an encoder on the pool of the last refresh, for the next refresh to use; returns its fingerprint."""
    held = store.names(cards.FOLDER)
    with reported("encoder", "steps") as on_progress:
        fingerprint = pipeline.train_successor(store, params, machine(), on_progress=on_progress)
    card = cards.load_card(store, fingerprint)
    if card is not None:  # a pool of few images leaves a network as it is, and nothing is kept
        run_names.name_training(card, is_new=fingerprint not in held)
    return fingerprint
