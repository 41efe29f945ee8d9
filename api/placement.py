"""Placement: in which partitions a tenant's customers live, as this gateway knows it.

Getting this wrong once would give one identity two customers, for ever. So a gateway never assumes: it places a
customer only after it has read the tenant's own document, and it may keep what it read as long as it lives.

* The spread is fixed when a tenant is created (`actors/tenant.py` refuses a change, also after a removal), so any
  revision of the document tells the truth, however old a copy it is.
* No document means *not known*, never *not spread*. Documents follow the journal by up to 250 ms, and a gateway that
  lost the race to create a tenant has nothing to wait for. The caller gets a retryable error, and the next one looks
  again: that there was nothing is not remembered (`Accounts` does remember it, hence no look-up through there).
* A document from before there was a spread has no such field, and says 1: those tenants live at home.
"""

from __future__ import annotations

from hub.errors import Unavailable
from hub.ids import partitions_of
from hub.ports import Documents
from hub.settings import KINDS, Tenant, tenant_in

KNOWN_MAX_TENANTS = 100_000


class Placement:
    def __init__(self, documents: Documents, partitions: int) -> None:
        self._documents = documents
        self._partitions = partitions
        self._known: dict[str, tuple[int, ...]] = {}

    async def learn(self, tenant: str) -> tuple[int, ...]:
        """The tenant's partitions, home first. Raises Unavailable while its document cannot be seen yet."""
        known = self._known.get(tenant)
        if known is None:
            document = await self._documents.get(KINDS[Tenant], tenant)
            if document is None:
                raise Unavailable(f"the settings of tenant {tenant} cannot be seen yet", retry_after_s=0.25)
            known = partitions_of(tenant, tenant_in(document.body).spread, self._partitions)
            self._remember(tenant, known)
        return known

    def of(self, tenant: str) -> tuple[int, ...]:
        """What was learned a moment ago. A KeyError is a defect: nobody has learned it, and guessing is forbidden."""
        return self._known[tenant]

    def _remember(self, tenant: str, partitions: tuple[int, ...]) -> None:
        if len(self._known) >= KNOWN_MAX_TENANTS:
            del self._known[next(iter(self._known))]
        self._known[tenant] = partitions
