"""Flags of tritonserver, and those of an operator that are rejected."""

import subprocess
import sys

import pytest
from florence2_server.errors import ConfigError
from florence2_server.flags import check_arguments

from tests.conftest import DEMO_CHECKPOINT

OFF = "expected true, because only HTTP reports readiness; FLORENCE2_HTTP_ADDRESS=127.0.0.1 closes it to other machines"
CLOSED = "expected a value without health, because only HTTP reports readiness"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--log-verbose=1", "--grpc-restricted-protocol=inference:key=secret", "--http-thread-count", "4"],
        ["--allow-http=true"],
        ["--allow-http", "ON"],
        ["--http-restricted-api=model-config,statistics:admin-key=health"],
        ["--http-header-forward-pattern=traceparent"],
    ],
)
def test_flags_that_leave_readiness_visible_are_accepted(arguments):
    check_arguments(arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--allow-http=false"], f"--allow-http: got 'false', {OFF}"),
        (["--log-info=1", "--allow-http", "0"], f"--allow-http: got '0', {OFF}"),
        (["--allow-ht=off"], f"--allow-http: got 'off', {OFF}"),
        (["--http-port=9000"], "--http-port: got '9000', expected FLORENCE2_HTTP_PORT instead of this flag"),
        (["--http-addr", "::1"], "--http-address: got '::1', expected FLORENCE2_HTTP_ADDRESS instead of this flag"),
        (["--http-restricted-api=health:k=v"], f"--http-restricted-api: got 'health:k=v', {CLOSED}"),
        (["--http-restricted-api", "trace, health:k=v"], f"--http-restricted-api: got 'trace, health:k=v', {CLOSED}"),
    ],
)
def test_a_flag_that_hides_readiness_is_named(arguments, message):
    with pytest.raises(ConfigError) as error:
        check_arguments(arguments)
    assert str(error.value) == message


def test_the_containers_entry_point_reports_it_in_one_line():
    done = subprocess.run(
        [sys.executable, "-m", "florence2_server.container", "--allow-http=false"],
        env={"FLORENCE2_CHECKPOINT": str(DEMO_CHECKPOINT), "FLORENCE2_ADDRESS": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"--allow-http: got 'false', {OFF}\n")
