"""What the actors decide, and what their events do. No runtime: a state, a command, the events."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from actors import customer, tenant
from hub import commands as c
from hub import events as e
from hub.errors import (
    Conflict,
    HubError,
    InvalidFields,
    NotFound,
    Overloaded,
    RevisionConflict,
    StaleReply,
)
from hub.model import Author, CustomerImage, MessageError
from hub.settings import Tenant, Vault
from tests.unit.actors.rig import ANA, KEYRING, TENANT, conversation, inbound, reply, stream, update

NOW = 1_764_000_000_000
VAULT = Vault(KEYRING)
CNV = conversation()


class Life:
    """One customer's stream: commands in, events applied, as a partition would."""

    def __init__(self) -> None:
        self.image = customer.empty(stream(), TENANT)
        self.now = NOW

    def do(self, command: c.AnyCommand) -> Any:
        before = msgspec.to_builtins(self.image)
        decision = customer.decide(self.image, command, self.now)
        assert msgspec.to_builtins(self.image) == before, "deciding must not change anything"
        for event in decision.events:
            customer.apply(self.image, event, self.now)
        return decision

    def refused(self, command: c.AnyCommand) -> HubError:
        with pytest.raises(HubError) as caught:
            self.do(command)
        return caught.value

    @property
    def cnv(self) -> Any:
        return self.image.conversations[1]

    def status(self, seq: int) -> Any:
        return self.cnv.outbound[seq].status


@pytest.fixture
def life() -> Life:
    return Life()


@pytest.fixture
def talking(life: Life) -> Life:
    """The customer has written once; Ana has answered once (message 2)."""
    life.do(inbound("a", name="Eva"))
    life.do(reply("one"))
    return life


def kinds(decision: Any) -> list[str]:
    return [e.type_name(event) for event in decision.events]


# --- first contact, and what follows ------------------------------------------------------------------------------


def test_a_first_message_makes_the_customer_the_conversation_and_the_message(life: Life) -> None:
    decision = life.do(inbound("a", name="Eva"))
    assert kinds(decision) == ["customer.created", "conversation.opened", "message.received"]
    assert decision.message == f"msg_{CNV[4:]}-1"
    assert life.image.customer.name == "Eva"


def test_a_second_message_on_the_same_channel_joins_the_conversation(life: Life) -> None:
    life.do(inbound("a"))
    assert kinds(life.do(inbound("b"))) == ["message.received"]
    assert life.cnv.seq == 2


def test_another_channel_is_another_conversation_of_the_same_customer(life: Life) -> None:
    life.do(inbound("a"))
    decision = life.do(inbound("a", channel="sms"))
    assert kinds(decision) == ["conversation.opened", "message.received"]
    assert decision.conversation == conversation(ordinal=2)


def test_a_redelivered_message_names_the_first_one_and_changes_nothing(life: Life) -> None:
    first = life.do(inbound("a"))
    life.do(inbound("b"))
    again = life.do(inbound("a", text="another text"))
    assert (again.events, again.duplicate, again.message) == ([], True, first.message)


def test_a_name_learned_later_is_kept_and_never_overwritten_by_a_provider(life: Life) -> None:
    life.do(inbound("a"))
    assert kinds(life.do(inbound("b", name="Eva"))) == ["customer.updated", "message.received"]
    assert kinds(life.do(inbound("c", name="Not Eva"))) == ["message.received"]
    assert life.image.customer.name == "Eva"


def test_a_message_reopens_a_resolved_conversation(talking: Life) -> None:
    talking.do(update(status="resolved"))
    decision = talking.do(inbound("b"))
    assert decision.events[-1].reopened
    assert talking.cnv.status == "open"


def test_a_message_ends_a_snooze(talking: Life) -> None:
    talking.do(update(snoozed_until=NOW + 60_000))
    talking.do(inbound("b"))
    assert (talking.cnv.status, talking.cnv.snoozed_until) == ("open", None)


def test_a_provider_with_a_wrong_clock_does_not_date_a_message(life: Life) -> None:
    assert life.do(inbound("a", sent_at=12)).events[-1].sent_at == NOW


# --- agents write -------------------------------------------------------------------------------------------------


def test_a_reply_is_queued_and_clears_what_waited(talking: Life) -> None:
    assert (talking.status(2), talking.cnv.unread, talking.cnv.waiting_since) == ("queued", 0, None)


def test_a_repeated_client_id_is_the_same_message(talking: Life) -> None:
    again = talking.do(reply("one", text="edited meanwhile"))
    assert (again.events, again.duplicate, again.message) == ([], True, f"msg_{CNV[4:]}-2")


def test_a_note_is_numbered_with_the_messages_and_goes_nowhere(talking: Life) -> None:
    talking.do(reply("two", kind="note"))
    assert talking.cnv.seq == 3
    assert 3 not in talking.cnv.outbound


