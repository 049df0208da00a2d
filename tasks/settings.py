"""Settings that describe the machine and change no result: read here from the environment, passed down as arguments."""

import os
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from wtl_core.engines.opening import check_installed
from wtl_core.errors import ConfigError
from wtl_core.recipe.base import message_of

if TYPE_CHECKING:
    from wtl_core.labelling.tools.cvat import Server
    from wtl_core.labelling.tools.label_studio import Project
    from wtl_core.labelling.tools.params import ToolParams
    from wtl_core.machine import Machine


class Settings(BaseSettings):
    """Environment variables with the prefix `WTL_`."""

    model_config = SettingsConfigDict(env_prefix="WTL_", extra="ignore", use_attribute_docstrings=True)

    workers: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1, le=512)
    """Processes that decode at ingest, and threads that decode for the network."""
    device: str = "auto"
    """`auto` (GPUs if there are any), `cpu`, or a device of torch: `cuda:1` uses that GPU alone, `cuda` uses all."""
    s3_endpoint_url: str | None = Field(None, validation_alias=AliasChoices("WTL_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL"))
    """Address of an S3-compatible server; credentials come from the usual AWS environment or files."""
    report_url: str | None = None
    """Where `wtl report --serve` answers, as browsers reach it; artifacts then link to the report of their run."""
    embedding_part_images: int = Field(32_768, ge=64, le=1_000_000)
    """Images in one embedding task, for each GPU. Whatever this is, vectors are stored at least every 4,096 images."""
    engine: Literal["local", "ray"] = "local"
    """What runs the many pieces of a stage: this machine's processes, or [Ray](ray.md). Changes no result."""
    ray_address: str | None = Field(None, pattern=r"^(auto|[^\s/]+:\d+)$")
    """`HOST:PORT` of a Ray cluster, or `auto` on a node of it; if not given, one starts on this machine for the run."""
    ray_worker_cpus: int | None = Field(None, ge=1, le=512)
    """Cores of a Ray worker that embeds or ranks; if not given, 1, or beside GPUs this machine's cores by its GPUs."""
    ray_worker_gpus: float | None = Field(None, ge=0, le=1)
    """GPUs of a Ray worker that embeds or ranks: 1, a share, or 0; if not given, 1 where this machine uses GPUs."""
    label_studio_api_key: SecretStr | None = Field(
        None, validation_alias=AliasChoices("LABEL_STUDIO_API_KEY", "WTL_LABEL_STUDIO_API_KEY")
    )
    """An access token of Label Studio, personal or legacy; also as `LABEL_STUDIO_API_KEY`, as its own SDK has it."""
    cvat_access_token: SecretStr | None = Field(
        None, validation_alias=AliasChoices("CVAT_ACCESS_TOKEN", "WTL_CVAT_ACCESS_TOKEN")
    )
    """A personal access token of CVAT; also as `CVAT_ACCESS_TOKEN`, as its own command line has it."""


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process, read once; both S3 clients learn their address here. Raises ConfigError."""
    try:
        read = Settings()
    except ValidationError as error:
        faults = "; ".join(
            f"{_variable(fault['loc'])}={fault['input']!r}: {message_of(fault)}" for fault in error.errors()
        )
        raise ConfigError(f"environment: {faults}") from error
    if read.s3_endpoint_url is not None:
        os.environ["AWS_ENDPOINT_URL"] = read.s3_endpoint_url  # s3fs and LanceDB take it from there
    return read


def _variable(location: tuple[int | str, ...]) -> str:
    name = str(location[0])
    return name if name.isupper() else f"WTL_{name.upper()}"


def machine() -> "Machine":
    """What the stages need to know of this machine. Imports torch to resolve `auto`."""
    from wtl_core.machine import this_machine

    chosen = settings()
    check_engine()
    found = this_machine(
        workers=chosen.workers, device=chosen.device, embedding_part_images=chosen.embedding_part_images
    )
    uses_gpus = found.device.startswith("cuda")
    gpus = float(uses_gpus) if chosen.ray_worker_gpus is None else chosen.ray_worker_gpus
    cores = found.workers // found.devices if uses_gpus and gpus else 1
    return replace(
        found,
        engine=chosen.engine,
        ray_address=chosen.ray_address,
        ray_worker_cpus=chosen.ray_worker_cpus or max(1, cores),
        ray_worker_gpus=gpus,
    )


def check_engine() -> None:
    """Raise ConfigError where the engine that is set is not installed. Imports little."""
    check_installed(settings().engine)


def open_project(params: "ToolParams") -> "Project":
    """The project of a labelling tool, with the token of this process. Raises ConfigError without a token."""
    from wtl_core.labelling.tools.label_studio import Project  # imports httpx

    token = settings().label_studio_api_key
    return Project(params.url, params.project, None if token is None else token.get_secret_value())


def open_cvat(address: str) -> "Server":
    """A CVAT server, or a project of it, with the token of this process. Raises ConfigError without a token."""
    from wtl_core.labelling.tools.cvat import Server  # imports httpx

    token = settings().cvat_access_token
    return Server(address, None if token is None else token.get_secret_value())
