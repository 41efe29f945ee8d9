"""Who lives where. An identity names one customer for ever, so none of this may ever give another answer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hub.ids import (
    PARTITIONS_MAX,
    SPREAD_MAX_PARTITIONS,
    customer_id,
    partitions_of,
    stream_partition,
    tenant_partition,
)

SECRET = b"a secret of unit tests only"
NAMES = st.from_regex(r"[a-z0-9][a-z0-9-]{0,20}", fullmatch=True)


def place(tenant: str, identity: str, spread: int, partitions: int) -> int:
    among = partitions_of(tenant, spread, partitions)
    return stream_partition(customer_id(secret=SECRET, tenant=tenant, identity=identity, among=among), partitions)


@given(NAMES, st.text(max_size=40), st.integers(1, SPREAD_MAX_PARTITIONS), st.integers(1, PARTITIONS_MAX))
def test_every_identity_of_a_tenant_maps_into_its_partitions(
    tenant: str, identity: str, spread: int, partitions: int
) -> None:
    mine = partitions_of(tenant, spread, partitions)
    assert place(tenant, identity, spread, partitions) in mine
    assert len(set(mine)) == len(mine) == min(spread, partitions)
    assert all(0 <= number < partitions for number in mine)
    assert mine[0] == tenant_partition(tenant, partitions)


@given(NAMES, st.text(max_size=40), st.integers(1, PARTITIONS_MAX))
def test_a_tenant_that_is_not_spread_lives_at_home(tenant: str, identity: str, partitions: int) -> None:
    assert place(tenant, identity, 1, partitions) == tenant_partition(tenant, partitions)


def test_customers_are_spread_evenly() -> None:
    """Eight partitions, 8,000 customers: a fair hash leaves each within five standard deviations of 1,000."""
    counts = dict.fromkeys(partitions_of("acme", 8, 16), 0)
    for number in range(8_000):
        counts[place("acme", f"tel:+58{number}", 8, 16)] += 1
    assert all(850 < count < 1_150 for count in counts.values()), counts


def test_the_spread_changes_where_a_customer_lives_and_nothing_else_of_its_id() -> None:
    ids = [
        customer_id(secret=SECRET, tenant="acme", identity="tel:+1", among=partitions_of("acme", spread, 16))
        for spread in range(1, 17)
    ]
    assert len({id[7:] for id in ids}) == 1


def test_golden_places() -> None:
    """Written down once. Whoever makes this test fail gives every customer of every store a second self."""
    assert [tenant_partition(tenant, 16) for tenant in ("acme", "demo", "demo2")] == GOLDEN_HOMES
    assert partitions_of("demo", 8, 16) == GOLDEN_PARTITIONS
    assert partitions_of("demo", 64, 3) == GOLDEN_OF_A_SMALL_STORE
    for (identity, spread), id in GOLDEN_IDS.items():
        among = partitions_of("demo", spread, 16)
        assert customer_id(secret=SECRET, tenant="demo", identity=identity, among=among) == id


GOLDEN_HOMES = [1, 0, 4]
GOLDEN_PARTITIONS = (0, 1, 2, 3, 4, 5, 6, 7)
GOLDEN_OF_A_SMALL_STORE = (1, 2, 0)
GOLDEN_IDS = {
    ("tel:+584120000001", 1): "cus_000ven9f7cx2z3rfpre",
    ("tel:+584120000001", 8): "cus_006ven9f7cx2z3rfpre",
    ("tel:+584120000002", 1): "cus_000wtn9ybg6td1yxbad",
    ("tel:+584120000002", 8): "cus_005wtn9ybg6td1yxbad",
    ("web:demo-web:ñandú", 1): "cus_00065y4n4tbtfzn8zhr",
    ("web:demo-web:ñandú", 8): "cus_00065y4n4tbtfzn8zhr",
}
