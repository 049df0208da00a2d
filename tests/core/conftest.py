"""For tests of the core: a server with S3's interface, moto's in this process; and two threads in selection."""

from collections.abc import Iterator

import pytest

from tests.conftest import S3_KEYS, use_s3


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a fresh server with the bucket `team`."""
    import boto3  # here: most tests of the core need neither
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    use_s3(monkeypatch, url, {**S3_KEYS, "AWS_REGION": "us-east-1"})
    boto3.client("s3", endpoint_url=url).create_bucket(Bucket="team")
    yield url
    server.stop()


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Selection's own pools, which are as wide as torch's, have two threads although torch has one."""
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
