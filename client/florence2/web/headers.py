"""Checks of request headers, and security headers of responses."""

from collections.abc import Mapping
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from florence2.web.config import WebConfig
from florence2.web.requests import is_api

_CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "font-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
SECURITY_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": _CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_PROBES: Final = ("/live", "/ready")
_SAFE_METHODS: Final = ("GET", "HEAD", "OPTIONS")


class SecurityHeaders:
    """Middleware that adds the security headers to every response, unless the route has set its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and add headers to its response."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                if is_api(scope):
                    headers.setdefault("Cache-Control", "no-store")
                if _has_two_lengths(scope):
                    headers["Connection"] = "close"
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)


def _has_two_lengths(scope: Scope) -> bool:
    """Whether a proxy before this server may believe that the request ends elsewhere (RFC 9112, section 6.1)."""
    return {b"content-length", b"transfer-encoding"} <= {name for name, _ in scope["headers"]}


class OwnRequests:
    """Middleware that refuses what other websites make a browser send.

    A website can make its own name resolve to this machine (DNS rebinding): `Host` is then that name. And browsers send
    a form of any website to any address without a preflight request (CORS): `Origin` is then that website.

    Args:
        app: the app behind it.
        config: the accepted hosts and origins.
    """

    def __init__(self, app: ASGIApp, config: WebConfig) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in config.accepted_hosts)
        self._origins = config.allowed_origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the headers of a request.

        Raises:
            HTTPException: 421, `Host` names another host; 403, the request comes from another website.
        """
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            host = headers.get("host", "")
            # Probes name the address of a pod.
            if self._hosts and scope["path"] not in _PROBES and _name(host) not in self._hosts:
                accepted = ", ".join(sorted(self._hosts))
                raise HTTPException(421, f"Host: got {host[:80]!r}, expected one of {accepted} (--allowed-host)")
            self._check_origin(scope, headers, host)
        await self._app(scope, receive, send)

    def _check_origin(self, scope: Scope, headers: Headers, host: str) -> None:
        origin = headers.get("origin")
        if origin is None or scope["method"] in _SAFE_METHODS or {origin, "*"} & set(self._origins):
            return
        if origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
            raise HTTPException(403, f"Origin: got {origin[:80]!r}, which is not allowed (--allow-origin)")


def _name(host: str) -> str:
    """The name in a `Host` header, without the port."""
    if host.startswith("["):
        return host.partition("]")[0].lower() + "]"
    return host.partition(":")[0].lower()
