"""What `helm test` runs in the cluster: checks each model's health, then sends it one request."""

import argparse
import sys

from florence2.client import TLS, Client
from PIL import Image

SECONDS = 60.0


def main() -> None:
    """Exit with a reason unless every model answers."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--authority")
    parser.add_argument("--key")
    parser.add_argument("--certificate")
    parser.add_argument("--server-name")
    options = parser.parse_args()
    tls = TLS(options.authority, options.key, options.certificate) if options.authority else None
    name = [("grpc.ssl_target_name_override", options.server_name)] if options.server_name else []
    for model in options.model:
        with Client(options.url, model=model, tls=tls, channel_args=name) as client:
            (health,) = client.health(timeout=SECONDS)
            if not health.is_ready:
                sys.exit(f"{model} at {options.url} is not ready: {health}")
            text = client.caption(Image.new("RGB", (64, 64), "white"), timeout=SECONDS).text
            print(f"{model} at {options.url} answers: {text}")  # noqa: T201 - the pod's log


main()
