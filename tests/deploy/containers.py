"""Builds and runs real images, without a Docker engine and without a registry.

buildah builds them (`--isolation chroot` needs no namespaces), podman runs them. Base images are not pulled:
debootstrap makes Debian's, and Debian with the nvidia-pytriton wheel's tritonserver in /opt/tritonserver stands in for
NVIDIA's. Both are kept in build/containers.
"""

import contextlib
import importlib.metadata
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.deploy.conftest import ROOT, debian_tool, run

DEBIAN = "docker.io/library/debian:bookworm-slim"
_SCRATCH = ROOT / "build" / "containers"

# The options with which a careful operator runs a container.
_CAREFULLY = (
    *("--network=host", "--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--security-opt=no-new-privileges"),
    *("--tmpfs=/tmp:rw,size=1g,mode=1777", "--shm-size=2g"),
    # podman's defaults exceed the limits of some machines.
    *("--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096"),
)

# Like NVIDIA's image: a user 1000, a python3 that matches the stub, the server in /opt/tritonserver. The wheel's
# binaries look for their libraries three and four folders above themselves.
_STAND_IN = f"""
FROM {DEBIAN}
RUN apt-get update && apt-get install --yes --no-install-recommends libpython3.11 python3 && \\
    useradd --uid 1000 --user-group --create-home triton-server
COPY . /
"""


class ContainerEngine:
    """buildah and podman with shared storage."""

    def __init__(self) -> None:
        for tool, package in (("buildah", "buildah"), ("podman", "podman"), ("runc", "runc")):
            debian_tool(tool, package)
        _SCRATCH.mkdir(parents=True, exist_ok=True)
        overlay = "overlay" in Path("/proc/filesystems").read_text()
        self._storage = [
            *("--root", str(_SCRATCH / "storage"), "--runroot", str(_SCRATCH / "run")),
            *("--storage-driver", "overlay" if overlay else "vfs", "--log-level", "error"),
        ]

    def buildah(self, *arguments: str | Path) -> str:
        """Run buildah. Returns its output."""
        return run(debian_tool("buildah", "buildah"), *self._storage, *arguments)

    def podman(self, *arguments: str | Path) -> str:
        """Run podman. Returns its standard output."""
        command = self.podman_command(*arguments)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
        return done.stdout

    def build(self, name: str, dockerfile: str, *arguments: str, context: Path = ROOT) -> None:
        """Build an image from a Dockerfile, with this machine's pip configuration."""
        with tempfile.TemporaryDirectory(dir=_SCRATCH) as folder:  # separate for each build: several may run at once
            scratch = Path(folder)
            (scratch / "Dockerfile").write_text(dockerfile)
            self.buildah(
                *("bud", "--isolation", "chroot", "--pull-never", "--format", "docker", "--tag", name, *arguments),
                *(f"--volume={source}:{target}:ro" for source, target in pip_mounts(scratch).items()),
                *("--file", scratch / "Dockerfile", context),
            )

    def has(self, image: str) -> bool:
        """Whether an image exists."""
        return f'"{image}"' in self.buildah("images", "--json")

    def inspect(self, image: str) -> dict:
        """Return an image's metadata."""
        return json.loads(self.podman("image", "inspect", image))[0]

    @contextlib.contextmanager
    def files(self, image: str) -> Iterator[Path]:
        """Mount an image. Yields its root folder."""
        try:
            yield Path(self.podman("image", "mount", image).strip())
        finally:
            self.podman("image", "unmount", image)

    @contextlib.contextmanager
    def running(
        self, image: str, environment: Mapping[str, str], *options: str, arguments: Sequence[str] = ()
    ) -> Iterator["Container"]:
        """Run a container as a careful operator does; remove it at the end.

        Args:
            image: what to run.
            environment: its variables.
            options: additional options of podman.
            arguments: of the image's entry point.
        """
        identity = self.podman(
            *("run", "--detach", "--log-driver=k8s-file", "--no-healthcheck", *_CAREFULLY),
            *(f"--env={name}={value}" for name, value in environment.items()),
            *(*options, image, *arguments),
        ).strip()
        try:
            yield Container(identity, self)
        finally:
            self.podman("rm", "--force", "--time=0", identity)

    def podman_command(self, *arguments: str | Path) -> list[str | Path]:
        """Return podman's command line."""
        options = ["--cgroup-manager=cgroupfs", "--events-backend=file", f"--runtime={debian_tool('runc', 'runc')}"]
        return [debian_tool("podman", "podman"), *self._storage, *options, *arguments]

    def require_running(self, image: str) -> None:
        """Skip if this machine cannot start containers, for example because it is one itself."""
        command = self.podman_command("run", "--rm", *_CAREFULLY, image, "true")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"containers cannot be started on this machine: {done.stderr.strip()}")

    def exit_status(self, *arguments: str | Path) -> int:
        """Run podman. Returns its exit status."""
        return subprocess.run(self.podman_command(*arguments), capture_output=True, check=False).returncode


