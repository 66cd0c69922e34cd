"""Captioned video shards: build, ingest, inspect and read. numpy only; the contract is `reading.batch.Batch`."""
