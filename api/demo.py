"""The demo tenants: exactly what the README promises. Loopback only, since everybody knows the passwords."""

from __future__ import annotations

from api.accounts import EMAIL_CLAIM
from api.auth import key_id
from api.context import Gateway
from api.passwords import hash_password
from hub.commands import PutSetting
from hub.errors import RevisionConflict
from hub.model import Author
from hub.settings import KINDS, SCOPES, Agent, ApiKey, Channel, Setting, Tenant

SECRET = "demo-secret"
PASSWORD = "demo"
LOGINS = ("ana@demo.test", "luis@demo.test", "admin@demo.test")
SPREAD_OVER_SHARDS = 8


def settings_of_demo(spread: int) -> list[Setting]:
    """`spread`: over how many partitions the first tenant's customers live."""
    hashed = hash_password(PASSWORD)

    def agent(id: str, name: str, tenant: str, role: str = "agent") -> Agent:
        email = f"{id.removeprefix('agt_')}@{tenant}.test"
        return Agent(id=id, tenant=tenant, email=email, name=name, role=role, password=hashed)  # type: ignore[arg-type]

    def channel(id: str, kind: str, name: str, settings: dict[str, str], secrets: dict[str, str]) -> Channel:
        return Channel(id=id, tenant=id.partition("-")[0], kind=kind, name=name, settings=settings, secrets=secrets)

    def key(tenant: str) -> ApiKey:
        return ApiKey(id=key_id(f"{tenant}-key"), tenant=tenant, name="Demo", hint=f"{tenant}-key", scopes=list(SCOPES))

    return [
        Tenant(id="demo", name="Demo", spread=spread),
        agent("agt_ana", "Ana Pérez", "demo"),
        agent("agt_luis", "Luis Romero", "demo"),
        agent("agt_admin", "Alex Admin", "demo", "administrator"),
        key("demo"),
        channel(
            "demo-whatsapp",
            "whatsapp",
            "WhatsApp",
            {"phone_number_id": "10001"},
            {"app_secret": SECRET, "verify_token": "demo-verify", "access_token": "demo"},
        ),
        channel("demo-telegram", "telegram", "Telegram", {}, {"secret_token": SECRET, "bot_token": "10001:demo"}),
        channel("demo-web", "web", "Web chat", {}, {"identity_secret": SECRET}),
        channel("demo-email", "email", "E-mail", {"address": "hola@demo.test"}, {}),
        channel("demo-sms", "sms", "SMS", {"account": "ACdemo", "number": "+15550001"}, {"auth_token": SECRET}),
        channel("demo-api", "api", "API", {}, {}),
        Tenant(id="demo2", name="Demo 2"),
        agent("agt_eva", "Eva Lima", "demo2", "administrator"),
        key("demo2"),
        channel("demo2-web", "web", "Web chat", {}, {"identity_secret": SECRET}),
    ]


async def seed(gateway: Gateway) -> None:
    """Make what is missing; what is there is left as it is."""
    system = Author("system", "demo", "Demo")
    last = {}
    # A tenant of one partition would leave every shard but one idle.
    spread = min(SPREAD_OVER_SHARDS, gateway.store.partitions) if gateway.config.shards > 1 else 1
    for setting in settings_of_demo(spread):
        kind = KINDS[type(setting)]
        if isinstance(setting, Agent):
            await gateway.accounts.claim(EMAIL_CLAIM, setting.email, f"{setting.tenant}/{setting.id}")
        if isinstance(setting, Channel):
            await gateway.accounts.claim("channel-id", setting.id, setting.tenant)
        tenant = setting.id if isinstance(setting, Tenant) else setting.tenant
        document = gateway.vault.encode(setting)
        command = PutSetting(kind=kind, id=setting.id, document=document, by=system, if_revision=0)
        try:
            last[tenant] = await gateway.ask(tenant, gateway.settings_stream(tenant), command)
        except RevisionConflict:
            continue
    for done in last.values():
        await gateway.reach(done)
