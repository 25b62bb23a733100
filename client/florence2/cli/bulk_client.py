"""An asynchronous client for the options of the command line."""

from typing import Any, Final

from florence2.cli.exits import CommandError
from florence2.cli.option_groups import DEFAULT_URL, ServerOptions, header_pairs
from florence2.client import TLS, AsyncClient
from florence2.transports import TransportNotFoundError, load_transport

_SERVER_PACKAGE: Final = "florence2-triton-server"


def async_client(options: ServerOptions, adapter: str | None) -> AsyncClient:
    """A client of the servers, or of an engine in this process. It may be made before a server runs.

    Raises:
        CommandError: an option is wrong, or the checkpoint cannot be loaded.
        Florence2Error: a setting of the connection is not valid.
        OSError: a certificate cannot be read.
    """
    if options.checkpoint is not None:
        return AsyncClient(transport=_in_process(options, adapter), timeout=options.timeout)
    urls = options.url or [DEFAULT_URL]
    if not all(url.strip() for url in urls):
        raise CommandError(f"--url: got {urls[0]!r}, expected HOST:PORT")
    files = (options.tls_root_certificates, options.tls_private_key, options.tls_certificate_chain)
    name = options.tls_server_name
    return AsyncClient(
        urls,
        model=options.model,
        timeout=options.timeout,
        headers=header_pairs(options.header) or None,
        tls=TLS(*files) if options.tls or any(files) else None,
        channel_args=[("grpc.ssl_target_name_override", name)] if name else (),
    )


def _in_process(options: ServerOptions, adapter: str | None) -> Any:
    adapters: dict[str, str] = {}
    if adapter is not None:
        name, _, folder = adapter.partition("=")
        if not name or not folder:
            raise CommandError(f"--adapter: got {adapter!r}, expected NAME=FOLDER with --checkpoint")
        adapters[name] = folder
    settings: dict[str, Any] = {} if options.device is None else {"device": options.device}
    try:
        return load_transport("in_process")(options.checkpoint, adapters=adapters, **settings)
    except (TransportNotFoundError, ImportError) as error:
        raise CommandError(f"--checkpoint: {error}; run pip install {_SERVER_PACKAGE}") from error
    except Exception as error:  # the server's own errors, which this package cannot import
        if not type(error).__module__.startswith("florence2"):
            raise
        raise CommandError(f"--checkpoint: {error}") from error
