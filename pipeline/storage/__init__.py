"""Object storage and file systems: one store for both, listings, leases, and files inside other files."""

from pipeline.storage.store import Access, Store, StoredFile, brief, parquet_bytes, split_uri

__all__ = ["Access", "Store", "StoredFile", "brief", "parquet_bytes", "split_uri"]
