"""The feature store: spec, shards, catalog, verification. Knows HDF5 and numpy, not Keras."""

from headstart.cache.catalog import LeftOut
from headstart.cache.fill import Filling, RowId, Rows, tidy
from headstart.cache.pack import pack
from headstart.cache.spec import Spec
from headstart.cache.store import Store
from headstart.cache.verify import Verification, verify

__all__ = [
    "Filling",
    "LeftOut",
    "RowId",
    "Rows",
    "Spec",
    "Store",
    "Verification",
    "pack",
    "tidy",
    "verify",
]
