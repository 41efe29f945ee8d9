"""From a message to a Cloud API request, and from its answer to an outcome. Pure.

What an error code means follows Meta's page "Cloud API > Support > Error codes". The API has no idempotency
key: only an answer that says the message was not taken may be followed by another attempt.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from channels.adapter import Outcome, Outgoing, Request
from hub.settings import Channel

VERSION = "v21.0"
TEXT_MAX_CHARS = 4_096
# Throttled, or out of order for a moment: the message was not taken.
_RETRY = {4, 80007, 130429, 131048, 131056, 133016, 131016, 2, 131000, 1}
_MEANING = {
    190: "the access token has expired; connect the channel again",
    10: "the access token may not send; check its permissions",
    131047: "more than 24 hours have passed since the customer wrote; only a template may be sent",
    131026: "the customer cannot receive this: not on WhatsApp, or has not accepted its terms",
    131051: "WhatsApp does not take this type of message",
    131031: "the WhatsApp account is locked; see the Business Manager",
}


class Sent(msgspec.Struct):
    id: str


class Answer(msgspec.Struct):
    messages: list[Sent]


class Problem(msgspec.Struct):
    code: int = 0
    message: str = ""
    error_data: dict[str, str] | None = None


class Refusal(msgspec.Struct):
    error: Problem


_answer = msgspec.json.Decoder(Answer)
_refusal = msgspec.json.Decoder(Refusal)


def request(channel: Channel, outgoing: Outgoing, base_url: str) -> Request:
    body = {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "to": outgoing.address,
        "type": "text",
        "text": {"preview_url": True, "body": outgoing.text[:TEXT_MAX_CHARS]},
        # Comes back in every status of this message, so that even one that overtakes this answer finds it.
        "biz_opaque_callback_data": outgoing.message,
    }
    url = f"{base_url}/{VERSION}/{channel.settings.get('phone_number_id', '')}/messages"
    token = channel.secrets.get("access_token", "")
    headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
    return Request("POST", url, headers, msgspec.json.encode(body))


def outcome(status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
    """Never raises. An answer that is neither yes nor no (a 200 we cannot read) is `unknown`."""
    if 200 <= status < 300:
        try:
            return Outcome("sent", external_id=_answer.decode(body).messages[0].id)
        except (msgspec.MsgspecError, IndexError, UnicodeError):
            return Outcome("unknown", code="unreadable_answer")
    try:
        problem = _refusal.decode(body).error
    except (msgspec.MsgspecError, UnicodeError):
        problem = Problem()
    code = str(problem.code or f"http_{status}")
    if status == 429 or problem.code in _RETRY or status in (502, 503):
        return Outcome("retry", code=code, detail=problem.message, retry_after_s=_retry_after(headers))
    if status >= 500:
        # The server broke in the middle and does not say where: it may have taken the message.
        return Outcome("unknown", code=code, detail=problem.message)
    return Outcome("failed", code=code, detail=_MEANING.get(problem.code) or problem.message or f"HTTP {status}")


def _retry_after(headers: Mapping[str, str]) -> float | None:
    text = headers.get("retry-after", "")
    return min(float(text), 3600.0) if text.isascii() and text.isdigit() else None
