"""The values of a site (`deployments/site.toml`), and the Prefect variables and templates filled from them."""

import tomllib
from pathlib import Path
from string import Template
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.prefect_side.event_resources import workspace_resource
from wtl_core.errors import ConfigError
from wtl_core.labelling.tools.params import ToolParams
from wtl_core.recipe.base import message_of
from wtl_core.recipe.recipe import build_recipe
from wtl_core.refresh.sources import source_uri

FOLDER = Path(__file__).parents[2] / "deployments"
"""Data only, beside the packages: in a checkout, and in what the wheel installs of it."""


class Labelling(ToolParams):
    """A project of a labelling tool, and when images go there and labels come back."""

    hand_out: str = "*/15 * * * *"
    """Cron of the look whether few tasks wait, so that the next batch is due."""
    take_back: str = "5 * * * *"
    """Cron of the look for finished labels; a refresh follows if there are any."""


class Site(BaseModel):
    """The values of one workspace's deployments."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = Field("default", pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=40)
    """Suffix of the deployments' names, so that one server can serve several workspaces."""
    workspace: str = ""
    """A folder or an `s3://` prefix; must be named here or by `--workspace`."""
    sources: list[str] = Field([], min_length=1)
    """Folders, `s3://` prefixes, shards or lists of URIs; all that the workspace knows if none is named."""
    work_pool: str = "wtl"
    """The work pool whose workers execute the runs."""
    nightly: str = "0 3 * * *"
    """Cron of the refresh that reads all sources, whatever events were lost."""
    weekly: str = "0 5 * * 0"
    """Cron of house-keeping: the flow `maintain`."""
    timezone: str = "UTC"
    """Time zone of both crons."""
    watch_seconds: int = Field(30, ge=5, le=86400)  # every 2 s, cancelled looks kept SQLite locked for minutes
    """Seconds between two runs of the watch; each lists all sources, which a bucket bills."""
    debounce_seconds: int = Field(5, ge=0, le=3600)
    """Seconds from an arrival's event to its run; further events within that time start no run of their own."""
    quiet_seconds: float = Field(5, ge=0, le=600)
    """A refresh waits until no new object has appeared for this many seconds, but at most 11 times that."""
    at_least: int = Field(1, ge=1)
    """Least number of new and changed objects that starts a refresh."""
    novelty: float | None = Field(None, ge=0, le=1)
    """Start a refresh only if at least this share of the new images is far from everything that is labelled."""
    device_limit: int = Field(1, ge=1, le=1024)
    """How many tasks may use a device at the same time, over all runs of the server."""
    notification_block: str | None = Field(None, pattern=r"^[^/]+/[^/]+$")
    """Type and name of the notification block that failures are sent to."""
    time_limit_hours: float = Field(24, ge=0, le=8784)
    """A run that is still at work after this many hours fails; 0 for no limit. A run of the watch has one hour."""
    labelling: Labelling | None = None
    """The project of a labelling tool that images go to and labels come back from; none if not given."""
    recipe: dict[str, Any] = {}
    """As in a recipe file; if empty, the workspace's last recipe holds."""

    @property
    def prefix(self) -> str:
        """Prefix of the site's variables, unique on a server; Prefect allows no dash in their names."""
        return f"wtl_{self.name.replace('-', '_')}"

    @property
    def workspace_uri(self) -> str:
        """The workspace as an absolute path, or its URI."""
        return source_uri(self.workspace)

    @property
    def source_uris(self) -> list[str]:
        """The sources as absolute paths, or their URIs."""
        return [source_uri(source) for source in self.sources]

    @property
    def labelling_times(self) -> dict[str, str]:
        """The crons of the flows that speak to the tool; where there is none, those that it would have."""
        names = ("hand_out", "take_back")
        return {name: getattr(self.labelling, name, Labelling.model_fields[name].default) for name in names}

    def variables(self) -> dict[str, Any]:
        """The Prefect variables that `prefect.yaml` refers to."""
        recipe = build_recipe(self.recipe, name="recipe").with_absolute_paths() if self.recipe else None
        times, tool = self.labelling_times, self.labelling
        return {
            f"{self.prefix}_workspace": self.workspace_uri,
            f"{self.prefix}_sources": self.source_uris,
            f"{self.prefix}_resource": workspace_resource(self.workspace_uri),
            f"{self.prefix}_work_pool": self.work_pool,
            f"{self.prefix}_nightly": self.nightly,
            f"{self.prefix}_weekly": self.weekly,
            f"{self.prefix}_hand_out": times["hand_out"],
            f"{self.prefix}_take_back": times["take_back"],
            f"{self.prefix}_labelling": None if tool is None else tool.model_dump(mode="json", exclude=set(times)),
            f"{self.prefix}_timezone": self.timezone,
            f"{self.prefix}_debounce_seconds": self.debounce_seconds,
            f"{self.prefix}_quiet_seconds": self.quiet_seconds,
            f"{self.prefix}_at_least": self.at_least,
            f"{self.prefix}_novelty": self.novelty,
            f"{self.prefix}_time_limit_hours": self.time_limit_hours,
            f"{self.prefix}_recipe": None if recipe is None else recipe.model_dump(mode="json"),
        }


def read_site(path: Path | None, **overrides: Any) -> Site:
    """The site file (the shipped one if None) with the overrides that are not None.

    Raises:
        ConfigError: no such file, not TOML, an unknown key, or a value out of range.
    """
    path = path or FOLDER / "site.toml"
    try:
        values = {**tomllib.loads(path.read_text()), **{key: value for key, value in overrides.items() if value}}
        site = Site.model_validate(values)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: expected a site file in TOML: {error}; run from a checkout or name one") from error
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, d['loc']))}: {message_of(d)}, found {d['input']!r}" for d in error.errors()
        )
        raise ConfigError(f"{path}: {faults}; the valid keys are {', '.join(Site.model_fields)}") from error
    if site.recipe:
        build_recipe(site.recipe, name=str(path)).with_absolute_paths()  # refuses an encoder's name of unknown form
    return site


def read_template(name: str, site: Site) -> str:
    """The text of `deployments/<name>.yaml` for a site, with the site's placeholders filled in."""
    text = (FOLDER / f"{name}.yaml").read_text()
    return Template(text).substitute(
        site=site.name,
        variables=site.prefix,
        watch_seconds=site.watch_seconds,
        has_tool="true" if site.labelling is not None else "false",
        failed_looks_seconds=max(3600, 10 * site.watch_seconds),
    )


def read_settings(name: str) -> dict[str, str]:
    """The settings of `deployments/<name>.env`, as environment variables."""
    lines = (FOLDER / f"{name}.env").read_text().splitlines()
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip() for key, value in pairs}
