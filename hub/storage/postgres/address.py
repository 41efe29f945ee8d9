"""Where a PostgreSQL database is, shown to people without its password."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

TAKES = "postgresql://USER:PASSWORD@HOST:PORT/NAME"


class Address:
    """Raises ValueError, in one line and without the password, for a URL that does not name a database."""

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            host, port, user = parts.hostname or "", parts.port, parts.username or ""
        except ValueError:
            # Its own message may quote a piece of the password.
            raise ValueError(f"the storage URL cannot be read: takes {TAKES}, special characters as %XX") from None
        if parts.scheme not in ("postgresql", "postgres"):
            raise ValueError(f"storage {parts.scheme}:… is not known: takes {TAKES}")
        self.database = unquote(parts.path.lstrip("/"))
        if not self.database or "/" in self.database:
            raise ValueError(f"the storage URL names no database: takes {TAKES}")
        self.url = url
        self.user = unquote(user)
        where = host + (f":{port}" if port else "")
        self._shown = f"postgresql://{self.user + '@' if self.user else ''}{where}/{self.database}"

    def __str__(self) -> str:
        return self._shown

    __repr__ = __str__
