"""Certificates for TLS."""

from pathlib import Path

from tests.deploy.conftest import run


def certificates(folder: Path) -> None:
    """Make an authority and certificates of a server and a client that it signed."""
    openssl = (
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "1",
    )
    run(*openssl, "-subj", "/CN=authority", "-keyout", "authority.key", "-out", "authority.pem", cwd=folder)
    for name in ("server", "client"):
        signed = ("-CA", "authority.pem", "-CAkey", "authority.key", "-addext", "subjectAltName=DNS:localhost")
        run(*openssl, *signed, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem", cwd=folder)
    folder.chmod(0o755)  # the container runs as another user
    for key in folder.glob("*.key"):
        key.chmod(0o644)
