"""Which project of which labelling tool a workspace's images go to, and how. Imports nothing heavy."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, field_validator

from wtl_core.labelling import addresses
from wtl_core.recipe.base import Params
from wtl_core.recipe.operating_point import OperatingPoint


class ToolParams(Params):
    """A project of a labelling tool that images are handed out to, and whose labels come back."""

    tool: Literal["label-studio"] = "label-studio"
    """The tool. Only Label Studio; for another one there are `wtl export` and `wtl labels add`."""
    url: str = Field(pattern=r"^https?://[^/\s@]+(/[^\s?#]*)?$")
    """Address of the server, as a browser reaches it. It holds no token and no password."""
    project: int = Field(ge=1)
    """Number of the project, as in the address of its page."""
    batch: int = Field(200, ge=1, le=10_000)
    """How many images a batch holds."""
    control: str | None = "10%"
    """How much of a batch is drawn at random, `10%` or a number of images: these are the controls."""
    low: int = Field(100, ge=1, le=100_000)
    """The next batch is handed out when fewer tasks than this wait in the project."""
    urls: Mapping[str, str] = Field(default_factory=dict)
    """Beginnings of images' URIs, those of folders with a `/` at their end, and what the tool opens instead."""
    upload: bool = False
    """Upload images that the tool cannot open by an address: members of archives, files of this machine."""
    class_control: str | None = None
    """Name of the control tag that holds classes, if the project has several that may."""
    rename: Mapping[str, str] = Field(default_factory=dict)
    """Classes of the tool that are entered under another name."""

    @property
    def link(self) -> str:
        """The address of the project's page."""
        return f"{self.url}/projects/{self.project}"

    @field_validator("url")
    @classmethod
    def _without_last_slash(cls, url: str) -> str:
        return url.rstrip("/")

    @field_validator("urls")
    @classmethod
    def _with_absolute_paths(cls, urls: Mapping[str, str]) -> Mapping[str, str]:
        return addresses.absolute(urls)

    @field_validator("control")
    @classmethod
    def _is_share(cls, control: str | None) -> str | None:
        return control if control is None else OperatingPoint.parse(control).text
