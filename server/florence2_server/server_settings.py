"""The settings of the whole server: environment variables that are not a single model's."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from florence2_server.addresses import Address, Hosts, Ports
from florence2_server.environment import VARIABLES, without_injected
from florence2_server.errors import ConfigError
from florence2_server.served_model import ServedModel, served_models


class ServerSettings:
    """Reads and checks the environment variables of the whole server.

    Args:
        environment: holds them; an empty variable counts as unset, and one that Kubernetes or Docker defined too.
        defaults: defaults that differ from those of the images.
    """

    def __init__(self, environment: Mapping[str, str], defaults: Mapping[str, str] | None = None) -> None:
        given = without_injected(environment)
        defaults = {**VARIABLES, **(defaults or {})}
        self._values = {name: given.get(name) or default for name, default in defaults.items()}

    def text(self, name: str) -> str:
        """The value as text."""
        return self._values[f"FLORENCE2_{name}"]

    def number(self, name: str, least: int, most: int) -> int:
        """The value as a whole number.

        Raises:
            ConfigError: it is not a whole number, or out of range.
        """
        text = self.text(name)
        if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
            raise ConfigError(f"FLORENCE2_{name}: got {text!r}, expected a whole number from {least} to {most}")
        return int(text)

    def milliseconds(self, name: str) -> int:
        """The value, in seconds and at most a day, converted to the milliseconds of Triton's flags."""
        return 1000 * self.number(name, 1, 86_400)

    def file(self, name: str) -> Path | None:
        """The value as the path of a readable file; None if the variable is unset.

        Raises:
            ConfigError: there is no such file, or this user has no permission to read it.
        """
        if not self.text(name):
            return None
        path = Path(self.text(name))
        if not path.is_file() or not os.access(path, os.R_OK):
            raise ConfigError(f"FLORENCE2_{name}: got {str(path)!r}, expected a file that user {os.getuid()} can read")
        return path

    @property
    def ports(self) -> Ports:
        """The ports to listen on.

        Raises:
            ConfigError: one is not a port.
        """
        services = (self.number(f"{name}_PORT", 1, 65_535) for name in ("HTTP", "GRPC", "METRICS"))
        return Ports(*services, *(self.number(f"{name}_PORT", 0, 65_535) for name in ("HEALTH", "GRPC_HEALTH")))

    @property
    def hosts(self) -> Hosts:
        """The addresses to listen on.

        Raises:
            ConfigError: one is not an address.
        """
        address = self._address("ADDRESS", None)
        # Triton has no TLS for HTTP, so HTTP stays inside the container unless an address is set.
        http = Address.parse("127.0.0.1") if self.text("GRPC_TLS_CERTIFICATE") else address
        return Hosts(address, self._address("HTTP_ADDRESS", http), self._address("HEALTH_ADDRESS", address))

    def served_models(self, models: Sequence[str] = (), model_settings: Sequence[str] = ()) -> tuple[ServedModel, ...]:
        """The served models.

        Args:
            models: `NAME=CHECKPOINT` for each, instead of those of FLORENCE2_MODELS.
            model_settings: `NAME.SETTING=VALUE`, beside those of FLORENCE2_MODEL_SETTINGS, over which they take
                precedence.

        Raises:
            ConfigError: a text is not of the expected form, or a name is invalid.
        """
        return served_models(
            models or self.text("MODELS").split(), [*self.text("MODEL_SETTINGS").split(), *model_settings]
        )

    def _address(self, name: str, default: Address | None) -> Address:
        text = self.text(name)
        if not text and default is not None:
            return default
        try:
            return Address.parse(text)
        except ConfigError as error:
            raise ConfigError(f"FLORENCE2_{name}: {str(error).removeprefix('address: ')}") from None
