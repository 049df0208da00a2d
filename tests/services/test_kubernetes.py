"""The Kubernetes template as Prefect's own worker for Kubernetes fills it in, and as Kubernetes' client reads the job.

`prefect-kubernetes` and what it needs beyond our own packages go into a folder of this test: installed beside Prefect
they would be loaded by every run of the other tests.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
TEMPLATE = Path(__file__).parents[2] / "deployments" / "kubernetes" / "base-job-template.json"
PACKAGES = ["prefect-kubernetes>=0.8,<0.9", "kopf", "kubernetes_asyncio", "tenacity", "iso8601", "pyOpenSSL"]
FILL_IN = """
import asyncio, json, sys
from uuid import uuid4
from kubernetes_asyncio.client import ApiClient
from prefect.client.schemas.objects import FlowRun
from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

async def main():
    template, values = json.load(open(sys.argv[1])), {"env": {"A": "b"}, "gpus": 1}
    filled = await KubernetesWorkerJobConfiguration.from_template_and_values(template, values, client=object())
    filled.prepare_for_flow_run(FlowRun(id=uuid4(), flow_id=uuid4(), name="three new shards"))
    async with ApiClient() as client:
        read = client._ApiClient__deserialize(filled.job_manifest, "V1Job")
        print(json.dumps(client.sanitize_for_serialization(read)))

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("kubernetes")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *PACKAGES]
    subprocess.run(install, check=True, timeout=300)
    env = {**os.environ, "PYTHONPATH": str(folder), "PREFECT_HOME": str(folder / "home")}
    command = [sys.executable, "-c", FILL_IN, str(TEMPLATE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=env)
    assert done.returncode == 0, done.stderr
    read: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return read


def test_prefects_worker_makes_a_job_that_runs_the_flow_in_our_image(job: dict[str, Any]) -> None:
    (container,) = job["spec"]["template"]["spec"]["containers"]
    # The image's own entry point is `wtl`, which knows nothing of Prefect's command.
    assert [*container["command"], *container["args"]] == ["/usr/bin/env", "prefect", "flow-run", "execute"]
    assert {"name": "A", "value": "b"} in container["env"]
    assert container["resources"]["limits"] == {"memory": "8Gi", "nvidia.com/gpu": "1"}


def test_the_job_is_bounded_and_not_root(job: dict[str, Any]) -> None:
    assert job["spec"]["backoffLimit"] == 0
    pod = job["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod["volumes"][0]["emptyDir"]["medium"] == "Memory"
