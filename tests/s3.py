"""A local S3 server, and pictures put on it."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Run an S3 server in this process, make s3:// lead to it, and yield a client of it."""
    import boto3
    import s3fs
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    place = f"http://{host}:{port}"
    for name, value in {
        "AWS_ENDPOINT_URL": place,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    urllib.request.urlopen(urllib.request.Request(f"{place}/moto-api/reset", method="POST")).close()
    try:
        client = boto3.client("s3", endpoint_url=place)
        client.create_bucket(Bucket="pets")
        yield client
        client.close()
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        running.stop()


def put(client: Any, folder: Path, prefix: str) -> None:
    """Upload the files below a folder."""
    for file in folder.rglob("*"):
        if file.is_file():
            key = f"{prefix}/{file.relative_to(folder).as_posix()}"
            client.put_object(Bucket="pets", Key=key, Body=file.read_bytes())
