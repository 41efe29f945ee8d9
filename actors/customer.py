"""The customer actor, and the conversations that live with it.

A customer and all their conversations are one stream: one mailbox, one order, one data key. An inbound
message is decided here (is it a repeat? which conversation does it belong to?) and in its conversation, in
the same turn, so that first contact opens exactly one conversation however many messages arrive at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import UNSET

from actors import conversation
from actors.decision import Decision
from hub import commands as c
from hub.clock import plausible
from hub.errors import NotFound
from hub.events import (
    Content,
    ConversationOpened,
    CustomerCreated,
    CustomerUpdated,
    Event,
    MessageReceived,
    MessageStatusChanged,
    ReceiptHeld,
)
from hub.ids import conversation_id, customer_of, message_id, ordinal_of, split_message
from hub.model import STATUS_RANK, ConversationState, CustomerImage, CustomerState, HeldReceipt, Identity, MessageStatus
from hub.window import find, fingerprint, remember

HELD_MAX_RECEIPTS = 32
IDENTITIES_MAX_COUNT = 32


def empty(stream: str, tenant: str) -> CustomerImage:
    return CustomerImage(customer=CustomerState(id=stream, tenant=tenant))


def decide(image: CustomerImage, command: c.Command, now: int) -> Decision:
    """Raises HubError where the command is refused; the state is untouched either way."""
    return _DECIDE[type(command)](image, command, now)


def _existing(image: CustomerImage, conversation: str) -> ConversationState:
    if customer_of(conversation) == image.customer.id:
        state = image.conversations.get(ordinal_of(conversation))
        if state is not None:
            return state
    raise NotFound(f"there is no conversation {conversation}")


def _receive(image: CustomerImage, command: c.ReceiveMessage, now: int) -> Decision:
    customer = image.customer
    mark = fingerprint(f"{command.channel}\0{command.external_id}")
    earlier = find(customer.seen, mark)
    if earlier is not None:
        known = conversation_id(customer.id, earlier[0])
        return Decision([], known, message_id(known, earlier[1]), duplicate=True)
    events, ordinal = _contact(image, command, command.name)
    decision = conversation.receive(
        conversation_id(customer.id, ordinal),
        image.conversations.get(ordinal),
        command,
        mark=mark,
        at=plausible(command.sent_at, now),
    )
    decision.events = events + decision.events
    return decision


def _contact(
    image: CustomerImage, command: c.ReceiveMessage | c.StartConversation, name: str | None
) -> tuple[list[Event], int]:
    """Events that make the customer and the conversation exist, and the conversation's ordinal."""
    customer = image.customer
    events: list[Event] = []
    who = Content(name=name, address=command.address, identity=command.identity)
    if not any(known.key == command.identity for known in customer.identities):
        if len(customer.identities) < IDENTITIES_MAX_COUNT:
            events.append(CustomerCreated(channel=command.channel, channel_kind=command.channel_kind, content=who))
    elif name and not customer.name:
        events.append(CustomerUpdated(named=True, content=Content(name=name)))
    ordinal = customer.by_channel.get(command.channel)
    if ordinal is None:
        ordinal = customer.opened + 1
        events.append(
            ConversationOpened(
                conversation=conversation_id(customer.id, ordinal),
                channel=command.channel,
                channel_kind=command.channel_kind,
                content=Content(address=command.address),
            )
        )
    return events, ordinal


def _start(image: CustomerImage, command: c.StartConversation, now: int) -> Decision:
    events, ordinal = _contact(image, command, command.name)
    target = conversation_id(image.customer.id, ordinal)
    message = c.SendMessage(conversation=target, author=command.author, text=command.text, client_id=command.client_id)
    decision = conversation.send(
        target,
        image.conversations.get(ordinal),
        message,
        channel=command.channel,
        kind=command.channel_kind,
        address=command.address,
    )
    if not decision.duplicate:
        decision.events = events + decision.events
    return decision


def _send(image: CustomerImage, command: c.SendMessage, now: int) -> Decision:
    state = _existing(image, command.conversation)
    return conversation.send(
        state.id, state, command, channel=state.channel, kind=state.channel_kind, address=state.address
    )


def _receipt(image: CustomerImage, command: c.RecordReceipt, now: int) -> Decision:
    found = _find_message(image, command)
    if found is None:
        return Decision(_hold(image, command))
    state, seq = found
    event = conversation.receipt(state, seq, command.status, command.external_id, command.error)
    events = [] if event is None else [event]
    if command.external_id is not None:
        reached = event.status if isinstance(event, MessageStatusChanged) else state.outbound[seq].status
        events += _release_held(image, state, seq, command.external_id, reached)
    return Decision(events, state.id, message_id(state.id, seq))


def _find_message(image: CustomerImage, command: c.RecordReceipt) -> tuple[ConversationState, int] | None:
    split = split_message(command.message) if command.message else None
    if split is not None and customer_of(split[0]) == image.customer.id:
        state = image.conversations.get(ordinal_of(split[0]))
        if state is not None and split[1] in state.outbound:
            return state, split[1]
    if command.external_id is None:
        return None
    for state in image.conversations.values():
        if state.channel != command.channel:
            continue
        for seq, message in state.outbound.items():
            if message.external_id == command.external_id:
                return state, seq
    return None


