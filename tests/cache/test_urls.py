"""Which URLs are followed, and what is said of the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart.cache.urls import file_system, is_url
from headstart.errors import DataError, DataNotFoundError, MissingExtraError


@pytest.mark.parametrize("text", ["s3://b/x", "zip://::/a.zip", "memory://", "simplecache::s3://b"])
def test_urls(text: str) -> None:
    assert is_url(text)


@pytest.mark.parametrize("text", ["pets", "/a/b", "C:\\pets", "a:b", "./s3:/x", "", Path("s3://b")])
def test_paths(text: object) -> None:
    """A `Path` never is a URL, nor is a Windows drive."""
    assert not is_url(text)


@pytest.mark.parametrize(
    "url", ["ssh://host/x", "reference://x", "zip://::github://x", "python://x", "dask::s3://b"]
)
def test_other_protocols_are_refused(url: str) -> None:
    with pytest.raises(DataError, match="expected one of s3://"):
        file_system(url)


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    """It would be kept in the store, and printed."""
    with pytest.raises(DataError, match="password") as caught:
        file_system("https://me:secret@example.invalid/pets")
    assert "secret" not in str(caught.value)


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the extra."""

    def absent(_: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", absent)
    with pytest.raises(MissingExtraError, match=r"headstart\[cloud\]"):
        file_system("s3://pets/x")


def test_a_file_system_that_cannot_be_reached(tmp_path: Path) -> None:
    """Whatever it raises is one typed line."""
    (tmp_path / "no.zip").write_bytes(b"no zip")
    with pytest.raises(DataNotFoundError, match="cannot reach zip://"):
        file_system(f"zip://::{tmp_path}/no.zip")
