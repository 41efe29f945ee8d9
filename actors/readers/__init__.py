"""Readers of the journal. Each is handed every committed entry, keeps a checkpoint, and is idempotent by offset."""
