"""API keys in a file, which is read again when it changes."""

import hashlib
import hmac
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeAlias

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from florence2.errors import InvalidArgumentError, UnavailableError
from florence2.web.requests import facts_of, is_api

_LOG: Final = logging.getLogger("florence2.web")
_LINE: Final = re.compile(r"(?:(?P<name>[A-Za-z0-9_.@-]{1,64}):)?(?P<key>[!-~]+)")
_FEWEST_CHARACTERS: Final = 16
_CHALLENGE: Final = {"WWW-Authenticate": "Bearer"}

_Version: TypeAlias = tuple[int, int, int]


class ApiKeys:
    """The keys of a file, each with a name for the log.

    A line is `NAME:KEY`, or only a key, without a colon; its name is then `key` and the line's number. Empty lines and
    lines that begin with `#` are skipped. A key has at least 16 printable ASCII characters.

    Raises:
        InvalidArgumentError: a line is not a key, or the file has no keys.
        OSError: the file cannot be read.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._version = self._current_version()
        self._names = self._read()
        if not self._names:
            raise InvalidArgumentError.of_field("api_keys", str(file), "a file with at least one key")

    def name(self, key: str) -> str | None:
        """The name of a key; None if it is not in the file.

        Raises:
            UnavailableError: the file has changed and cannot be read. Until it can be, no key is accepted.
        """
        self._read_again_if_changed()
        digest, found = _digest(key), None
        # All keys are compared, so that the time does not reveal which one is similar.
        for known, name in self._names.items():
            if hmac.compare_digest(known, digest):
                found = name
        return found

    def _read_again_if_changed(self) -> None:
        try:
            version = self._current_version()
            if version == self._version:
                return
            names = self._read()
        except (OSError, InvalidArgumentError) as error:
            _LOG.error("no API key is accepted: %s", error)
            raise UnavailableError("the API keys cannot be read; the reason is in the server's log") from error
        self._names, self._version = names, version
        _LOG.info("%d API keys read from %s", len(names), self._file)

    def _current_version(self) -> _Version:
        status = os.stat(self._file)  # noqa: PTH116 - as a tuple of numbers
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _read(self) -> Mapping[bytes, str]:
        names: dict[bytes, str] = {}
        for number, line in enumerate(self._file.read_text("utf-8", errors="replace").splitlines(), 1):
            if not (text := line.strip()) or text.startswith("#"):
                continue
            if (found := _LINE.fullmatch(text)) is None or len(found["key"]) < _FEWEST_CHARACTERS:
                # Not the line itself, which may be a key.
                requirement = f"NAME:KEY, with at least {_FEWEST_CHARACTERS} printable ASCII characters in KEY"
                raise InvalidArgumentError.of_field("api_keys", f"{self._file}, line {number}", requirement)
            names.setdefault(_digest(found["key"]), found["name"] or f"key {number}")
        return names


class RequireKey:
    """Middleware that refuses requests for the API without a known key.

    Args:
        app: the app behind it.
        keys: the keys; None: none is required.
    """

    def __init__(self, app: ASGIApp, keys: ApiKeys | None) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the key of a request, and remember its name for the log.

        Raises:
            HTTPException: 401, the key is missing or unknown.
            UnavailableError: the file of keys cannot be read.
        """
        if self._keys is not None and is_api(scope):
            given = _given_key(Headers(scope=scope))
            if given is None:
                raise HTTPException(
                    401, "expected an API key: Authorization: Bearer KEY, or X-API-Key: KEY", _CHALLENGE
                )
            if (name := self._keys.name(given)) is None:
                raise HTTPException(401, "unknown API key", _CHALLENGE)
            facts_of(scope)["key"] = name
        await self._app(scope, receive, send)


def _given_key(headers: Headers) -> str | None:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return headers.get("x-api-key") or None


def _digest(key: str) -> bytes:
    # Digests have the same length, so a comparison does not reveal the length of a key.
    return hashlib.sha256(key.encode("utf-8", errors="surrogateescape")).digest()
