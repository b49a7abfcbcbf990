"""Every error Headstart raises on purpose: what was expected, what was found, what to do."""

from __future__ import annotations


class HeadstartError(Exception):
    """Base of all errors a user can mend; the command line prints it as one line."""


class DataError(HeadstartError, ValueError):
    """The dataset cannot be used as it is (missing, empty, one class only, ...)."""


class DataNotFoundError(DataError, FileNotFoundError):
    """The dataset, or a part of it, is not there or cannot be read."""


class UnreadableImageError(DataError):
    """One picture cannot be decoded; its reason goes to the ledger and the run goes on."""


class ImageMemoryError(UnreadableImageError, MemoryError):
    """One picture needs more memory than there is now; the next run tries it again."""


class WeightsError(HeadstartError, ValueError):
    """The base's weights cannot be had, or are not the ones expected."""


class LayerError(HeadstartError, ValueError):
    """The base has no such layer, or a layer cannot be cut at."""


class StoreError(HeadstartError):
    """A store cannot be used."""


class StoreNotFoundError(StoreError, FileNotFoundError):
    """There is no store at this path."""


class StoreVersionError(StoreError, ValueError):
    """The store was written in a format this version does not know."""


class SpecMismatchError(StoreError, ValueError):
    """The store holds features of another spec than the one asked for."""


class CorruptStoreError(StoreError, OSError):
    """A file of the store is missing or damaged; no row of it has been served."""


class HeadError(HeadstartError, ValueError):
    """A head is unknown, or cannot be trained on these rows."""


class FewPicturesError(HeadError):
    """A class has too few different pictures for the folds.

    Attributes
    ----------
    folds : int
        How many folds there are pictures for; below 2, none.
    """

    def __init__(self, message: str, folds: int = 0) -> None:
        super().__init__(message)
        self.folds = folds


class ModelError(HeadstartError, ValueError):
    """A model file is no model, is damaged, or does not fit what it is used with."""


class ParityError(ModelError):
    """A network to be exported does not answer as the model does; nothing was written."""


class MissingExtraError(HeadstartError, ImportError):
    """An optional package is needed; the message names the extra to install."""


def install(extra: str) -> str:
    """Return how an extra is installed: Headstart is on no index, so from its clone.

    Examples
    --------
    >>> install("plots")
    "install the extra 'plots': pip install './headstart[plots]', where ./headstart is the clone"
    """
    return (
        f"install the extra {extra!r}: pip install './headstart[{extra}]', "
        "where ./headstart is the clone"
    )


class ClusterError(HeadstartError):
    """A cluster cannot be reached, or has nothing to compute on."""


class InterruptedRunError(HeadstartError):
    """The user stopped a run; the message says what is kept."""
