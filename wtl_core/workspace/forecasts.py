"""What a refresh was expected to take, as its commit keeps it: the work, the machine, and each stage's seconds."""

from pydantic import BaseModel, ConfigDict


class Hardware(BaseModel):
    """What a refresh runs on."""

    model_config = ConfigDict(frozen=True, extra="allow")

    machines: int = 1
    """Machines of this kind that share the work; 1 without a cluster."""
    cores: int
    """Of each machine: processes that decode, and threads of the network where there is no GPU."""
    gpus: int = 0
    """Of each machine."""


class Work(BaseModel):
    """What a refresh has to do, as its plan tells before an image is read."""

    model_config = ConfigDict(frozen=True, extra="allow")

    objects: int
    """Files, shards and rows of lists that are listed."""
    images: int
    """Images to read: an estimate where shards hold them."""
    megabytes: float
    """Of these images' files or shards."""
    keeps_bytes: bool = True
    """Whether the pool keeps these bytes too, and does not refer to them."""
    to_embed: int
    """Images that have no vector yet."""
    pool: int
    """Images of the pool afterwards."""
    regions_from: int | None = None
    """The size from which on the pool is ranked by regions, spread over all cores; None where it never is."""
    network: str
    """What embeds them: `package`, `own` or `pixels`, as the rates tell them apart."""
    side_px: int | None = None
    """Image side of the network; None for one that has its own."""
    auto_seconds: float | None = None
    """What features may cost, where networks and side follow from that (`encoder = "auto"`); None elsewhere."""
    dimensions: int = 256
    """Numbers of a vector."""
    is_new_encoder: bool = False
    """Whether the report's map is fitted, as at the first refresh by an encoder."""
    encoder_seconds: float | None = None
    """What making the encoder may take: 0 where the workspace has it; None where the rates tell it."""


class Forecast(BaseModel):
    """What was expected of a refresh before it began."""

    model_config = ConfigDict(frozen=True, extra="allow")

    hardware: Hardware
    work: Work
    seconds: dict[str, float]
    """Wall-clock seconds of each stage."""
