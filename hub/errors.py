"""Every refusal a caller can meet, as one tree with stable codes.

HubError
├── BadRequest            the request itself is wrong; sending it again will not help
│   ├── MalformedBody         400  malformed_body        not JSON, not UTF-8, too deep
│   ├── InvalidFields         422  invalid_fields        each bad field is named
│   ├── BodyTooLarge          413  body_too_large
│   ├── Unauthenticated       401  unauthenticated
│   │   └── BadSignature      401  bad_signature
│   ├── Forbidden             403  forbidden
│   ├── NotFound              404  not_found
│   └── Conflict              409  conflict
│       ├── StaleReply        409  stale_reply           the customer wrote meanwhile
│       └── RevisionConflict  409  revision_conflict     somebody changed it meanwhile
└── Retryable             the same request may succeed later; nothing was half-done
    ├── RateLimited           429  rate_limited
    ├── Overloaded            429  overloaded            a bounded queue is full
    ├── Unavailable           503  unavailable           the owner of the data is moving or restarting
    │   └── StoreUnavailable  503  store_unavailable     the store refused or did not answer
    └── Internal              500  internal              a defect of ours; logged with its trace

`code` is part of the public contract: clients switch on it. `status` is the HTTP status it maps to,
`retry_after_s` a hint for `Retry-After`.
"""

from __future__ import annotations

from typing import ClassVar


class HubError(Exception):
    """Something went wrong that has a name."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    title: ClassVar[str] = "Something went wrong"

    def __init__(self, detail: str = "", *, retry_after_s: float = 0.0, fields: dict[str, str] | None = None) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.retry_after_s = retry_after_s
        self.fields = fields or {}


class BadRequest(HubError):
    code = "bad_request"
    status = 400
    title = "The request cannot be understood"


class MalformedBody(BadRequest):
    code = "malformed_body"
    title = "The body is not valid JSON in UTF-8"


class InvalidFields(BadRequest):
    code = "invalid_fields"
    status = 422
    title = "Some fields are not valid"


class BodyTooLarge(BadRequest):
    code = "body_too_large"
    status = 413
    title = "The body is too large"


class Unauthenticated(BadRequest):
    code = "unauthenticated"
    status = 401
    title = "Sign in first: the token or key is missing, wrong or expired"


class BadSignature(Unauthenticated):
    code = "bad_signature"
    title = "The signature does not match the body"


class Forbidden(BadRequest):
    code = "forbidden"
    status = 403
    title = "This token may not do that"


class NotFound(BadRequest):
    code = "not_found"
    status = 404
    title = "There is no such thing here"


class Conflict(BadRequest):
    code = "conflict"
    status = 409
    title = "The state has changed"


class StaleReply(Conflict):
    code = "stale_reply"
    title = "The customer wrote after the message you were answering"


class RevisionConflict(Conflict):
    code = "revision_conflict"
    title = "Somebody changed this meanwhile; load it again"


class Retryable(HubError):
    code = "retry"
    status = 503
    retryable = True
    title = "Try again in a moment"


class RateLimited(Retryable):
    code = "rate_limited"
    status = 429
    title = "Too many requests; slow down"


class Overloaded(Retryable):
    code = "overloaded"
    status = 429
    title = "The hub is at its limit; try again in a moment"


class Unavailable(Retryable):
    code = "unavailable"
    title = "The owner of this data is restarting or moving; try again in a moment"


class StoreUnavailable(Unavailable):
    code = "store_unavailable"
    title = "The store did not take the write; nothing was saved, try again"


class Internal(Retryable):
    code = "internal"
    status = 500
    title = "A defect of ours; it has been logged"


class Fenced(Exception):
    """Another owner has taken this partition: whatever was being written must be forgotten."""


def _tree(root: type[HubError]) -> dict[str, type[HubError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found |= _tree(child)
    return found


BY_CODE: dict[str, type[HubError]] = _tree(HubError) | {Internal.code: Internal}


def from_code(code: str, detail: str, retry_after_s: float = 0.0) -> HubError:
    """The error a remote side named, rebuilt here; an unknown code is `Internal`."""
    return BY_CODE.get(code, Internal)(detail, retry_after_s=retry_after_s)