def test_a_reply_to_what_is_no_longer_the_last_word_is_stale(talking: Life) -> None:
    talking.do(inbound("b"))
    assert isinstance(talking.refused(reply("two", if_seq=1)), StaleReply)
    assert kinds(talking.do(reply("two", if_seq=3))) == ["message.queued"]


def test_a_stale_repeat_of_a_reply_that_was_taken_is_still_that_reply(talking: Life) -> None:
    talking.do(inbound("b"))
    assert talking.do(reply("one", if_seq=1)).duplicate


def test_an_empty_reply_is_refused(talking: Life) -> None:
    assert isinstance(talking.refused(reply("two", text=" \n")), InvalidFields)


def test_an_unknown_conversation_is_not_found(life: Life) -> None:
    assert isinstance(life.refused(reply("one")), NotFound)


def test_starting_joins_a_conversation_that_exists(talking: Life) -> None:
    start = c.StartConversation(
        channel="wa", channel_kind="plain", identity="tel:+1", address="+1", author=ANA, text="Hola", client_id="new"
    )
    assert kinds(talking.do(start)) == ["message.queued"]
    assert talking.do(start).duplicate


def test_starting_with_somebody_new_opens_a_conversation(life: Life) -> None:
    start = c.StartConversation(
        channel="wa", channel_kind="plain", identity="tel:+1", address="+1", author=ANA, text="Hola", client_id="new"
    )
    assert kinds(life.do(start)) == ["customer.created", "conversation.opened", "message.queued"]
    assert life.do(start).duplicate


