"""Object storage and file systems: one store for both, listings, leases, and files inside other files."""

from pipeline.storage.backoff import STORE_ERRORS, brief
from pipeline.storage.file_systems import Access, StoredFile
from pipeline.storage.preflight import read_text, read_uri
from pipeline.storage.store import Store, split_uri
from pipeline.storage.tables import parquet_bytes

__all__ = [
    "STORE_ERRORS",
    "Access",
    "Store",
    "StoredFile",
    "brief",
    "parquet_bytes",
    "read_text",
    "read_uri",
    "split_uri",
]
