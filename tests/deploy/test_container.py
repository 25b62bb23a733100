"""The images' environment variables, and the flags of tritonserver that they become."""

import re

import pytest
from florence2_server import serving
from florence2_server.environment import VARIABLES
from florence2_server.errors import ConfigError
from florence2_server.flags import flags
from florence2_server.server_settings import ServerSettings

from tests.deploy.conftest import DOCKER

pytestmark = pytest.mark.deploy


@pytest.fixture
def pem(tmp_path):
    """`pem(name)`: the path of a readable file."""

    def pem(name):
        path = tmp_path / name
        path.write_text("-----BEGIN NOTHING-----\n")
        return str(path)

    return pem


def settings_of(**environment: str) -> ServerSettings:
    return ServerSettings({f"FLORENCE2_{name}": value for name, value in environment.items()})


def flags_of(*, is_closed: bool = True, **environment: str) -> dict[str, list[str]]:
    """Each flag, with its values."""
    found: dict[str, list[str]] = {}
    for flag in flags(settings_of(**environment), is_closed=is_closed):
        name, _, value = flag.partition("=")
        found.setdefault(name, []).append(value)
    return found


def test_the_defaults_are_those_of_production():
    found = flags_of()
    restricted = found.pop("--grpc-restricted-protocol")
    assert found.pop("--http-restricted-api") == restricted
    assert found == {
        "--exit-timeout-secs": ["30"],
        "--grpc-max-connection-age": ["300000"],
        "--grpc-max-connection-age-grace": ["600000"],
        "--grpc-keepalive-time": ["60000"],
        "--grpc-keepalive-permit-without-calls": ["1"],
        "--grpc-http2-max-pings-without-data": ["0"],
        "--grpc-http2-min-recv-ping-interval-without-data": ["60000"],
    }


def test_an_empty_variable_counts_as_not_set():
    assert flags_of(EXIT_TIMEOUT_SECONDS="")["--exit-timeout-secs"] == ["30"]


def test_without_a_key_administration_is_closed_with_a_random_one():
    (first,), (second,) = (flags_of()["--grpc-restricted-protocol"] for _ in range(2))
    protocols, key = first.split(":")
    assert protocols == "shared-memory,model-config,model-repository,statistics,trace,logging"
    assert re.fullmatch(r"admin-key=[\w-]{40,}", key)
    assert first != second


def test_outside_the_images_administration_is_closed_only_with_a_key():
    assert "--grpc-restricted-protocol" not in flags_of(is_closed=False)
    (rule,) = flags_of(is_closed=False, RESTRICTED_PROTOCOL_KEY="secret")["--http-restricted-api"]
    assert rule.endswith(":admin-key=secret")


def test_a_verbose_log_has_tritons_information_too():
    found = flags_of(LOG_VERBOSE="2")
    assert (found["--log-verbose"], found["--log-info"]) == (["2"], ["true"])


def test_a_key_file_takes_precedence_over_the_key(tmp_path):
    (tmp_path / "key").write_text("from-file\n")
    (with_both,) = flags_of(
        RESTRICTED_PROTOCOL_KEY="from-variable", RESTRICTED_PROTOCOL_KEY_FILE=str(tmp_path / "key")
    )["--grpc-restricted-protocol"]
    assert with_both.endswith(":admin-key=from-file")
    (with_variable,) = flags_of(RESTRICTED_PROTOCOL_KEY="from-variable")["--http-restricted-api"]
    assert with_variable.endswith(":admin-key=from-variable")


def test_an_empty_key_file_is_rejected(tmp_path):
    (tmp_path / "key").write_text("\n")
    with pytest.raises(ConfigError, match=r"KEY_FILE: got the empty file"):
        flags_of(RESTRICTED_PROTOCOL_KEY_FILE=str(tmp_path / "key"))


def test_with_tls_http_listens_on_loopback_only(pem):
    certificate, key = pem("certificate"), pem("key")
    found = flags_of(GRPC_TLS_CERTIFICATE=certificate, GRPC_TLS_KEY=key)
    assert found["--grpc-use-ssl"] == ["1"]
    assert (found["--grpc-server-cert"], found["--grpc-server-key"]) == ([certificate], [key])
    assert "--grpc-use-ssl-mutual" not in found
    hosts = settings_of(GRPC_TLS_CERTIFICATE=certificate, GRPC_TLS_KEY=key).hosts
    assert (hosts.http.ip, hosts.grpc.ip) == ("127.0.0.1", "0.0.0.0")  # noqa: S104


def test_with_tls_http_listens_on_an_address_that_is_set(pem):
    settings = settings_of(GRPC_TLS_CERTIFICATE=pem("certificate"), GRPC_TLS_KEY=pem("key"), HTTP_ADDRESS="10.1.2.3")
    assert settings.hosts.http.ip == "10.1.2.3"


