"""Read models in SQLite, in a file of their own, so that a flush never delays a commit."""

from __future__ import annotations

import sqlite3

from hub.ports import ConversationQuery, ConversationRow, CustomerRow, MessageRow, ViewBatch
from hub.storage.sqlite.database import Database

# Labels are stored as "|one|two|", so that one LIKE finds one whole label.
_CONVERSATION = (
    "id, tenant, partition, customer, channel, status, priority, assignee, team, labels, "
    "created_at, updated_at, wake_at, search, body"
)
_CUSTOMER = "id, tenant, partition, search, updated_at, body"
LABEL_SEPARATOR = "\x1f"


class SqliteViews:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def checkpoint(self, partition: int) -> int:
        return await self._db.read(lambda connection: _checkpoint(connection, partition))

    async def apply(self, batch: ViewBatch) -> None:
        await self._db.write(lambda connection: _apply(connection, batch))

    async def timers(self, partition: int) -> list[tuple[str, int]]:
        sql = "SELECT id, wake_at FROM conversations WHERE partition = ? AND wake_at IS NOT NULL ORDER BY id"
        return await self._db.read(lambda connection: connection.execute(sql, (partition,)).fetchall())

    async def conversation(self, tenant: str, id: str) -> bytes | None:
        return await self._one("SELECT body FROM conversations WHERE id = ? AND tenant = ?", (id, tenant))

    async def conversations(self, query: ConversationQuery) -> list[ConversationRow]:
        sql, values = _conversation_query(query)
        rows = await self._db.read(lambda connection: connection.execute(sql, values).fetchall())
        return [_conversation(row) for row in rows]

    async def message(self, conversation: str, seq: int) -> bytes | None:
        return await self._one("SELECT body FROM messages WHERE conversation = ? AND seq = ?", (conversation, seq))

    async def messages(
        self, conversation: str, *, before: int | None, after: int | None, limit: int
    ) -> list[MessageRow]:
        order = "ASC" if after is not None else "DESC"
        sql = (
            "SELECT conversation, seq, body FROM messages WHERE conversation = ? AND seq < ? AND seq > ? "
            f"ORDER BY seq {order} LIMIT ?"
        )
        values = (conversation, 2**62 if before is None else before, -1 if after is None else after, limit)
        rows = await self._db.read(lambda connection: connection.execute(sql, values).fetchall())
        return [MessageRow(*row) for row in (rows if after is not None else reversed(rows))]

    async def customer(self, tenant: str, id: str) -> bytes | None:
        return await self._one("SELECT body FROM customers WHERE id = ? AND tenant = ?", (id, tenant))

    async def customers(
        self, tenant: str, *, text: str | None, before: tuple[int, str] | None, limit: int
    ) -> list[CustomerRow]:
        where, values = ["tenant = ?"], [tenant]
        if text:
            where.append(r"search LIKE ? ESCAPE '\'")
            values.append(f"%{_escape(text)}%")
        if before is not None:
            where.append("(updated_at, id) < (?, ?)")
            values += before  # type: ignore[arg-type]
        sql = f"SELECT {_CUSTOMER} FROM customers WHERE {' AND '.join(where)} ORDER BY updated_at DESC, id DESC LIMIT ?"
        rows = await self._db.read(lambda connection: connection.execute(sql, [*values, limit]).fetchall())
        return [CustomerRow(*row) for row in rows]

    async def _one(self, sql: str, values: tuple[object, ...]) -> bytes | None:
        row = await self._db.read(lambda connection: connection.execute(sql, values).fetchone())
        return bytes(row[0]) if row else None


def _checkpoint(connection: sqlite3.Connection, partition: int) -> int:
    row = connection.execute("SELECT upto FROM checkpoints WHERE partition = ?", (partition,)).fetchone()
    return int(row[0]) if row else 0


def _apply(connection: sqlite3.Connection, batch: ViewBatch) -> None:
    if batch.upto <= _checkpoint(connection, batch.partition):
        return
    connection.executemany(_put("conversations", _CONVERSATION), [_values(row) for row in batch.conversations])
    connection.executemany(
        _put("messages", "conversation, seq, body"), [(row.conversation, row.seq, row.body) for row in batch.messages]
    )
    customers = [(r.id, r.tenant, r.partition, r.search, r.updated_at, r.body) for r in batch.customers]
    connection.executemany(_put("customers", _CUSTOMER), customers)
    connection.execute("INSERT OR REPLACE INTO checkpoints VALUES (?, ?)", (batch.partition, batch.upto))


def _put(table: str, columns: str) -> str:
    return f"INSERT OR REPLACE INTO {table} ({columns}) VALUES ({','.join('?' * len(columns.split(',')))})"


def _values(row: ConversationRow) -> tuple[object, ...]:
    labels = LABEL_SEPARATOR.join(["", *row.labels, ""]) if row.labels else ""
    return (
        row.id,
        row.tenant,
        row.partition,
        row.customer,
        row.channel,
        row.status,
        row.priority,
        row.assignee,
        row.team,
        labels,
        row.created_at,
        row.updated_at,
        row.wake_at,
        row.search,
        row.body,
    )


def _conversation(row: tuple[object, ...]) -> ConversationRow:
    found = ConversationRow(*row)  # type: ignore[arg-type]
    found.labels = [label for label in str(row[9]).split(LABEL_SEPARATOR) if label]
    return found


def _conversation_query(query: ConversationQuery) -> tuple[str, list[object]]:
    where, values = ["tenant = ?"], [query.tenant]
    for name in ("status", "assignee", "team", "channel", "priority", "customer"):
        value = getattr(query, name)
        if value is not None:
            where.append(f"{name} = ?")
            values.append(value)
    if query.unassigned:
        where.append("assignee IS NULL")
    if query.label is not None:
        where.append("instr(labels, ?) > 0")
        values.append(f"{LABEL_SEPARATOR}{query.label}{LABEL_SEPARATOR}")
    if query.text:
        where.append(r"search LIKE ? ESCAPE '\'")
        values.append(f"%{_escape(query.text)}%")
    if query.before is not None:
        where.append(f"(updated_at, id) {'>' if query.ascending else '<'} (?, ?)")
        values += query.before  # type: ignore[arg-type]
    order = "ASC" if query.ascending else "DESC"
    sql = (
        f"SELECT {_CONVERSATION} FROM conversations WHERE {' AND '.join(where)} "
        f"ORDER BY updated_at {order}, id {order} LIMIT ?"
    )
    return sql, [*values, query.limit]


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
