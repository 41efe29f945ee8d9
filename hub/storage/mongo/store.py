"""Opening the MongoDB home: connect, create, migrate, check."""

from __future__ import annotations

from hub.storage.mongo.database import Database
from hub.storage.mongo.journal import MongoJournal
from hub.storage.mongo.log import MongoLog
from hub.storage.mongo.roles import MongoCheckpoints, MongoDocuments, MongoSnapshots, Owners
from hub.storage.mongo.schema import prepare
from hub.storage.mongo.views import MongoViews


class MongoStore:
    def __init__(self, database: Database, partitions: int) -> None:
        self._database = database
        log = MongoLog(database)
        owners = Owners(log)
        self.partitions = partitions
        self.journal = MongoJournal(database, log)
        self.snapshots = MongoSnapshots(database, owners)
        self.checkpoints = MongoCheckpoints(database, owners)
        self.documents = MongoDocuments(database)
        self.views = MongoViews(database)

    @staticmethod
    async def open(url: str, partitions: int | None = None) -> MongoStore:
        """Raises ValueError for a URL, a server or a database that does not fit, in one line; StoreUnavailable."""
        database = await Database.connect(url)
        try:
            return MongoStore(database, await prepare(database, partitions))
        except BaseException:
            await database.close()
            raise

    async def close(self) -> None:
        await self._database.close()
