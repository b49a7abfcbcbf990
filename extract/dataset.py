"""Datasets: which pictures there are, with their labels and splits; none is opened for it."""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from headstart.cache.urls import is_url
from headstart.errors import DataError, DataNotFoundError
from headstart.extract.folders import list_folder, list_url
from headstart.extract.manifest import MANIFESTS, list_manifest, list_paths
from headstart.extract.picture import Dataset, Picture
from headstart.extract.tar import is_tar, list_tars
from headstart.extract.tfds import is_tfds, list_tfds
from headstart.extract.url import Tree

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Dataset", "Picture", "list_dataset"]


def list_dataset(
    data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    labels: Sequence[str | None] | None = None,
) -> Dataset:
    """List the pictures of a dataset, without opening any.

    Parameters
    ----------
    data
        A folder with one subfolder per class; a folder with ``train``, ``validation`` (or ``val``)
        and ``test``, each with one subfolder per class; a manifest, ``.csv`` or ``.parquet``, with
        columns ``path``, ``label`` and optionally ``split``;
        WebDataset's tar files (``pets-{00000..00012}.tar``); the URL of one of these; a name in
        TensorFlow Datasets (``tfds:cats_vs_dogs``); or the paths, or URLs, of pictures.
    labels
        For a list of paths, the class name of each; None or "" where unknown.

    Raises
    ------
    DataNotFoundError
        Where there is nothing at the path, or it cannot be read.
    DataError
        Where what is there is no dataset: no pictures, one class only, ...
    MissingExtraError
        Where a Parquet manifest is given and pyarrow is not installed, a URL and not
        fsspec, or ``tfds:`` and not tensorflow-datasets.

    Examples
    --------
    >>> list_dataset(["1.jpg", "2.jpg"], labels=["cat", "dog"]).classes  # doctest: +SKIP
    ('cat', 'dog')
    """
    if not isinstance(data, str | os.PathLike):
        return list_paths(data, labels)
    if labels is not None:
        raise DataError("labels go with a list of paths; a folder or manifest brings its own")
    if is_tfds(data):
        return list_tfds(str(data))
    if is_tar(data):
        return list_tars(str(data))
    if is_url(data):
        return _by_url(str(data))
    root = Path(data)
    try:
        is_folder = stat.S_ISDIR(root.stat().st_mode)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise DataNotFoundError(
            f"no dataset at {root}: expected a folder or a manifest ({why})"
        ) from error
    return list_folder(root) if is_folder else list_manifest(root)


def _by_url(url: str) -> Dataset:
    if url.lower().startswith("file://"):
        return list_dataset(Path(url[len("file://") :]))
    tree = Tree(url)
    if PurePosixPath(tree.path).suffix.lower() in MANIFESTS:
        return list_manifest(tree.file(tree.path))
    return list_url(tree)
