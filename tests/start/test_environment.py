"""The check of the server's environment variables."""

from dataclasses import is_dataclass

import pytest
from florence2_server import config
from florence2_server.environment import CONFIGS, START_ERROR_FILE, check_environment, known_variables, without_injected
from florence2_server.settings import ConfigError

# What Kubernetes defines for a Service, and Docker for a linked container, called florence2-http.
KUBERNETES = {
    "FLORENCE2_HTTP_SERVICE_HOST": "10.0.0.1",
    "FLORENCE2_HTTP_SERVICE_PORT": "8000",
    "FLORENCE2_HTTP_SERVICE_PORT_HTTP": "8000",
    "FLORENCE2_HTTP_PORT": "tcp://10.0.0.1:8000",
    "FLORENCE2_HTTP_PORT_8000_TCP": "tcp://10.0.0.1:8000",
    "FLORENCE2_HTTP_PORT_8000_TCP_PROTO": "tcp",
    "FLORENCE2_HTTP_PORT_8000_TCP_PORT": "8000",
    "FLORENCE2_HTTP_PORT_8000_TCP_ADDR": "10.0.0.1",
    "FLORENCE2_SERVICE_HOST": "10.0.0.1",
    "FLORENCE2_PORT": "tcp://10.0.0.1:8000",
    "FLORENCE2_PORT_53_UDP": "udp://10.0.0.1:53",
}
DOCKER = {"FLORENCE2_HTTP_NAME": "/web/florence2-http", "FLORENCE2_HTTP_ENV_PATH": "/usr/bin"}


def test_every_known_variable_and_those_of_others_are_accepted():
    check_environment(dict.fromkeys(known_variables(), "1") | {"PATH": "/bin", "FLORENCE": "1"})


def test_every_config_is_known():
    configs = [each for each in vars(config).values() if is_dataclass(each) and each.__module__ == config.__name__]
    assert set(configs) == set(CONFIGS)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("FLORENCE2_SLOT", "FLORENCE2_SLOTS"),
        ("FLORENCE2_CHEKPOINT", "FLORENCE2_CHECKPOINT"),
        ("FLORENCE2_PORT_HTTP", "FLORENCE2_HTTP_PORT"),
        ("FLORENCE2_MAX_NEW_TOKEN", "FLORENCE2_MAX_NEW_TOKENS"),
        ("FLORENCE2_MODEL", "FLORENCE2_MODELS"),
        ("FLORENCE2_slots", "FLORENCE2_SLOTS"),
    ],
)
def test_a_misspelled_variable_is_named_with_the_nearest_known_one(name, meant):
    with pytest.raises(ConfigError, match=f"^{name}: no such variable, did you mean {meant}\\?$"):
        check_environment({name: "4"})


def test_a_variable_that_the_server_sets_itself_is_accepted_but_never_suggested():
    check_environment({START_ERROR_FILE: "/tmp/start-error"})  # noqa: S108 - never opened
    with pytest.raises(ConfigError) as error:
        check_environment({f"{START_ERROR_FILE}S": "4"})
    assert START_ERROR_FILE not in str(error.value).partition("did you mean")[2]


def test_several_misspelled_variables_share_one_line():
    with pytest.raises(ConfigError, match=r"FLORENCE2_ROW: .*FLORENCE2_ROWS\?; FLORENCE2_SLOT: .*FLORENCE2_SLOTS\?$"):
        check_environment({"FLORENCE2_SLOT": "4", "FLORENCE2_ROW": "4"})


@pytest.mark.parametrize(("name", "value"), [*KUBERNETES.items(), *DOCKER.items()])
def test_a_variable_that_was_injected_for_a_service_is_ignored(name, value):
    check_environment({name: value})
    assert without_injected({name: value, "FLORENCE2_SLOTS": "4"}) == {"FLORENCE2_SLOTS": "4"}


def test_a_port_that_is_a_number_is_not_taken_for_an_injected_variable():
    assert without_injected({"FLORENCE2_HTTP_PORT": "9000"}) == {"FLORENCE2_HTTP_PORT": "9000"}
    with pytest.raises(ConfigError, match="FLORENCE2_HTP_PORT"):
        check_environment({"FLORENCE2_HTP_PORT": "9000"})
