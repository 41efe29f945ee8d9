"""Opening the PostgreSQL home: create, migrate, check."""

from __future__ import annotations

import asyncpg

from hub.ids import PARTITIONS_MAX
from hub.storage.postgres.address import Address
from hub.storage.postgres.database import Connection, Database, hang_up, translated
from hub.storage.postgres.journal import PostgresJournal
from hub.storage.postgres.migrate import prepare
from hub.storage.postgres.roles import PostgresCheckpoints, PostgresDocuments, PostgresSnapshots
from hub.storage.postgres.views import PostgresViews

FIRST_DATABASE = "postgres"
"""The one that is always there, from which another can be created."""


class PostgresStore:
    def __init__(self, database: Database, partitions: int) -> None:
        self._database = database
        self.partitions = partitions
        self.journal = PostgresJournal(database)
        self.snapshots = PostgresSnapshots(database)
        self.checkpoints = PostgresCheckpoints(database)
        self.documents = PostgresDocuments(database)
        self.views = PostgresViews(database)

    @staticmethod
    async def open(url: str, partitions: int | None = None) -> PostgresStore:
        """Raises ValueError for what somebody must put right first, StoreUnavailable where the server is away."""
        if partitions is not None and not 1 <= partitions <= PARTITIONS_MAX:
            raise ValueError(f"partitions got {partitions}, takes 1 to {PARTITIONS_MAX}")
        database = Database(Address(url))
        with translated():
            try:
                connection = await _first_connection(database)
                try:
                    count = await prepare(connection, partitions)
                finally:
                    await hang_up(connection)
            except asyncpg.InvalidAuthorizationSpecificationError as error:
                raise ValueError(f"{database.address} does not let us in: {error.args[0]}") from None
            except asyncpg.InsufficientPrivilegeError as error:
                raise ValueError(
                    f"{database.address}: {error.args[0]}; make user {database.address.user} the owner of the database"
                ) from None
            except asyncpg.ClientConfigurationError as error:
                raise ValueError(f"{database.address} cannot be opened: {error.args[0]}") from None
        return PostgresStore(database, count)

    async def close(self) -> None:
        await self._database.close()


async def _first_connection(database: Database) -> Connection:
    """Create the database where there is none and we may."""
    try:
        return await database.connect(limited=False)
    except asyncpg.InvalidCatalogNameError:
        await _create(database)
        return await database.connect(limited=False)


async def _create(database: Database) -> None:
    address = database.address
    name = address.database.replace('"', '""')
    try:
        connection = await database.connect(limited=False, database=FIRST_DATABASE)
        try:
            await connection.execute(f"CREATE DATABASE \"{name}\" TEMPLATE template0 ENCODING 'UTF8'")
        finally:
            await hang_up(connection)
    except (asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
        pass  # another process of ours was faster
    except asyncpg.PostgresError as error:
        raise ValueError(
            f"database {address.database} does not exist and cannot be created ({error.args[0]}): "
            f'let an administrator run CREATE DATABASE "{name}" OWNER "{address.user}" ENCODING \'UTF8\''
        ) from None
