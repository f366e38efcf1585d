"""Lifecycle: expiry and retention, compaction of old runs, erasure with a receipt."""
