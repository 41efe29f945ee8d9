"""Who is asking: the one place that turns a token or a key into a principal, and a principal into a yes or no.

Access tokens are short-lived JWTs signed with a key derived from the installation's secret. Refresh
tokens are random, stored hashed, used once: each use gives a new one, and using an old one again ends the
whole family, since one of the two users is a thief.
"""

from __future__ import annotations

import hashlib
import secrets
import time

import jwt
import msgspec

from api.accounts import Accounts
from hub.errors import Forbidden, Unauthenticated
from hub.model import Author
from hub.ports import Document, Documents
from hub.sealing import Keyring
from hub.settings import SCOPES, Agent

ACCESS_TOKEN_S = 3600
REFRESH_TOKEN_S = 30 * 86_400
REFRESH = "refresh"
ALGORITHM = "HS256"
ADMINISTRATOR_SCOPES = frozenset(SCOPES)
AGENT_SCOPES = frozenset({"conversations", "customers", "stream"})


class Principal(msgspec.Struct, frozen=True):
    """Who is asking, in which tenant, and what they may do."""

    tenant: str
    type: str
    id: str
    name: str
    role: str
    scopes: frozenset[str]
    expires_at: float | None = None

    @property
    def author(self) -> Author:
        """As whom they write: a person as an agent, a program as a bot."""
        return Author("agent" if self.type == "agent" else "bot", self.id, self.name)

    def require(self, scope: str) -> None:
        """Raises Forbidden."""
        if scope not in self.scopes:
            raise Forbidden(f"this needs the scope {scope!r}")


class RefreshFamily(msgspec.Struct):
    """All refresh tokens that descend from one sign-in. `current` is the hash of the one that is valid."""

    tenant: str
    agent: str
    current: str
    expires_at: float
    revoked: bool = False


class Tokens(msgspec.Struct):
    access_token: str
    refresh_token: str
    expires_in: int
    token_type: str = "bearer"


class Auth:
    def __init__(self, accounts: Accounts, documents: Documents, keyring: Keyring) -> None:
        self._accounts = accounts
        self._documents = documents
        self._secret = keyring.token_secret

    async def authenticate(self, credential: str | None) -> Principal:
        """The principal of an access token or API key. Raises Unauthenticated."""
        if not credential or len(credential) > 4096:
            raise Unauthenticated()
        if credential.count(".") == 2:
            return await self._from_token(credential)
        return await self._from_key(credential)

    async def _from_key(self, key: str) -> Principal:
        # Looked up by its hash: nothing compares secrets byte by byte, and no table holds the key.
        found = await self._accounts.api_key(key_id(key))
        if found is None:
            raise Unauthenticated()
        return Principal(found.tenant, "api_key", found.id[:16], found.name, "api_key", frozenset(found.scopes))

    async def _from_token(self, token: str) -> Principal:
        try:
            claims = jwt.decode(token, self._secret, algorithms=[ALGORITHM], options={"require": ["exp", "sub", "ten"]})
        except jwt.PyJWTError:
            raise Unauthenticated() from None
        if claims.get("typ") == "operator":
            return Principal("", "operator", "operator", "Operator", "operator", frozenset({"operator"}), claims["exp"])
        agent = await self._accounts.agent(claims["sub"])
        if agent is None or agent.tenant != claims["ten"]:
            raise Unauthenticated("this account no longer exists")
        return principal_of(agent, claims["exp"])

    async def sign_in(self, agent: Agent) -> Tokens:
        family = secrets.token_urlsafe(16)
        return await self._issue(agent, family, revision=1)

    async def refresh(self, token: str) -> Tokens:
        """Rotate. Raises Unauthenticated, and ends the family where the token was used before."""
        family, _, secret = token.partition(".")
        document = await self._documents.get(REFRESH, family) if family and secret else None
        if document is None:
            raise Unauthenticated("the refresh token is not valid")
        known = msgspec.msgpack.decode(document.body, type=RefreshFamily)
        if known.revoked or known.expires_at < time.time():
            raise Unauthenticated("sign in again")
        if not secrets.compare_digest(known.current, _digest(secret)):
            known.revoked = True
            await self._save(family, known, document.revision + 1)
            raise Unauthenticated("the refresh token was used before; sign in again")
        agent = await self._accounts.agent(known.agent)
        if agent is None:
            raise Unauthenticated("this account no longer exists")
        return await self._issue(agent, family, document.revision + 1)

    async def _issue(self, agent: Agent, family: str, revision: int) -> Tokens:
        secret = secrets.token_urlsafe(32)
        known = RefreshFamily(agent.tenant, agent.id, _digest(secret), time.time() + REFRESH_TOKEN_S)
        await self._save(family, known, revision)
        claims = {"sub": agent.id, "ten": agent.tenant, "exp": int(time.time()) + ACCESS_TOKEN_S, "typ": "access"}
        access = jwt.encode(claims, self._secret, algorithm=ALGORITHM)
        return Tokens(access, f"{family}.{secret}", ACCESS_TOKEN_S)

    async def _save(self, family: str, known: RefreshFamily, revision: int) -> None:
        document = Document(REFRESH, family, known.tenant, revision, msgspec.msgpack.encode(known))
        await self._documents.put([document])


def operator_token(keyring: Keyring) -> str:
    """What the command line signs in with: who holds the installation's secret is its operator."""
    claims = {"sub": "operator", "ten": "", "exp": int(time.time()) + 60, "typ": "operator"}
    return jwt.encode(claims, keyring.token_secret, algorithm=ALGORITHM)


def principal_of(agent: Agent, expires_at: float | None = None) -> Principal:
    scopes = ADMINISTRATOR_SCOPES if agent.role == "administrator" else AGENT_SCOPES
    return Principal(agent.tenant, "agent", agent.id, agent.name, agent.role, scopes, expires_at)


def key_id(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def new_key() -> str:
    return f"hub_{secrets.token_urlsafe(32)}"


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
