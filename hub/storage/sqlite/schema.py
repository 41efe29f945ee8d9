"""Tables, and how a store of an earlier version becomes one of this version.

`MIGRATIONS[n]` takes hub.db from version n to n + 1; it only ever grows. views.db has no migrations: a view store
of another version is dropped and rebuilt from the journal.
"""

from __future__ import annotations

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE partitions (id INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, next_offset INTEGER NOT NULL);
    CREATE TABLE journal (
        partition INTEGER NOT NULL, offset INTEGER NOT NULL, stream TEXT NOT NULL, body BLOB NOT NULL,
        PRIMARY KEY (partition, offset)
    ) WITHOUT ROWID;
    CREATE INDEX journal_stream ON journal (stream, offset);
    CREATE TABLE stream_keys (stream TEXT PRIMARY KEY, wrapped BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE snapshots (stream TEXT PRIMARY KEY, offset INTEGER NOT NULL, body BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE checkpoints (
        reader TEXT NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL, data BLOB NOT NULL,
        PRIMARY KEY (reader, partition)
    ) WITHOUT ROWID;
    CREATE TABLE documents (
        kind TEXT NOT NULL, id TEXT NOT NULL, tenant TEXT NOT NULL, revision INTEGER NOT NULL, body BLOB,
        PRIMARY KEY (kind, id)
    ) WITHOUT ROWID;
    CREATE INDEX documents_tenant ON documents (kind, tenant, id);
    CREATE TABLE claims (kind TEXT NOT NULL, id TEXT NOT NULL, owner TEXT NOT NULL, PRIMARY KEY (kind, id)) WITHOUT ROWID;
    """,
)
HUB_VERSION = len(MIGRATIONS)

VIEWS_VERSION = 1
VIEWS = """
    CREATE TABLE checkpoints (partition INTEGER PRIMARY KEY, upto INTEGER NOT NULL);
    CREATE TABLE conversations (
        id TEXT PRIMARY KEY, tenant TEXT NOT NULL, partition INTEGER NOT NULL, customer TEXT NOT NULL,
        channel TEXT NOT NULL, status TEXT NOT NULL, priority TEXT NOT NULL, assignee TEXT, team TEXT, labels TEXT NOT NULL,
        created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, wake_at INTEGER, search TEXT NOT NULL, body BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX conversations_newest ON conversations (tenant, updated_at, id);
    CREATE INDEX conversations_status ON conversations (tenant, status, updated_at, id);
    CREATE INDEX conversations_customer ON conversations (customer);
    CREATE INDEX conversations_wake ON conversations (partition, wake_at) WHERE wake_at IS NOT NULL;
    CREATE TABLE messages (
        conversation TEXT NOT NULL, seq INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (conversation, seq)
    ) WITHOUT ROWID;
    CREATE TABLE customers (
        id TEXT PRIMARY KEY, tenant TEXT NOT NULL, partition INTEGER NOT NULL, search TEXT NOT NULL,
        updated_at INTEGER NOT NULL, body BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX customers_newest ON customers (tenant, updated_at, id);
"""
