"""The feature store: spec, shards, catalog, verification. Knows HDF5 and numpy, not Keras."""

from headstart.cache._files import (
    SEAL_BYTES,
    check_seal,
    publish_bytes,
    publishing,
    sealed,
    sha256_of,
)
from headstart.cache.catalog import LeftOut
from headstart.cache.draft import Draft
from headstart.cache.fill import Filling, RowId, Rows, tidy, write_rows
from headstart.cache.mirror import Mirror, local_store
from headstart.cache.pack import pack
from headstart.cache.progress import Progress
from headstart.cache.spec import Spec
from headstart.cache.store import Store
from headstart.cache.verify import Verification, verify
from headstart.cache.widening import widened

__all__ = [
    "SEAL_BYTES",
    "Draft",
    "Filling",
    "LeftOut",
    "Mirror",
    "Progress",
    "RowId",
    "Rows",
    "Spec",
    "Store",
    "Verification",
    "check_seal",
    "local_store",
    "pack",
    "publish_bytes",
    "publishing",
    "sealed",
    "sha256_of",
    "tidy",
    "verify",
    "widened",
    "write_rows",
]
