"""Writes a site's configuration into a Prefect server: variables, work pool, limits, deployments, automations.

Each step may be repeated; the files under `deployments/` say what is applied. What belongs to one site bears its name.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import yaml
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.schemas.automations import Automation, AutomationCore
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.types import MAX_VARIABLE_VALUE_LENGTH
from prefect.variables import Variable
from pydantic import ValidationError

from flows.serving.site_values import Site, read_template
from tasks.prefect_side.device import DEVICE_TAG
from wtl_core.errors import ConfigError, TransientError

_DEPLOY_SECONDS = 300
_SHORTER = {
    "sources": "name a folder or prefix above them, or one text file that lists shards and images",
    "recipe": "run it once by `wtl run --recipe FILE`, and leave it out here: the workspace's last recipe holds",
}


def deploy(site: Site, *, pool_type: str = "process") -> None:
    """Apply a site to the server that PREFECT_API_URL names.

    Raises:
        ConfigError: what `check` refuses, before anything is written, or the notification block is not on the server.
        TransientError: the server did not take the deployments.
    """
    check(site)
    for name, value in site.variables().items():
        Variable.set(name, value, overwrite=True)
    asyncio.run(_prepare(site, pool_type))
    _apply_deployments(site)


def check(site: Site) -> None:
    """Refuse what Prefect would refuse when half of the site is written.

    Raises:
        ConfigError: a time that is no cron, an unknown time zone, or a value that is too long for a variable.
    """
    for key, cron in {"nightly": site.nightly, "weekly": site.weekly, **site.labelling_times}.items():
        try:
            CronSchedule(cron=cron, timezone=site.timezone)
        except ValidationError as error:
            is_timezone = error.errors()[0]["loc"] == ("timezone",)
            wrong, found = ("timezone", site.timezone) if is_timezone else (key, cron)
            raise ConfigError(
                f"{wrong} = {found!r}: expected a cron such as `0 3 * * *`, five fields, in a time zone "
                "such as `Europe/Berlin`; mend it in the site file"
            ) from error
    for name, value in site.variables().items():
        length = len(json.dumps(value))
        if length > MAX_VARIABLE_VALUE_LENGTH:
            key = name.removeprefix(f"{site.prefix}_")
            raise ConfigError(
                f"{key}: expected at most {MAX_VARIABLE_VALUE_LENGTH:,} characters of JSON, which a Prefect variable "
                f"holds, found {length:,}; {_SHORTER.get(key, 'shorten it')}"
            )


async def _prepare(site: Site, pool_type: str) -> None:
    async with get_client() as client:
        await _ensure_pool(client, site.work_pool, pool_type)
        await client.create_concurrency_limit(tag=DEVICE_TAG, concurrency_limit=site.device_limit)
        block = await _notification_block(client, site.notification_block)
        for name, wanted in automations(site, block).items():
            await _apply_automation(client, name, wanted)


async def _ensure_pool(client: PrefectClient, name: str, pool_type: str) -> None:
    with suppress(ObjectAlreadyExists):
        await client.create_work_pool(WorkPoolCreate(name=name, type=pool_type))


async def _notification_block(client: PrefectClient, name: str | None) -> str | None:
    """The id of a block named `type/name`."""
    if name is None:
        return None
    kind, _, block = name.partition("/")
    try:
        found = await client.read_block_document_by_name(name=block, block_type_slug=kind)
    except ObjectNotFound as error:
        raise ConfigError(f"notification_block = {name!r}: the server has no such block; make it in the UI") from error
    return str(found.id)


def automations(site: Site, block: str | None) -> dict[str, AutomationCore | None]:
    """A site's automations by name; those that notify get the block's id, and are None where there is no block."""
    found: dict[str, AutomationCore | None] = {}
    for values in yaml.safe_load(read_template("automations", site)):
        notifying = [action for action in values["actions"] if action["type"] == "send-notification"]
        for action in notifying:
            action["block_document_id"] = block
        is_left_out = bool(notifying) and block is None
        found[values["name"]] = None if is_left_out else AutomationCore.model_validate(values)
    return found


async def _apply_automation(client: PrefectClient, name: str, wanted: AutomationCore | None) -> None:
    """Make, update or delete the automation of that name.

    One that is the same is left alone: an update gives its trigger a new id, and with the old one goes what it waits
    for, such as the next heartbeat of a run whose worker has just died. A person's pause is kept.
    """
    held = await client.read_automations_by_name(name)
    for unwanted in held if wanted is None else held[1:]:
        await client.delete_automation(unwanted.id)
    if wanted is None:
        return
    if not held:
        await client.create_automation(wanted)
    elif not _is_same(held[0], wanted):
        await client.update_automation(held[0].id, wanted.model_copy(update={"enabled": held[0].enabled}))


def _is_same(held: Automation, wanted: AutomationCore) -> bool:
    fields = {"name", "description", "trigger", "actions"}
    return held.model_dump(include=fields) == wanted.model_dump(include=fields)


def _apply_deployments(site: Site) -> None:
    """Prefect's own command reads `prefect.yaml`, with the site's name put in; it works without a network."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "prefect.yaml"
        file.write_text(read_template("prefect", site))
        _run_deploy(file)


def _run_deploy(file: Path) -> None:
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file)]
    try:
        done = subprocess.run(  # noqa: S603, our own command
            command, capture_output=True, text=True, timeout=_DEPLOY_SECONDS, env=os.environ, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise TransientError(f"the deployments were not applied within {_DEPLOY_SECONDS} s; try again") from error
    if done.returncode != 0:
        raise TransientError(f"the deployments were not applied:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
