"""The images' variables as flags of tritonserver."""

import re

import entrypoint
import pytest
from entrypoint import VARIABLES, SettingError, Settings, checkpoint, flags, ports

from tests.deploy.conftest import DOCKER

pytestmark = pytest.mark.deploy


@pytest.fixture
def pem(tmp_path):
    """`pem(name)`: a file that can be read."""

    def pem(name):
        path = tmp_path / name
        path.write_text("-----BEGIN NOTHING-----\n")
        return str(path)

    return pem


def flags_of(**environment: str) -> dict[str, list[str]]:
    """Each flag with its values."""
    found: dict[str, list[str]] = {}
    for flag in flags(Settings({f"FLORENCE2_{name}": value for name, value in environment.items()})):
        name, _, value = flag.partition("=")
        found.setdefault(name, []).append(value)
    return found


def test_the_defaults_are_those_of_production():
    found = flags_of()
    restricted = found.pop("--grpc-restricted-protocol")
    assert found.pop("--http-restricted-api") == restricted
    assert found == {
        "--log-format": ["ISO8601"],
        "--log-verbose": ["0"],
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


def test_without_a_key_administration_is_closed_with_one_that_nobody_knows():
    (first,), (second,) = (flags_of()["--grpc-restricted-protocol"] for _ in range(2))
    protocols, key = first.split(":")
    assert protocols == "shared-memory,model-config,model-repository,statistics,trace,logging"
    assert re.fullmatch(r"admin-key=[\w-]{40,}", key)
    assert first != second


def test_a_key_comes_from_its_file_before_its_variable(tmp_path):
    (tmp_path / "key").write_text("from-file\n")
    (with_both,) = flags_of(
        RESTRICTED_PROTOCOL_KEY="from-variable", RESTRICTED_PROTOCOL_KEY_FILE=str(tmp_path / "key")
    )["--grpc-restricted-protocol"]
    assert with_both.endswith(":admin-key=from-file")
    (with_variable,) = flags_of(RESTRICTED_PROTOCOL_KEY="from-variable")["--http-restricted-api"]
    assert with_variable.endswith(":admin-key=from-variable")


def test_an_empty_key_file_is_refused(tmp_path):
    (tmp_path / "key").write_text("\n")
    with pytest.raises(SettingError, match=r"KEY_FILE: .* is empty"):
        flags_of(RESTRICTED_PROTOCOL_KEY_FILE=str(tmp_path / "key"))


def test_tls_takes_http_off_the_network(pem):
    certificate, key = pem("certificate"), pem("key")
    found = flags_of(GRPC_TLS_CERTIFICATE=certificate, GRPC_TLS_KEY=key)
    assert found["--grpc-use-ssl"] == ["1"]
    assert (found["--grpc-server-cert"], found["--grpc-server-key"]) == ([certificate], [key])
    assert found["--http-address"] == ["127.0.0.1"]
    assert "--grpc-use-ssl-mutual" not in found


def test_http_can_be_put_back(pem):
    found = flags_of(GRPC_TLS_CERTIFICATE=pem("certificate"), GRPC_TLS_KEY=pem("key"), HTTP_ADDRESS="10.1.2.3")
    assert found["--http-address"] == ["10.1.2.3"]


def test_an_authority_of_clients_makes_tls_mutual(pem):
    authority = pem("authority")
    found = flags_of(
        GRPC_TLS_CERTIFICATE=pem("certificate"), GRPC_TLS_KEY=pem("key"), GRPC_TLS_CLIENT_AUTHORITY=authority
    )
    assert (found["--grpc-use-ssl-mutual"], found["--grpc-root-cert"]) == (["1"], [authority])


@pytest.mark.parametrize("given", [{"CERTIFICATE"}, {"KEY"}, {"CLIENT_AUTHORITY"}, {"CERTIFICATE", "CLIENT_AUTHORITY"}])
def test_half_of_tls_is_refused(pem, given):
    with pytest.raises(SettingError, match="FLORENCE2_GRPC_TLS_CERTIFICATE: goes with"):
        flags_of(**{f"GRPC_TLS_{name}": pem(name) for name in given})


def test_a_file_that_is_not_there_is_named(pem):
    with pytest.raises(SettingError, match=r"FLORENCE2_GRPC_TLS_KEY: '/nowhere.pem' is no file that user \d+ can read"):
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
def test_a_value_that_cannot_be_used_is_named_with_what_is_expected(name, value, expected):
    with pytest.raises(SettingError, match=f"^FLORENCE2_{name}: got '{value}', expected {re.escape(expected)}$"):
        flags_of(**{name: value})


def test_ports_and_what_kubernetes_makes_of_a_service_of_that_name():
    found = ports(Settings({"FLORENCE2_GRPC_PORT": "9001"}))
    assert (found.http, found.grpc, found.metrics) == (8000, 9001, 8002)
    with pytest.raises(SettingError, match=r"FLORENCE2_GRPC_PORT: got 'tcp://10\.0\.0\.1:8001', expected a whole"):
        ports(Settings({"FLORENCE2_GRPC_PORT": "tcp://10.0.0.1:8001"}))


def test_the_checkpoint_is_named_or_baked_in_or_missed(tmp_path, monkeypatch):
    monkeypatch.setattr(entrypoint, "BAKED_CHECKPOINT", tmp_path)
    with pytest.raises(SettingError, match="FLORENCE2_CHECKPOINT: not set"):
        checkpoint({})
    (tmp_path / "config.json").write_text("{}")
    assert checkpoint({"FLORENCE2_CHECKPOINT": ""}) == str(tmp_path)
    assert checkpoint({"FLORENCE2_CHECKPOINT": "some/id"}) == "some/id"


def test_the_readme_lists_the_variables_with_their_defaults():
    rows = re.findall(r"^\| `(FLORENCE2_\w+)` \| (?:`(\S+)`)? ?\|", (DOCKER / "README.md").read_text(), re.MULTILINE)
    assert dict(rows) == VARIABLES
    assert len(rows) == len(VARIABLES)
