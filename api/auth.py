"""Who is asking: the one place that turns a token or a key into a principal, and a principal into a yes or no.

Access tokens are short-lived JWTs signed with a key derived from the installation's secret. Each names the
sign-in it descends from (`fam`, see `signins.py`) and counts no longer than that does.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from typing import Any

import jwt
import msgspec

from api.accounts import Accounts
from api.signins import SignIns
from hub.errors import Forbidden, Unauthenticated
from hub.model import Author
from hub.ports import Documents
from hub.sealing import Keyring
from hub.settings import SCOPES, Agent

ACCESS_TOKEN_S = 3600
CREDENTIAL_MAX_CHARS = 4096
ALGORITHM = "HS256"
ADMINISTRATOR_SCOPES = frozenset(SCOPES)
AGENT_SCOPES = frozenset({"conversations", "customers", "stream"})


class Principal(msgspec.Struct, frozen=True):
    """Who is asking, in which tenant, and what they may do.

    `credential` is what all of it rests on: the family of a person's sign-in, the id of a program's key.
    """

    tenant: str
    type: str
    id: str
    name: str
    role: str
    scopes: frozenset[str]
    expires_at: float | None = None
    credential: str = ""

    @property
    def author(self) -> Author:
        """As whom they write: a person as an agent, a program as a bot."""
        return Author("agent" if self.type == "agent" else "bot", self.id, self.name)

    def require(self, scope: str) -> None:
        """Raises Forbidden."""
        if scope not in self.scopes:
            raise Forbidden(f"this needs the scope {scope!r}")


class Tokens(msgspec.Struct):
    access_token: str
    refresh_token: str
    expires_in: int
    token_type: str = "bearer"


class Auth:
    """`on_end`: see `SignIns`."""

    def __init__(
        self, accounts: Accounts, documents: Documents, keyring: Keyring, on_end: Callable[[str, str], None]
    ) -> None:
        self._accounts = accounts
        self._secret = keyring.token_secret
        self.sign_ins = SignIns(documents, on_end)

    async def authenticate(self, credential: str | None) -> Principal:
        """The principal of an access token or API key. Raises Unauthenticated."""
        if not credential or len(credential) > CREDENTIAL_MAX_CHARS:
            raise Unauthenticated()
        if credential.count(".") == 2:
            return await self._from_token(credential)
        return await self._from_key(key_id(credential))

    async def confirm(self, who: Principal) -> None:
        """Raises Unauthenticated where what `who` was admitted for has ended since."""
        if who.type == "agent":
            await self._signed_in(who.id, who.tenant, who.credential, who.expires_at)
        elif who.type == "api_key":
            await self._from_key(who.credential)

    async def _from_key(self, id: str) -> Principal:
        # Looked up by its hash: nothing compares secrets byte by byte, and no table holds the key.
        found = await self._accounts.api_key(id)
        if found is None:
            raise Unauthenticated()
        scopes = frozenset(found.scopes)
        return Principal(found.tenant, "api_key", found.id[:16], found.name, "api_key", scopes, credential=found.id)

    async def _from_token(self, token: str) -> Principal:
        claims = self._claims(token)
        if claims.get("typ") == "operator":
            return Principal("", "operator", "operator", "Operator", "operator", frozenset({"operator"}), claims["exp"])
        return await self._signed_in(claims["sub"], claims["ten"], str(claims.get("fam", "")), claims["exp"])

    def _claims(self, token: str) -> dict[str, Any]:
        """Raises Unauthenticated."""
        required = {"require": ["exp", "sub", "ten"]}
        try:
            return jwt.decode(token, self._secret, algorithms=[ALGORITHM], options=required)  # type: ignore[arg-type]
        except jwt.PyJWTError:
            raise Unauthenticated() from None

    async def _signed_in(self, id: str, tenant: str, family: str, expires_at: float | None) -> Principal:
        agent = await self._accounts.agent(id)
        if agent is None or agent.tenant != tenant:
            raise Unauthenticated("this account no longer exists")
        if not await self.sign_ins.is_live(family):
            raise Unauthenticated("this sign-in has ended; sign in again")
        return principal_of(agent, expires_at, family)

    async def sign_in(self, agent: Agent) -> Tokens:
        family, refresh_token = await self.sign_ins.begin(agent)
        return self._tokens(agent, family, refresh_token)

    async def refresh(self, token: str) -> Tokens:
        """Rotate. Raises Unauthenticated, and ends the sign-in where the token was used before."""
        family, known, revision = await self.sign_ins.read(token)
        agent = await self._accounts.agent(known.agent)
        if agent is None:
            raise Unauthenticated("this account no longer exists")
        return self._tokens(agent, family, await self.sign_ins.rotate(family, known, revision))

    async def revoke(self, token: str) -> None:
        """End the sign-in that an access or refresh token belongs to. A token that is not valid has nothing to end."""
        if token.count(".") == 2:
            try:
                family = self._claims(token).get("fam")
            except Unauthenticated:
                return
        else:
            family = await self.sign_ins.family_of(token)
        if family:
            await self.sign_ins.end(family)

    def _tokens(self, agent: Agent, family: str, refresh_token: str) -> Tokens:
        expires = int(time.time()) + ACCESS_TOKEN_S
        claims = {"sub": agent.id, "ten": agent.tenant, "exp": expires, "typ": "access", "fam": family}
        return Tokens(jwt.encode(claims, self._secret, algorithm=ALGORITHM), refresh_token, ACCESS_TOKEN_S)


def operator_token(keyring: Keyring) -> str:
    """What the command line signs in with: who holds the installation's secret is its operator."""
    claims = {"sub": "operator", "ten": "", "exp": int(time.time()) + 60, "typ": "operator"}
    return jwt.encode(claims, keyring.token_secret, algorithm=ALGORITHM)


def principal_of(agent: Agent, expires_at: float | None, family: str) -> Principal:
    scopes = ADMINISTRATOR_SCOPES if agent.role == "administrator" else AGENT_SCOPES
    return Principal(agent.tenant, "agent", agent.id, agent.name, agent.role, scopes, expires_at, family)


def key_id(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def new_key() -> str:
    return f"hub_{secrets.token_urlsafe(32)}"
