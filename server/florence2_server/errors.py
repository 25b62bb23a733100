"""Errors of the server's configuration."""


class ConfigError(ValueError):
    """A setting is invalid. The message names the setting, the value and the limit."""
