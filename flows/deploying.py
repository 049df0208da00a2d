"""Everything that a Prefect server must know of a site: variables, work pool, limits, deployments, automations.

Each step may be repeated; the files under `deployments/` say what is applied.
"""

import asyncio
import os
import subprocess
import sys
from contextlib import suppress
from typing import Any

import yaml
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.variables import Variable

from flows.site_values import FOLDER, Site
from wtl_core.errors import ConfigError, TransientError

DEVICE_TAG = "wtl-device"
_DEPLOY_SECONDS = 300


def deploy(site: Site, *, pool_type: str = "process") -> None:
    """Apply a site to the server that PREFECT_API_URL names.

    Raises:
        ConfigError: the notification block is not on the server.
        TransientError: the server did not take the deployments.
    """
    for name, value in site.variables().items():
        Variable.set(name, value, overwrite=True)
    asyncio.run(_prepare(site, pool_type))
    _apply_deployments()


async def _prepare(site: Site, pool_type: str) -> None:
    async with get_client() as client:
        await _ensure_pool(client, site.work_pool, pool_type)
        await client.create_concurrency_limit(tag=DEVICE_TAG, concurrency_limit=site.device_limit)
        block = await _notification_block(client, site.notification_block)
        for name in _automation_names():
            await _drop_automation(client, name)
        for values in _automations(block):
            await client.create_automation(AutomationCore.model_validate(values))


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


def _automations(block: str | None) -> list[dict[str, Any]]:
    """The automations to apply; those that notify get the block's id, and are left out where there is none."""
    automations: list[dict[str, Any]] = yaml.safe_load((FOLDER / "automations.yaml").read_text())
    kept = []
    for automation in automations:
        notifying = [action for action in automation["actions"] if action["type"] == "send-notification"]
        for action in notifying:
            action["block_document_id"] = block
        if block is not None or not notifying:
            kept.append(automation)
    return kept


def _automation_names() -> list[str]:
    """All of the file: those that are left out this time may be on the server from an earlier time."""
    return [automation["name"] for automation in yaml.safe_load((FOLDER / "automations.yaml").read_text())]


async def _drop_automation(client: PrefectClient, name: str) -> None:
    for old in await client.read_automations_by_name(name):
        await client.delete_automation(old.id)


def _apply_deployments() -> None:
    """Prefect's own command reads `prefect.yaml`; it works without a network."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    command += ["--prefect-file", str(FOLDER / "prefect.yaml")]
    try:
        done = subprocess.run(  # noqa: S603, our own command
            command, capture_output=True, text=True, timeout=_DEPLOY_SECONDS, env=os.environ, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise TransientError(f"the deployments were not applied within {_DEPLOY_SECONDS} s; try again") from error
    if done.returncode != 0:
        raise TransientError(f"the deployments were not applied:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
