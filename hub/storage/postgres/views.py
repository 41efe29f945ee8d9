"""Read models in PostgreSQL. A flush is one statement: the checkpoint moves, or nothing does."""

from __future__ import annotations

from hub.ports import ConversationQuery, ConversationRow, CustomerRow, MessageRow, ViewBatch
from hub.storage.postgres.database import Database, storable
from hub.storage.postgres.schema import VIEWS_SCHEMA as SCHEMA

# Labels are stored as "|one|two|", so that one search finds one whole label. An index over an array was not worth
# its price at every message; a list is always read along an index of its tenant.
LABEL_SEPARATOR = "\x1f"
SEQ_MAX = 2**62

_CONVERSATION = (
    "id, tenant, partition, customer, channel, status, priority, assignee, team, labels, "
    "created_at, updated_at, wake_at, search, body"
)
_CONVERSATION_TYPES = (
    "text", "text", "integer", "text", "text", "text", "text", "text", "text", "text",
    "bigint", "bigint", "bigint", "text", "bytea",
)  # fmt: skip
_MESSAGE, _MESSAGE_TYPES = "conversation, seq, body", ("text", "bigint", "bytea")
_CUSTOMER, _CUSTOMER_TYPES = (
    "id, tenant, partition, search, updated_at, body",
    ("text", "text", "integer", "text", "bigint", "bytea"),
)


def _upsert(table: str, key: str, columns: str, types: tuple[str, ...], first: int) -> str:
    arrays = ", ".join(f"${first + n}::{type}[]" for n, type in enumerate(types))
    changed = ", ".join(f"{name} = excluded.{name}" for name in columns.split(", ") if name not in key.split(", "))
    return (
        f"INSERT INTO {SCHEMA}.{table} ({columns}) SELECT * FROM unnest({arrays}) WHERE EXISTS (SELECT FROM moved) "
        f"ON CONFLICT ({key}) DO UPDATE SET {changed}"
    )


_APPLY = f"""
WITH moved AS (
    INSERT INTO {SCHEMA}.checkpoints AS known (partition, upto) VALUES ($1, $2)
    ON CONFLICT (partition) DO UPDATE SET upto = excluded.upto WHERE known.upto < excluded.upto RETURNING upto
), conversations AS ({_upsert("conversations", "id", _CONVERSATION, _CONVERSATION_TYPES, 3)}
), messages AS ({_upsert("messages", "conversation, seq", _MESSAGE, _MESSAGE_TYPES, 18)}
), customers AS ({_upsert("customers", "id", _CUSTOMER, _CUSTOMER_TYPES, 21)})
SELECT upto FROM moved
"""


class PostgresViews:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def checkpoint(self, partition: int) -> int:
        row = await self._db.row(f"SELECT upto FROM {SCHEMA}.checkpoints WHERE partition = $1", partition)
        return int(row[0]) if row else 0

    async def apply(self, batch: ViewBatch) -> None:
        rows = len(batch.conversations) + len(batch.messages) + len(batch.customers)
        values = *_conversations(batch), *_messages(batch), *_customers(batch)
        await self._db.write(_APPLY, batch.partition, batch.upto, *values, rows=rows)

    async def timers(self, partition: int) -> list[tuple[str, int]]:
        sql = f"SELECT id, wake_at FROM {SCHEMA}.conversations WHERE partition = $1 AND wake_at IS NOT NULL ORDER BY id"
        return [(id, wake_at) for id, wake_at in await self._db.fetch(sql, partition)]

    async def conversation(self, tenant: str, id: str) -> bytes | None:
        return await self._body(f"FROM {SCHEMA}.conversations WHERE id = $1 AND tenant = $2", storable(id), tenant)

    async def conversations(self, query: ConversationQuery) -> list[ConversationRow]:
        sql, values = _conversation_query(query)
        return [_conversation(ConversationRow(*row)) for row in await self._db.fetch(sql, *values)]

    async def message(self, conversation: str, seq: int) -> bytes | None:
        return await self._body(
            f"FROM {SCHEMA}.messages WHERE conversation = $1 AND seq = $2", storable(conversation), seq
        )

    async def messages(
        self, conversation: str, *, before: int | None, after: int | None, limit: int
    ) -> list[MessageRow]:
        order = "ASC" if after is not None else "DESC"
        sql = (
            f"SELECT {_MESSAGE} FROM {SCHEMA}.messages WHERE conversation = $1 AND seq < $2 AND seq > $3 "
            f"ORDER BY seq {order} LIMIT $4"
        )
        values = (SEQ_MAX if before is None else before, -1 if after is None else after, limit)
        rows = await self._db.fetch(sql, storable(conversation), *values)
        return [MessageRow(*row) for row in (rows if after is not None else reversed(rows))]

    async def customer(self, tenant: str, id: str) -> bytes | None:
        return await self._body(f"FROM {SCHEMA}.customers WHERE id = $1 AND tenant = $2", storable(id), tenant)

    async def customers(
        self, tenant: str, *, text: str | None, before: tuple[int, str] | None, limit: int
    ) -> list[CustomerRow]:
        where = _Where(tenant)
        if text:
            where.add("search LIKE {}", _pattern(text))
        if before is not None:
            where.add("(updated_at, id) < ({}, {})", before[0], storable(before[1]))
        sql = f"SELECT {_CUSTOMER} FROM {SCHEMA}.customers WHERE {where} ORDER BY updated_at DESC, id DESC LIMIT {limit:d}"
        return [CustomerRow(*row) for row in await self._db.fetch(sql, *where.values)]

    async def _body(self, source: str, *values: object) -> bytes | None:
        row = await self._db.row(f"SELECT body {source}", *values)
        return bytes(row[0]) if row else None


