"""Stand-ins for kubectl, docker and helm in front of one live server, for the runbook's commands.

`exec`, `port-forward` and `logs` reach the server. The other commands only check their arguments against what exists:
verbs, kinds, names, flags, settings. Anything else fails, as the real command would.

    python -m tests.operations.kubectl CLUSTER.json kubectl get pods
"""

import argparse
import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.operations.port_forwarding import forward

_SHELL_SCRIPT = (
    '#!/bin/sh\ncd "{root}" && exec "{python}" -m tests.operations.kubectl "{cluster}" "$OLDPWD" {name} "$@"\n'
)
_NODE = "node-1"
# Of the container; `nvidia-smi` comes with the driver of a GPU's node, and is only recorded.
_CLIENT = [sys.executable, "-c", "from florence2.cli import main; main()"]
_KINDS = {
    "deployment": ("deployment", "deployments"),
    "pod": ("pod", "pods"),
    "node": ("node", "nodes"),
    "hpa": ("hpa",),
    "event": ("events",),
    "servicemonitor": ("servicemonitor",),
    "networkpolicy": ("networkpolicy",),
    "endpointslice": ("endpointslices",),
}
_OUTPUTS = {
    "wide": "",
    "jsonpath={.spec.nodeName}": _NODE,
    "jsonpath={.spec.containers[0].resources.limits.memory}": "9472Mi",
}


@dataclass(frozen=True)
class Cluster:
    """What the stand-ins know.

    Attributes:
        namespace: of the release.
        release: Helm's name of it.
        deployment: the release's Deployment.
        pod: its only pod, which is the live server.
        ports: the live server's ports, by the container's.
        log: the live server's log.
        calls: the file to which every command is appended, with its exit status.
    """

    namespace: str
    release: str
    deployment: str
    pod: str
    ports: dict[str, int]
    log: str
    calls: str

    @classmethod
    def load(cls, file: Path) -> "Cluster":
        """Read it from a file that `install` wrote."""
        return cls(**json.loads(file.read_text()))

    def install(self, folder: Path, root: Path) -> None:
        """Write the stand-ins into a folder, which belongs first on the PATH. They run in the repository's root."""
        cluster = folder / "cluster.json"
        cluster.write_text(json.dumps(dataclasses.asdict(self)))
        for name in ("kubectl", "docker", "helm"):
            script = _SHELL_SCRIPT.format(root=root, python=sys.executable, cluster=cluster, name=name)
            (folder / name).write_text(script)
            (folder / name).chmod(0o755)


class Parser(argparse.ArgumentParser):
    """A parser that takes no abbreviated flags."""

    def __init__(self, **options) -> None:
        super().__init__(allow_abbrev=False, add_help=False, **options)


