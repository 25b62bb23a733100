"""Addresses in the spellings of Triton's services, and the check of ports."""

import socket
from dataclasses import replace

import pytest
from florence2_server.addresses import Address, Hosts, Ports, check_listeners
from florence2_server.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "grpc", "http", "in_urls"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "0.0.0.0", "0.0.0.0", "127.0.0.1"),  # noqa: S104
        ("::1", "[::1]", "ipv6:::1", "[::1]"),
        ("[::1]", "[::1]", "ipv6:::1", "[::1]"),
        ("::", "[::]", "ipv6:::", "[::1]"),
        ("[::]", "[::]", "ipv6:::", "[::1]"),
        ("2001:db8::5", "[2001:db8::5]", "ipv6:2001:db8::5", "[2001:db8::5]"),
    ],
)
def test_each_service_has_its_spelling_of_an_address(text, grpc, http, in_urls):
    address = Address.parse(text)
    assert (address.of_grpc, address.of_http, address.in_urls) == (grpc, http, in_urls)


def test_a_host_name_is_resolved_for_listening_and_kept_in_urls():
    address = Address.parse("localhost")
    assert address.ip in ("127.0.0.1", "::1")
    assert address.in_urls == "localhost"


@pytest.mark.parametrize("text", ["", "1.2.3.4.5", "[127.0.0.1", "no such host", "host.invalid", "::g"])
def test_what_is_no_address_is_named(text):
    with pytest.raises(ConfigError, match="expected an IPv4 or IPv6 address, or the name of this machine") as error:
        Address.parse(text)
    assert repr(text) in str(error.value)


@pytest.fixture
def ports():
    return Ports.free()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::"])
def test_free_ports_pass_again_and_again(host, ports):
    for _ in range(2):
        check_listeners(Hosts.all_at(host), ports)


@pytest.mark.parametrize("service", ["http", "grpc", "metrics", "health", "grpc_health"])
def test_a_port_in_use_is_named(service, ports):
    port = getattr(ports, service)
    with socket.create_server(("127.0.0.1", port)), pytest.raises(ConfigError) as error:
        check_listeners(Hosts.all_at("127.0.0.1"), ports)
    assert str(error.value) == f"FLORENCE2_{service.upper()}_PORT: 127.0.0.1:{port} is already in use"


def test_a_port_whose_connections_linger_is_not_in_use(ports):
    with socket.create_server(("127.0.0.1", ports.http)) as server:
        caller = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        accepted.close()  # closed first by the server: its side stays in TIME_WAIT
        caller.close()
    check_listeners(Hosts.all_at("127.0.0.1"), ports)


def test_one_port_for_two_services_is_an_error(ports):
    with pytest.raises(ConfigError, match=r"^FLORENCE2_METRICS_PORT: got \d+, which is FLORENCE2_HTTP_PORT too$"):
        check_listeners(Hosts.all_at("127.0.0.1"), replace(ports, metrics=ports.http))


def test_services_that_are_turned_off_need_no_ports(ports):
    check_listeners(Hosts.all_at("127.0.0.1"), replace(ports, health=0, grpc_health=0))


def test_an_address_of_another_machine_is_named_and_not_called_in_use(ports):
    with pytest.raises(ConfigError, match=r"^address: got '192\.0\.2\.1', which is not this machine's$"):
        check_listeners(Hosts.all_at("192.0.2.1"), ports)