class _Where:
    """Conditions that all hold, and the values they speak of."""

    def __init__(self, tenant: str) -> None:
        self._conditions = ["tenant = $1"]
        self.values: list[object] = [tenant]

    def add(self, condition: str, *values: object) -> None:
        """`{}` stands for each value."""
        first = len(self.values) + 1
        self._conditions.append(condition.format(*(f"${first + n}" for n in range(len(values)))))
        self.values += values

    def __str__(self) -> str:
        return " AND ".join(self._conditions)


def _conversation_query(query: ConversationQuery) -> tuple[str, list[object]]:
    where = _Where(query.tenant)
    for name in ("status", "assignee", "team", "channel", "priority", "customer"):
        value = getattr(query, name)
        if value is not None:
            where.add(f"{name} = {{}}", storable(value))
    if query.unassigned:
        where.add("assignee IS NULL")
    if query.label is not None:
        where.add("strpos(labels, {}) > 0", f"{LABEL_SEPARATOR}{storable(query.label)}{LABEL_SEPARATOR}")
    if query.text:
        where.add("search LIKE {}", _pattern(query.text))
    if query.before is not None:
        condition = f"(updated_at, id) {'>' if query.ascending else '<'} ({{}}, {{}})"
        where.add(condition, query.before[0], storable(query.before[1]))
    order = "ASC" if query.ascending else "DESC"
    sql = (
        f"SELECT {_CONVERSATION} FROM {SCHEMA}.conversations WHERE {where} "
        f"ORDER BY updated_at {order}, id {order} LIMIT {query.limit:d}"
    )
    return sql, where.values


def _pattern(text: str) -> str:
    escaped = storable(text).replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def _conversation(row: ConversationRow) -> ConversationRow:
    row.labels = [label for label in str(row.labels).split(LABEL_SEPARATOR) if label]
    return row


def _conversations(batch: ViewBatch) -> tuple[list[object], ...]:
    """Columns as `_CONVERSATION` has them. A statement may touch a row once: of several the last one counts."""
    rows = {row.id: row for row in batch.conversations}.values()
    return (
        [row.id for row in rows],
        [row.tenant for row in rows],
        [row.partition for row in rows],
        [row.customer for row in rows],
        [row.channel for row in rows],
        [row.status for row in rows],
        [row.priority for row in rows],
        [row.assignee if row.assignee is None else storable(row.assignee) for row in rows],
        [row.team if row.team is None else storable(row.team) for row in rows],
        [storable(LABEL_SEPARATOR.join(["", *row.labels, ""])) if row.labels else "" for row in rows],
        [row.created_at for row in rows],
        [row.updated_at for row in rows],
        [row.wake_at for row in rows],
        [storable(row.search) for row in rows],
        [row.body for row in rows],
    )


def _messages(batch: ViewBatch) -> tuple[list[object], ...]:
    rows = {(row.conversation, row.seq): row for row in batch.messages}.values()
    return [row.conversation for row in rows], [row.seq for row in rows], [row.body for row in rows]


def _customers(batch: ViewBatch) -> tuple[list[object], ...]:
    rows = {row.id: row for row in batch.customers}.values()
    return (
        [row.id for row in rows],
        [row.tenant for row in rows],
        [row.partition for row in rows],
        [storable(row.search) for row in rows],
        [row.updated_at for row in rows],
        [row.body for row in rows],
    )