class Container:
    """A running container."""

    def __init__(self, identity: str, engine: ContainerEngine) -> None:
        self._identity = identity
        self._engine = engine

    def execute(self, *command: str) -> int:
        """Run a command inside. Returns its exit status."""
        return self._engine.exit_status("exec", self._identity, *command)

    def log(self) -> str:
        """Return everything it has written to its log."""
        command = self._engine.podman_command("logs", self._identity)
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True).stdout

    def processes(self) -> list[int]:
        """Return the ids of its processes on this machine."""
        lines = self._engine.podman("top", self._identity, "hpid").splitlines()[1:]
        return [int(line) for line in lines]

    def signal(self, name: str) -> None:
        """Send a signal to its first process."""
        self._engine.podman("kill", f"--signal={name}", self._identity)

    def wait(self, seconds: float) -> int:
        """Wait until it exits. Returns its exit status."""
        self.wait_until(lambda: self._state()["Status"] == "exited", seconds)
        return int(self._state()["ExitCode"])

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> None:
        """Wait until a condition is true."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds} s\n{self.log()}"
            time.sleep(0.2)

    def is_running(self) -> bool:
        """Whether it is running."""
        return self._state()["Status"] == "running"

    def _state(self) -> dict:
        return json.loads(self._engine.podman("container", "inspect", self._identity))[0]["State"]


def pip_mounts(scratch: Path) -> dict[Path | str, str]:
    """Return this machine's pip configuration as mounts for a build's RUN steps; the image keeps nothing of them."""
    settings, mounts = {}, {}
    for line in run(sys.executable, "-m", "pip", "config", "list").splitlines():
        key, _, value = line.partition("=")
        settings[key.rpartition(".")[2]] = value.strip("'")
    kept = {
        name: settings[name]
        for name in ("cert", "index-url", "find-links", "trusted-host", "proxy")
        if name in settings
    }
    for name, target in (("cert", "/etc/pip-certificates.pem"), ("find-links", "/etc/pip-wheels")):
        if name in kept and Path(kept[name]).exists():
            mounts[Path(kept[name]).resolve()] = target
            kept[name] = target
    (scratch / "pip.conf").write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in kept.items()))
    return {**mounts, scratch / "pip.conf": "/etc/pip.conf"}


def torch_index() -> Sequence[str]:
    """Return build arguments: no second index if this machine's pip already finds the CPU build of torch."""
    configured = run(sys.executable, "-m", "pip", "config", "list")
    return ("--build-arg=TORCH_INDEX=https://pypi.org/simple",) if "find-links" in configured else ()


def make_debian(engine: ContainerEngine) -> None:
    """Make Debian's image from its packages."""
    if engine.has(DEBIAN):
        return
    debootstrap = debian_tool("debootstrap", "debootstrap")
    root = _SCRATCH / "bookworm"
    shutil.rmtree(root, ignore_errors=True)
    run(debootstrap, "--variant=minbase", "bookworm", root)
    shutil.rmtree(root / "var" / "lib" / "apt" / "lists")
    for package in (root / "var" / "cache" / "apt" / "archives").glob("*.deb"):
        package.unlink()
    engine.build(DEBIAN, "FROM scratch\nCOPY . /\nCMD bash\n", context=root)
    shutil.rmtree(root)


def make_stand_in(engine: ContainerEngine, stub: str = "3.11") -> str:
    """Make the stand-in for NVIDIA's image, with Triton's stub for a version of Python. Returns its name."""
    name = f"localhost/tritonserver-stand-in:{importlib.metadata.version('nvidia-pytriton')}-python{stub}"
    if engine.has(name):
        return name
    package = Path(importlib.util.find_spec("pytriton").origin).parent
    root = _SCRATCH / "stand-in"
    shutil.rmtree(root, ignore_errors=True)
    server = root / "opt" / "tritonserver"
    for folder in ("bin", "backends"):
        shutil.copytree(package / "tritonserver" / folder, server / folder)
    built = package / "tritonserver" / "python_backend_stubs" / stub / "triton_python_backend_stub"
    shutil.copy(built, server / "backends" / "python")
    shutil.copytree(package.parent / "nvidia_pytriton.libs", root / "nvidia_pytriton.libs")
    engine.build(name, _STAND_IN, context=root)
    shutil.rmtree(root)
    return name