def test_what_still_waits_to_be_sent_is_never_forgotten(talking: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forgetting a queued message would mean never sending it; the sender is asked to slow down instead."""
    monkeypatch.setattr("actors.conversation.OUTBOUND_MAX_MESSAGES", 3)
    talking.do(reply("two"))
    talking.do(reply("three"))
    assert isinstance(talking.refused(reply("four")), Overloaded)
    assert kinds(talking.do(reply("a note", kind="note"))) == ["note.added"]
    talking.do(receipt("sent", message=3))
    talking.do(reply("four"))
    assert [talking.status(seq) for seq in talking.cnv.outbound] == ["queued", "queued", "queued"]


# --- what agents change -------------------------------------------------------------------------------------------


def test_changing_nothing_makes_no_event(talking: Life) -> None:
    assert talking.do(update(status="open", assignee=None, labels=[])).events == []


def test_a_field_left_out_stays_and_none_clears(talking: Life) -> None:
    talking.do(update(assignee="ana", team="sales"))
    talking.do(update(team=None))
    assert (talking.cnv.assignee, talking.cnv.team) == ("ana", None)


@pytest.mark.parametrize("change", [{"status": "resolved"}, {"status": "open"}, {"snoozed_until": None}])
def test_a_snooze_ends_with_any_other_status_or_when_it_is_cleared(talking: Life, change: dict[str, Any]) -> None:
    talking.do(update(snoozed_until=NOW + 1))
    assert talking.cnv.status == "snoozed"
    talking.do(update(**change))
    assert talking.cnv.status != "snoozed"
    assert talking.cnv.snoozed_until is None


def test_a_snooze_into_the_past_or_with_another_status_is_refused(talking: Life) -> None:
    assert isinstance(talking.refused(update(snoozed_until=NOW)), InvalidFields)
    assert isinstance(talking.refused(update(snoozed_until=NOW + 1, status="open")), InvalidFields)


def test_a_timer_wakes_only_who_still_sleeps_and_only_when_due(talking: Life) -> None:
    talking.do(update(snoozed_until=NOW + 1_000))
    fire = c.FireTimer(conversation=CNV, name="snooze", due=NOW + 1_000)
    assert talking.do(fire).events == []
    talking.now += 1_000
    assert kinds(talking.do(fire)) == ["conversation.updated"]
    assert talking.do(fire).events == []


def test_reading_counts_down_and_never_up(life: Life) -> None:
    for name in ("a", "b", "c"):
        life.do(inbound(name))
    life.do(c.MarkRead(conversation=CNV, seq=2, by=ANA))
    assert life.cnv.unread == 1
    assert life.do(c.MarkRead(conversation=CNV, seq=1, by=ANA)).events == []
    life.do(c.MarkRead(conversation=CNV, seq=99, by=ANA))
    assert life.cnv.unread == 0


def test_a_customers_profile_changes_and_attributes_can_be_removed(talking: Life) -> None:
    talking.do(c.UpdateCustomer(name="Eva María", attributes={"plan": "pro"}))
    assert talking.do(c.UpdateCustomer(name="Eva María", attributes={"plan": "pro"})).events == []
    talking.do(c.UpdateCustomer(attributes={"plan": None}))
    assert (talking.image.customer.name, talking.image.customer.attributes) == ("Eva María", {})


def test_a_customer_who_never_wrote_is_not_found(life: Life) -> None:
    assert isinstance(life.refused(c.GetCustomer()), NotFound)
    assert isinstance(life.refused(c.UpdateCustomer(name="x")), NotFound)


# --- receipts -----------------------------------------------------------------------------------------------------


def receipt(status: str, *, message: int | None = None, external_id: str | None = None, **more: Any) -> Any:
    named = f"msg_{CNV[4:]}-{message}" if message is not None else None
    return c.RecordReceipt(
        channel=more.pop("channel", "wa"), status=status, message=named, external_id=external_id, **more
    )  # type: ignore[arg-type]


def test_statuses_move_forward_only(talking: Life) -> None:
    talking.do(receipt("sent", message=2, external_id="x"))
    talking.do(receipt("read", external_id="x"))
    for late in ("sent", "delivered", "failed"):
        assert talking.do(receipt(late, external_id="x")).events == []
    assert talking.status(2) == "read"


def test_failed_is_the_end_of_the_road(talking: Life) -> None:
    talking.do(receipt("failed", message=2))
    assert talking.do(receipt("delivered", message=2)).events == []


def test_a_delivered_message_cannot_fail_any_more(talking: Life) -> None:
    talking.do(receipt("delivered", message=2))
    assert talking.do(receipt("failed", message=2)).events == []


def test_an_uncertain_message_becomes_certain_by_a_receipt(talking: Life) -> None:
    talking.do(receipt("uncertain", message=2))
    talking.do(receipt("delivered", message=2, external_id="x"))
    assert talking.status(2) == "delivered"


def test_a_receipt_that_comes_before_we_know_its_message_is_held_and_applied(talking: Life) -> None:
    assert kinds(talking.do(receipt("delivered", external_id="x"))) == ["receipt.held"]
    assert talking.do(receipt("sent", external_id="x")).events == []
    assert kinds(talking.do(receipt("sent", message=2, external_id="x"))) == ["message.status", "message.status"]
    assert (talking.status(2), talking.image.customer.held) == ("delivered", [])


def test_a_held_receipt_never_moves_a_message_back(talking: Life) -> None:
    talking.do(receipt("delivered", external_id="x"))
    talking.do(receipt("read", message=2))
    talking.do(receipt("sent", message=2, external_id="x"))
    assert (talking.status(2), talking.cnv.outbound[2].external_id) == ("read", "x")


def test_learning_the_external_id_late_does_not_hide_why_a_message_failed(talking: Life) -> None:
    error = MessageError("undeliverable", "no such number")
    talking.do(receipt("failed", message=2, error=error))
    talking.do(receipt("sent", message=2, external_id="x"))
    assert (talking.status(2), talking.cnv.outbound[2].error) == ("failed", error)


def test_an_external_id_of_another_channel_is_another_message(talking: Life) -> None:
    """Some providers count from one."""
    talking.do(receipt("sent", message=2, external_id="7"))
    assert kinds(talking.do(receipt("read", external_id="7", channel="sms"))) == ["receipt.held"]
    assert talking.status(2) == "sent"


def test_held_receipts_are_bounded(talking: Life) -> None:
    for number in range(customer.HELD_MAX_RECEIPTS + 5):
        talking.do(receipt("delivered", external_id=f"x{number}"))
    assert len(talking.image.customer.held) == customer.HELD_MAX_RECEIPTS


def test_the_customers_own_device_reports_up_to_a_message(talking: Life) -> None:
    talking.do(reply("two"))
    talking.do(c.CustomerRead(conversation=CNV, seq=2))
    assert (talking.status(2), talking.status(3)) == ("read", "queued")


def test_a_message_that_is_over_is_not_sent(talking: Life) -> None:
    talking.do(receipt("failed", message=2))
    assert isinstance(talking.refused(c.BeginDelivery(conversation=CNV, seq=2, attempt=1)), Conflict)


# --- replay -------------------------------------------------------------------------------------------------------


def test_a_stream_whose_content_was_erased_still_replays(life: Life) -> None:
    """The skeleton holds everything but what a person wrote or is called."""
    facts = [
        *life.do(inbound("a", name="Eva")).events,
        *life.do(reply("one")).events,
        *life.do(receipt("sent", message=2, external_id="x")).events,
        *life.do(c.UpdateCustomer(name="E", attributes={"a": "b"})).events,
    ]
    again = CustomerImage(customer=customer.empty(stream(), TENANT).customer)
    for event in facts:
        event.content = None
        customer.apply(again, event, NOW)
    assert (again.conversations[1].seq, again.conversations[1].outbound[2].status) == (2, "sent")
    assert again.customer.name is None


# --- the tenant ---------------------------------------------------------------------------------------------------


class Office:
    def __init__(self) -> None:
        self.image = tenant.empty("ten_acme", TENANT)

    def do(self, command: c.AnyCommand) -> Any:
        decision = tenant.decide(self.image, command, NOW)
        for event in decision.events:
            tenant.apply(self.image, event, NOW)
        return decision


ADMIN = Author("agent", "admin")


def put(if_revision: int | None = None) -> c.PutSetting:
    return c.PutSetting(kind="channel", id="wa", document=b"{}", by=ADMIN, if_revision=if_revision)


def test_settings_count_their_revisions() -> None:
    office = Office()
    assert [office.do(put()).revision, office.do(put(if_revision=1)).revision] == [1, 2]


def test_a_setting_changed_meanwhile_is_a_conflict() -> None:
    office = Office()
    office.do(put(if_revision=0))
    with pytest.raises(RevisionConflict):
        office.do(put(if_revision=0))


def test_a_setting_made_again_counts_on_from_its_grave() -> None:
    """Or a late write of the first one would replace the second."""
    office = Office()
    office.do(put())
    office.do(c.RemoveSetting(kind="channel", id="wa", by=ADMIN))
    with pytest.raises(NotFound):
        office.do(c.RemoveSetting(kind="channel", id="wa", by=ADMIN))
    assert office.do(put(if_revision=0)).revision == 3


def test_settings_of_a_kind_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.tenant.SETTINGS_MAX_OF_A_KIND", 1)
    office = Office()
    office.do(put())
    with pytest.raises(Conflict):
        office.do(c.PutSetting(kind="channel", id="other", document=b"", by=ADMIN))
    office.do(put())


# --- a tenant's spread ------------------------------------------------------------------------------------------------


def describe(spread: int, id: str = TENANT, if_revision: int | None = None) -> c.PutSetting:
    document = VAULT.encode(Tenant(id=id, name="Acme", spread=spread))
    return c.PutSetting(kind="tenant", id=id, document=document, by=ANA, if_revision=if_revision)


def settle(image: Any, command: c.AnyCommand) -> None:
    for event in tenant.decide(image, command, NOW).events:
        tenant.apply(image, event, NOW)


def test_the_spread_of_a_tenant_is_fixed_when_it_is_created() -> None:
    image = tenant.empty(f"ten_{TENANT}", TENANT)
    settle(image, describe(4))
    with pytest.raises(Conflict, match="spread over 4 partitions"):
        tenant.decide(image, describe(5), NOW)
    settle(image, describe(4))
    assert image.tenant.spread == 4


def test_a_tenant_that_is_removed_and_made_again_is_spread_as_before() -> None:
    image = tenant.empty(f"ten_{TENANT}", TENANT)
    settle(image, describe(4))
    settle(image, c.RemoveSetting(kind="tenant", id=TENANT, by=ANA))
    with pytest.raises(Conflict):
        tenant.decide(image, describe(1), NOW)


def test_a_tenant_from_before_there_was_a_spread_keeps_to_its_one_partition() -> None:
    image = tenant.empty(f"ten_{TENANT}", TENANT)
    tenant.apply(image, e.SettingChanged(kind="tenant", id=TENANT, revision=1), NOW)
    with pytest.raises(Conflict):
        tenant.decide(image, describe(2), NOW)


def test_the_spread_outlives_the_words_of_the_setting() -> None:
    """It is repeated in the clear: a tenant whose key is erased must not move its customers."""
    image = tenant.empty(f"ten_{TENANT}", TENANT)
    [event] = tenant.decide(image, describe(4), NOW).events
    tenant.apply(image, msgspec.structs.replace(event, content=None), NOW)
    with pytest.raises(Conflict):
        tenant.decide(image, describe(1), NOW)


def test_who_comes_second_to_create_a_tenant_learns_that_it_is_there() -> None:
    """Whatever spread it wished for: the one who asks goes on with the tenant there is."""
    image = tenant.empty(f"ten_{TENANT}", TENANT)
    settle(image, describe(1, if_revision=0))
    with pytest.raises(RevisionConflict):
        tenant.decide(image, describe(8, if_revision=0), NOW)


@pytest.mark.parametrize("spread", [0, -1, 65])
def test_a_spread_has_bounds(spread: int) -> None:
    with pytest.raises(InvalidFields):
        tenant.decide(tenant.empty(f"ten_{TENANT}", TENANT), describe(spread), NOW)


def test_a_tenant_describes_itself_only() -> None:
    with pytest.raises(Conflict):
        tenant.decide(tenant.empty(f"ten_{TENANT}", TENANT), describe(2, id="blue"), NOW)
