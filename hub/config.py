"""Settings of the server: one table that flags, `HUB_…` variables and `--help` are all made from.

An unknown variable or an invalid value stops the start with one line that names the setting, what it
got and what it takes.
"""

from __future__ import annotations

import difflib
import hashlib
import ipaddress
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from hub.storage import TAKES

PREFIX = "HUB_"
CREDENTIALS = re.compile(r"//[^/]*@")
"""User and password of a URL, which are shown to nobody."""


class InvalidSetting(Exception):
    """A setting has a value it does not take. The message is one line for the person who starts the hub."""


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError
        return value

    return parse


def _flag(text: str) -> bool:
    values = {
        "1": True,
        "true": True,
        "yes": True,
        "on": True,
        "0": False,
        "false": False,
        "no": False,
        "off": False,
        "": False,
    }
    return values[text.strip().lower()]


def _http_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError
    return text.rstrip("/")


def _redis_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        raise ValueError
    return text


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not 0 < int(port) < 65536:
        raise ValueError
    return text


def _level(text: str) -> str:
    if text.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise ValueError
    return text.upper()


def _text(text: str) -> str:
    if not text:
        raise ValueError
    return text


class Option(msgspec.Struct, frozen=True):
    name: str
    default: Any
    parse: Callable[[str], Any]
    takes: str
    help: str

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper()

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


OPTIONS: tuple[Option, ...] = (
    Option("host", "127.0.0.1", _text, "an address to listen on", "address to listen on"),
    Option("port", 8000, _integer(1, 65535), "a number from 1 to 65535", "port to listen on"),
    Option("data_dir", Path("data"), lambda t: Path(_text(t)), "a folder", "embedded storage, secret key, attachments"),
    Option(
        "storage",
        None,
        _text,
        TAKES,
        "where the journal lives (default: SQLite in the data folder)",
    ),
    Option("redis", None, _redis_url, "redis://HOST:PORT/DB", "what gateways share: limits, revocations, presence"),
    Option("shards", 1, _integer(1, 256), "a number from 1 to 256", "processes on each node that own partitions"),
    Option("standbys", 1, _integer(0, 16), "a number from 0 to 16", "shards on each node that wait to replace one"),
    Option(
        "gateways", 1, _integer(1, 256), "a number from 1 to 256", "processes on each node that take HTTP and WebSocket"
    ),
    Option(
        "partitions",
        None,
        _integer(1, 4096),
        "a number from 1 to 4096",
        "partitions of a new store (default 16); fixed for its life",
    ),
    Option("ray_address", None, _text, "HOST:PORT or auto", "join this Ray cluster instead of starting Ray here"),
    Option("demo", False, _flag, "true or false", "loopback only: demo tenants, logins and a built-in provider"),
    Option("public_url", None, _http_url, "an http(s) URL", "where providers reach the hub"),
    Option(
        "secret_key",
        None,
        _text,
        "a long random text",
        "the installation's secret (default: secret.key in the data folder)",
    ),
    Option("log_level", "INFO", _level, "DEBUG, INFO, WARNING or ERROR", "how much to log"),
    Option(
        "requests_per_minute", 1000, _integer(1, 10_000_000), "a number from 1 to 10000000", "rate limit of one client"
    ),
    Option(
        "tenant_messages_per_second",
        0,
        _integer(0, 1_000_000),
        "a number from 0 to 1000000",
        "most that one tenant's customers may send through one gateway (0: no bound but a fair share)",
    ),
    Option("whatsapp_api", None, _http_url, "an http(s) URL", "where the WhatsApp Cloud API is called"),
    Option("telegram_api", None, _http_url, "an http(s) URL", "where the Telegram Bot API is called"),
    Option("twilio_api", None, _http_url, "an http(s) URL", "where Twilio is called"),
    Option("smtp", None, _address, "HOST:PORT", "where outbound mail is handed over"),
    Option("smtp_listen", None, _address, "HOST:PORT", "open the inbound mail listener here"),
    Option("ai_api", None, _http_url, "an http(s) URL", "where the language model is called"),
)
BY_NAME = {option.name: option for option in OPTIONS}
# Read by the tests and by the tools around the hub, never by the server.
FOREIGN_VARIABLES = ("HUB_TEST_", "HUB_URL", "HUB_KEY")


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """What the server was told. Field names are those of `OPTIONS`."""

    host: str
    port: int
    data_dir: Path
    storage: str
    redis: str | None
    shards: int
    standbys: int
    gateways: int
    partitions: int | None
    ray_address: str | None
    demo: bool
    public_url: str | None
    secret_key: str | None
    log_level: str
    requests_per_minute: int
    tenant_messages_per_second: int
    whatsapp_api: str | None
    telegram_api: str | None
    twilio_api: str | None
    smtp: str | None
    smtp_listen: str | None
    ai_api: str | None

    @property
    def several_gateways(self) -> bool:
        """Several gateways of one machine listen on the same port, and the kernel shares connections out."""
        return self.gateways > 1 or self.ray_address is not None


def load(flags: Mapping[str, str | bool | None], environ: Mapping[str, str]) -> Config:
    """Flags win over variables, variables over defaults. Raises InvalidSetting."""
    _refuse_unknown(environ)
    values: dict[str, Any] = {}
    for option in OPTIONS:
        given, source = flags.get(option.name), option.flag
        if given is None and environ.get(option.variable):
            given, source = environ[option.variable], option.variable
        values[option.name] = option.default if given is None else _parse(option, str(given), source)
    values["data_dir"] = Path(values["data_dir"]).absolute()
    values["storage"] = values["storage"] or f"sqlite://{values['data_dir']}"
    config = Config(**values)
    if config.demo and not is_loopback(config.host):
        raise InvalidSetting(
            f"--demo has well-known passwords, so --host must be loopback: got {config.host!r}, takes 127.0.0.1"
        )
    return config


OWN_TO_EACH_START = frozenset({"data_dir", "ray_address", "log_level"})


def marks(config: Config) -> dict[str, str]:
    """Of each setting that makes one hub differ from another, a mark that tells whether it is the same, not what it is."""
    told = {name: value for name, value in msgspec.structs.asdict(config).items() if name not in OWN_TO_EACH_START}
    return {name: hashlib.sha256(f"{name}={value}".encode()).hexdigest()[:16] for name, value in told.items()}


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _parse(option: Option, text: str, source: str) -> Any:
    try:
        return option.parse(text)
    except (ValueError, KeyError):
        shown = CREDENTIALS.sub("//…@", text)
        raise InvalidSetting(f"{source} got {shown!r}, takes {option.takes}") from None


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    known = {option.variable for option in OPTIONS}
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in known or name.startswith(FOREIGN_VARIABLES):
            continue
        near = difflib.get_close_matches(name, known, 1)
        raise InvalidSetting(
            f"{name} is not a setting" + (f"; did you mean {near[0]}?" if near else "; see hub serve --help")
        )