def test_a_client_authority_makes_tls_mutual(pem):
    authority = pem("authority")
    found = flags_of(
        GRPC_TLS_CERTIFICATE=pem("certificate"), GRPC_TLS_KEY=pem("key"), GRPC_TLS_CLIENT_AUTHORITY=authority
    )
    assert (found["--grpc-use-ssl-mutual"], found["--grpc-root-cert"]) == (["1"], [authority])


@pytest.mark.parametrize("given", [{"CERTIFICATE"}, {"KEY"}, {"CLIENT_AUTHORITY"}, {"CERTIFICATE", "CLIENT_AUTHORITY"}])
def test_an_incomplete_tls_configuration_is_rejected(pem, given):
    with pytest.raises(
        ConfigError, match="FLORENCE2_GRPC_TLS_CERTIFICATE and FLORENCE2_GRPC_TLS_KEY must be set together"
    ):
        flags_of(**{f"GRPC_TLS_{name}": pem(name) for name in given})


def test_a_missing_file_is_named(pem):
    with pytest.raises(
        ConfigError, match=r"FLORENCE2_GRPC_TLS_KEY: got '/nowhere.pem', expected a file that user \d+ can read"
    ):
        flags_of(GRPC_TLS_CERTIFICATE=pem("certificate"), GRPC_TLS_KEY="/nowhere.pem")


def test_traces_go_to_the_collector():
    assert flags_of(OTLP_ENDPOINT="http://collector:4318/", TRACE_RATE="7")["--trace-config"] == [
        "mode=opentelemetry",
        "level=TIMESTAMPS",
        "rate=7",
        "opentelemetry,url=http://collector:4318/v1/traces",
        "opentelemetry,resource=service.name=florence2",
    ]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("EXIT_TIMEOUT_SECONDS", "-1", "a whole number from 0 to 86400"),
        ("EXIT_TIMEOUT_SECONDS", "30s", "a whole number from 0 to 86400"),
        ("EXIT_TIMEOUT_SECONDS", "٣", "a whole number from 0 to 86400"),
        ("GRPC_CONNECTION_AGE_SECONDS", "0", "a whole number from 1 to 86400"),
        ("LOG_VERBOSE", "6", "a whole number from 0 to 5"),
        ("OTLP_ENDPOINT", "collector:4318", "http://host:4318 or https://..."),
    ],
)
def test_an_invalid_value_is_named_with_what_is_expected(name, value, expected):
    with pytest.raises(ConfigError, match=f"^FLORENCE2_{name}: got '{value}', expected {re.escape(expected)}$"):
        flags_of(**{name: value})


def test_ports_are_numbers_and_not_the_urls_that_kubernetes_sets_for_a_service_of_that_name():
    ports = settings_of(GRPC_PORT="9001", HTTP_PORT="tcp://10.0.0.1:80").ports
    assert (ports.http, ports.grpc, ports.metrics) == (8000, 9001, 8002)
    with pytest.raises(ConfigError, match=r"FLORENCE2_GRPC_PORT: got '0', expected a whole number from 1 to 65535"):
        _ = settings_of(GRPC_PORT="0").ports


def test_the_ports_of_health_can_be_turned_off():
    ports = settings_of(HEALTH_PORT="0").ports
    assert (ports.health, ports.grpc_health) == (0, 8004)


def test_health_listens_where_the_other_services_do_unless_it_has_an_address_of_its_own():
    assert settings_of(ADDRESS="127.0.0.2").hosts.health.ip == "127.0.0.2"
    assert settings_of(ADDRESS="127.0.0.2", HEALTH_ADDRESS="127.0.0.3").hosts.health.ip == "127.0.0.3"


def test_an_invalid_address_is_named():
    with pytest.raises(ConfigError, match=r"^FLORENCE2_ADDRESS: got '1\.2\.3\.4\.5', expected an IPv4 or IPv6 address"):
        _ = settings_of(ADDRESS="1.2.3.4.5").hosts


def test_the_checkpoint_is_configured_or_in_the_image_or_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(serving, "BAKED_CHECKPOINT", tmp_path)
    with pytest.raises(ConfigError, match="FLORENCE2_CHECKPOINT: not set"):
        serving.image_checkpoint({})
    (tmp_path / "config.json").write_text("{}")
    assert serving.image_checkpoint({"FLORENCE2_CHECKPOINT": ""}) == str(tmp_path)
    assert serving.image_checkpoint({"FLORENCE2_CHECKPOINT": "some/id"}) == "some/id"


def test_the_readme_lists_the_variables_with_their_defaults():
    rows = re.findall(r"^\| `(FLORENCE2_\w+)` \| (?:`(\S+)`)? ?\|", (DOCKER / "README.md").read_text(), re.MULTILINE)
    assert dict(rows) == VARIABLES
    assert len(rows) == len(VARIABLES)