class Kubectl:
    """The verbs of kubectl.

    Args:
        cluster: what exists.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def run(self, arguments: Sequence[str]) -> int:
        """Run a command. Returns its exit status; exits with 2 if an argument is wrong."""
        rest = list(arguments)
        tail = rest[rest.index("--") + 1 :] if "--" in rest else []
        options = self._parser().parse_args(rest[: rest.index("--")] if tail else rest)
        return int(options.act(options, tail) or 0)

    def _parser(self) -> argparse.ArgumentParser:
        parser = Parser(prog="kubectl")
        verbs = parser.add_subparsers(required=True, parser_class=Parser)

        def verb(name: str, act, *flags: tuple[str, dict]) -> argparse.ArgumentParser:
            added = verbs.add_parser(name)
            for flag, options in flags:
                added.add_argument(flag, required=False, **options)
            added.set_defaults(act=act)
            return added

        output = ("--output", {"type": _output})
        config = verb("config", self._nothing, ("--current", {"action": "store_true"}), ("--namespace", {}))
        config.add_argument("what", choices=["set-context"])
        verb("get", self._get, output, ("--sort-by", {"choices": [".lastTimestamp"]})).add_argument(
            "objects", nargs="+"
        )
        verb("describe", self._get, output).add_argument("objects", nargs="+")
        rollout = verb("rollout", self._name_deployment, ("--timeout", {"type": _duration}))
        rollout.add_argument("what", choices=["history", "undo", "status"])
        rollout.add_argument("deployment")
        scale = verb("scale", self._name_deployment, ("--replicas", {"type": int}))
        scale.add_argument("deployment")
        delete = verb("delete", self._delete, ("--wait", {"choices": ["false"]}))
        delete.add_argument("objects", nargs=2)
        verb("cordon", self._name_node).add_argument("node")
        drain_flags = [(flag, {"action": "store_true"}) for flag in ("--ignore-daemonsets", "--delete-emptydir-data")]
        verb("drain", self._name_node, *drain_flags).add_argument("node")
        logs = verb("logs", self._logs, ("--tail", {"type": int}), ("--since", {"type": _duration}))
        logs.add_argument("--previous", action="store_true")
        logs.add_argument("pod")
        verb("exec", self._exec).add_argument("pod")
        forward = verb("port-forward", self._forward)
        forward.add_argument("pod")
        forward.add_argument("ports", nargs="+")
        return parser

    def _nothing(self, options: argparse.Namespace, _: list[str]) -> None:
        _expect(options.namespace, self._cluster.namespace)

    def _get(self, options: argparse.Namespace, _: list[str]) -> None:
        kinds, *names = options.objects
        kinds, slash, name = kinds.partition("/")
        for kind in kinds.split(","):
            found = self._kind(kind)
            for each in [name] if slash else names:
                self._expect_name(found, each)
            print(_OUTPUTS.get(options.output) or f"NAME\n{getattr(self._cluster, found, found)}")  # noqa: T201

    def _delete(self, options: argparse.Namespace, _: list[str]) -> None:
        kind, name = options.objects
        _expect(kind, "pod")
        self._expect_name(kind, name)

    def _name_deployment(self, options: argparse.Namespace, _: list[str]) -> None:
        _expect(options.deployment, f"deployment/{self._cluster.deployment}")

    def _name_node(self, options: argparse.Namespace, _: list[str]) -> None:
        _expect(options.node, _NODE)
        print(f"node/{_NODE}")  # noqa: T201

    def _logs(self, options: argparse.Namespace, _: list[str]) -> None:
        _expect(options.pod, self._cluster.pod)
        print_log(self._cluster, options.tail)

    def _exec(self, options: argparse.Namespace, command: list[str]) -> int:
        _expect(options.pod, self._cluster.pod)
        return run_inside(self._cluster, command)

    def _forward(self, options: argparse.Namespace, _: list[str]) -> None:
        _expect(options.pod, f"pod/{self._cluster.pod}")
        for local, port in (pair.split(":") for pair in options.ports):
            forward(int(local), self._cluster.ports[port])

    def _kind(self, kind: str) -> str:
        found = [each for each, names in _KINDS.items() if kind in names]
        if not found:
            sys.exit(f"error: the server doesn't have a resource type {kind!r}")
        return found[0]

    def _expect_name(self, kind: str, name: str) -> None:
        _expect(name, {"node": _NODE}.get(kind) or getattr(self._cluster, kind))


def docker(cluster: Cluster, arguments: Sequence[str], folder: Path) -> int:
    """`docker compose` in a folder: ps, exec, logs, restart."""
    services = yaml.safe_load((folder / "compose.yaml").read_text())["services"]
    chosen = os.environ["COMPOSE_PROFILES"]
    parser = Parser(prog="docker compose")
    parser.add_argument("compose", choices=["compose"])
    verbs = parser.add_subparsers(dest="verb", required=True, parser_class=Parser)
    verbs.add_parser("ps").add_argument("--all", action="store_true")
    for verb in ("exec", "logs", "restart"):
        added = verbs.add_parser(verb)
        if verb == "logs":
            added.add_argument("--tail", type=int)
        added.add_argument(
            "service", choices=[name for name in services if chosen in services[name].get("profiles", [chosen])]
        )
        if verb == "exec":
            added.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args(list(arguments))
    if options.verb == "exec":
        return run_inside(cluster, options.command)
    if options.verb == "logs" and options.service.startswith("server"):
        print_log(cluster, options.tail)
    return 0


def helm(cluster: Cluster, arguments: Sequence[str]) -> int:
    """`helm upgrade` of the release, with settings that the server has."""
    parser = Parser(prog="helm")
    parser.add_argument("verb", choices=["upgrade"])
    parser.add_argument("release", choices=[cluster.release])
    parser.add_argument("chart", type=Path)
    parser.add_argument("--reuse-values", action="store_true", required=True)
    parser.add_argument("--set", required=True)
    options = parser.parse_args(list(arguments))
    yaml.safe_load((options.chart / "Chart.yaml").read_text())
    setting, _, value = options.set.partition("=")
    known = Path("docs/deployment.md").read_text()
    name = setting.removeprefix("settings.")
    if name == setting or f"| `FLORENCE2_{name.upper()}` |" not in known or not value:
        sys.exit(f"error: no setting {options.set!r}")
    return 0


def run_inside(cluster: Cluster, command: list[str]) -> int:
    """Run a command of the image, which finds the live server at the container's ports. Returns its exit status."""
    match command:
        case ["florence2", *arguments]:
            mapped = [re.sub(r"(?<=127\.0\.0\.1:)\d+", lambda port: str(cluster.ports[port[0]]), a) for a in arguments]
            return subprocess.run([*_CLIENT, *mapped], check=False).returncode
        case ["nvidia-smi"]:
            return 0
    sys.exit(f"error: the image has no command {command!r}")


def print_log(cluster: Cluster, tail: int | None) -> None:
    """Print the live server's log, or its last lines."""
    lines = Path(cluster.log).read_text(errors="replace").splitlines(keepends=True)
    sys.stdout.writelines(lines[-tail:] if tail else lines)


def _expect(got: str, expected: str) -> None:
    if got != expected:
        sys.exit(f"error: {got!r} not found; there is {expected!r}")


def _output(text: str) -> str:
    if text not in _OUTPUTS:
        raise argparse.ArgumentTypeError(f"unknown output {text!r}")
    return text


def _duration(text: str) -> str:
    if not re.fullmatch(r"\d+[smh]", text):
        raise argparse.ArgumentTypeError(f"no duration: {text!r}")
    return text


def main(cluster_file: str, folder: str, name: str, *arguments: str) -> int:
    """Run one command as if in `folder`, and record it with its exit status."""
    cluster = Cluster.load(Path(cluster_file))
    status = 2
    try:
        if name == "kubectl":
            status = Kubectl(cluster).run(arguments)
        elif name == "helm":
            status = helm(cluster, arguments)
        else:
            status = docker(cluster, arguments, Path(folder))
    finally:
        with Path(cluster.calls).open("a") as calls:
            calls.write(json.dumps([status, folder, name, *arguments]) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
