"""Tables, and how a store of an earlier version becomes one of this version.

`MIGRATIONS[n]` takes schema `hub` from version n to n + 1; it only ever grows. Each runs on a store that other
processes are using, so its statements must be such that the hub of the version before goes on working.

Text that is compared has the collation "C": ids are ordered by their bytes, as in every home, and faster.

Views have no migrations. Each version has a schema of its own, filled from the journal; the one of the version before
stays, so that a hub of that version can go on while another one is being upgraded.
"""

from __future__ import annotations

import msgspec

HASH_PARTITIONS = 8
"""Parts of each table that grows for ever. Eight keep an index an eighth as large and let as many vacuums run at
once; an append touches few of them. Measured: no cost at append for 8 or 16. Fixed, as a row's place depends on it."""


class Migration(msgspec.Struct, frozen=True):
    statements: tuple[str, ...]
    in_transaction: bool = True
    """False where a statement cannot be (CONCURRENTLY): then running them again after a crash must do no harm."""


def _hashed(table: str) -> tuple[str, ...]:
    return tuple(
        f"CREATE TABLE {table}_{n} PARTITION OF {table} FOR VALUES WITH (MODULUS {HASH_PARTITIONS}, REMAINDER {n})"
        for n in range(HASH_PARTITIONS)
    )


MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        (
            "CREATE SCHEMA IF NOT EXISTS hub",
            'CREATE TABLE hub.meta (name text COLLATE "C" PRIMARY KEY, value text NOT NULL)',
            # Updated at every commit: room for the next versions of a row beside it.
            "CREATE TABLE hub.partitions (id integer PRIMARY KEY, epoch bigint NOT NULL, next_offset bigint NOT NULL) "
            "WITH (fillfactor = 20)",
            'CREATE TABLE hub.journal (partition integer NOT NULL, "offset" bigint NOT NULL, '
            'stream text COLLATE "C" NOT NULL, body bytea NOT NULL, PRIMARY KEY (partition, "offset")) '
            "PARTITION BY HASH (partition)",
            *_hashed("hub.journal"),
            'CREATE INDEX journal_stream ON hub.journal (stream, "offset")',
            'CREATE TABLE hub.stream_keys (stream text COLLATE "C" PRIMARY KEY, wrapped bytea NOT NULL)',
            'CREATE TABLE hub.snapshots (stream text COLLATE "C" PRIMARY KEY, "offset" bigint NOT NULL, body bytea NOT NULL)',
            'CREATE TABLE hub.checkpoints (reader text COLLATE "C" NOT NULL, partition integer NOT NULL, '
            'epoch bigint NOT NULL, "offset" bigint NOT NULL, data bytea NOT NULL, PRIMARY KEY (reader, partition)) '
            "WITH (fillfactor = 50)",
            'CREATE TABLE hub.documents (kind text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL, '
            'tenant text COLLATE "C" NOT NULL, revision bigint NOT NULL, body bytea, PRIMARY KEY (kind, id))',
            'CREATE TABLE hub.claims (kind text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL, '
            'owner text COLLATE "C" NOT NULL, PRIMARY KEY (kind, id))',
        )
    ),
    # The settings of one tenant without reading everybody's.
    Migration(
        (
            "DROP INDEX CONCURRENTLY IF EXISTS hub.documents_tenant",
            "CREATE INDEX CONCURRENTLY documents_tenant ON hub.documents (kind, tenant, id) WHERE body IS NOT NULL",
        ),
        in_transaction=False,
    ),
    # What is sealed cannot be compressed: do not try.
    Migration(
        (
            "ALTER TABLE hub.journal ALTER COLUMN body SET STORAGE EXTERNAL",
            "ALTER TABLE hub.snapshots ALTER COLUMN body SET STORAGE EXTERNAL",
        )
    ),
)
HUB_VERSION = len(MIGRATIONS)

VIEWS_VERSION = 1
VIEWS_KEPT = 1
"""Earlier versions whose views stay for the hubs that still use them."""


def views_schema(version: int) -> str:
    return f"hub_views_{version}"


VIEWS_SCHEMA = views_schema(VIEWS_VERSION)
VIEWS: tuple[str, ...] = (
    f"CREATE SCHEMA {VIEWS_SCHEMA}",
    f"CREATE TABLE {VIEWS_SCHEMA}.checkpoints (partition integer PRIMARY KEY, upto bigint NOT NULL) WITH (fillfactor = 20)",
    f'CREATE TABLE {VIEWS_SCHEMA}.conversations (id text COLLATE "C" PRIMARY KEY, tenant text COLLATE "C" NOT NULL, '
    'partition integer NOT NULL, customer text COLLATE "C" NOT NULL, channel text COLLATE "C" NOT NULL, '
    'status text COLLATE "C" NOT NULL, priority text COLLATE "C" NOT NULL, assignee text COLLATE "C", '
    'team text COLLATE "C", labels text COLLATE "C" NOT NULL, created_at bigint NOT NULL, updated_at bigint NOT NULL, '
    'wake_at bigint, search text COLLATE "C" NOT NULL, body bytea NOT NULL)',
    f"CREATE INDEX conversations_newest ON {VIEWS_SCHEMA}.conversations (tenant, updated_at, id)",
    f"CREATE INDEX conversations_status ON {VIEWS_SCHEMA}.conversations (tenant, status, updated_at, id)",
    f"CREATE INDEX conversations_customer ON {VIEWS_SCHEMA}.conversations (customer, updated_at, id)",
    f"CREATE INDEX conversations_wake ON {VIEWS_SCHEMA}.conversations (partition, wake_at) WHERE wake_at IS NOT NULL",
    f'CREATE TABLE {VIEWS_SCHEMA}.messages (conversation text COLLATE "C" NOT NULL, seq bigint NOT NULL, '
    "body bytea NOT NULL, PRIMARY KEY (conversation, seq)) PARTITION BY HASH (conversation)",
    *_hashed(f"{VIEWS_SCHEMA}.messages"),
    f'CREATE TABLE {VIEWS_SCHEMA}.customers (id text COLLATE "C" PRIMARY KEY, tenant text COLLATE "C" NOT NULL, '
    'partition integer NOT NULL, search text COLLATE "C" NOT NULL, updated_at bigint NOT NULL, body bytea NOT NULL)',
    f"CREATE INDEX customers_newest ON {VIEWS_SCHEMA}.customers (tenant, updated_at, id)",
)