def _hold(image: CustomerImage, command: c.RecordReceipt) -> list[Event]:
    """Keep news of a message whose external id we do not know yet, unless newer news are kept already."""
    if command.external_id is None or command.message is not None:
        return []
    for held in image.customer.held:
        if held.external_id == command.external_id and STATUS_RANK[held.status] >= STATUS_RANK[command.status]:
            return []
    content = Content(external_id=command.external_id)
    return [ReceiptHeld(status=command.status, error=command.error, content=content)]


def _release_held(
    image: CustomerImage, state: ConversationState, seq: int, external_id: str, reached: MessageStatus | None
) -> list[Event]:
    return [
        MessageStatusChanged(conversation=state.id, seq=seq, status=held.status, error=held.error)
        for held in image.customer.held
        if held.external_id == external_id and conversation.moves_forward(reached, held.status)
    ]


def _get_conversation(image: CustomerImage, command: c.GetConversation, now: int) -> Decision:
    return Decision([], _existing(image, command.conversation).id)


def _get_customer(image: CustomerImage, command: c.GetCustomer, now: int) -> Decision:
    if not image.customer.identities:
        raise NotFound(f"there is no customer {image.customer.id}")
    return Decision([])


def _update_customer(image: CustomerImage, command: c.UpdateCustomer, now: int) -> Decision:
    _get_customer(image, c.GetCustomer(), now)
    named = command.name is not UNSET and command.name != image.customer.name
    wanted = {} if command.attributes is UNSET else command.attributes
    changed = {k: v for k, v in wanted.items() if image.customer.attributes.get(k) != v}
    if not named and not changed:
        return Decision([])
    content = Content(name=command.name if named else None, attributes=changed)  # type: ignore[arg-type]
    return Decision([CustomerUpdated(named=named, content=content)])


def _in_conversation(decider: Callable[..., Decision], *, timed: bool = False) -> Callable[..., Decision]:
    def decide_there(image: CustomerImage, command: Any, now: int) -> Decision:
        state = _existing(image, command.conversation)
        return decider(state, command, now) if timed else decider(state, command)

    return decide_there


_DECIDE: dict[type[c.Command], Callable[[CustomerImage, Any, int], Decision]] = {
    c.ReceiveMessage: _receive,
    c.StartConversation: _start,
    c.SendMessage: _send,
    c.RecordReceipt: _receipt,
    c.UpdateConversation: _in_conversation(conversation.update, timed=True),
    c.MarkRead: _in_conversation(conversation.mark_read),
    c.CustomerRead: _in_conversation(conversation.customer_read),
    c.BeginDelivery: _in_conversation(conversation.begin_delivery),
    c.DeferDelivery: _in_conversation(conversation.defer_delivery),
    c.FireTimer: _in_conversation(conversation.fire_timer, timed=True),
    c.GetConversation: _get_conversation,
    c.GetCustomer: _get_customer,
    c.UpdateCustomer: _update_customer,
}


# --- apply --------------------------------------------------------------------------------------------------------


def apply(image: CustomerImage, event: Event, at: int) -> None:
    customer = image.customer
    handler = _APPLY.get(type(event))
    if handler is not None:
        handler(image, event, at)
    target = getattr(event, "conversation", None)
    if target is not None:
        state = image.conversations.get(ordinal_of(target))
        if state is not None:
            conversation.apply(state, event, at, customer)
    customer.updated_at = max(customer.updated_at, at)


def _apply_created(image: CustomerImage, event: CustomerCreated, at: int) -> None:
    customer, content = image.customer, event.content or Content()
    customer.created_at = customer.created_at or at
    customer.name = customer.name or content.name
    identity = Identity(content.identity or "", content.address or "", event.channel, event.channel_kind)
    customer.identities = [*customer.identities, identity]


def _apply_customer_updated(image: CustomerImage, event: CustomerUpdated, at: int) -> None:
    content = event.content or Content()
    if event.named:
        image.customer.name = content.name
    for key, value in content.attributes.items():
        if value is None:
            image.customer.attributes.pop(key, None)
        else:
            image.customer.attributes[key] = value


def _apply_opened(image: CustomerImage, event: ConversationOpened, at: int) -> None:
    ordinal = ordinal_of(event.conversation)
    image.customer.opened = max(image.customer.opened, ordinal)
    image.customer.by_channel[event.channel] = ordinal
    image.conversations[ordinal] = conversation.new(event, at)


def _apply_received(image: CustomerImage, event: MessageReceived, at: int) -> None:
    image.customer.last_seen_at = at
    remember(image.customer.seen, event.mark, ordinal_of(event.conversation), event.seq)


def _apply_held(image: CustomerImage, event: ReceiptHeld, at: int) -> None:
    external_id = (event.content or Content()).external_id or ""
    kept = [held for held in image.customer.held if held.external_id != external_id]
    image.customer.held = [*kept, HeldReceipt(external_id, event.status, event.error, at)][-HELD_MAX_RECEIPTS:]


def _apply_status(image: CustomerImage, event: MessageStatusChanged, at: int) -> None:
    learned = event.content.external_id if event.content else None
    if learned is not None and image.customer.held:
        image.customer.held = [held for held in image.customer.held if held.external_id != learned]


_APPLY: dict[type[Event], Callable[[CustomerImage, Any, int], None]] = {
    CustomerCreated: _apply_created,
    CustomerUpdated: _apply_customer_updated,
    ConversationOpened: _apply_opened,
    MessageReceived: _apply_received,
    ReceiptHeld: _apply_held,
    MessageStatusChanged: _apply_status,
}
