"""The command `florence2-server`: serves, reports health, changes adapters, makes repositories, handles checkpoints."""

import sys
from collections.abc import Sequence

_CHECKPOINT_COMMANDS = ("check", "convert", "fetch")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; without a command, serve. Returns the exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    command = arguments[0] if arguments else ""
    # Each imports only what it needs: a probe has to start fast, and serving does not need the engine, a process of its
    # own.
    if command == "health":
        from florence2_server.health_command import main as health_main

        return health_main(arguments[1:])
    if command in _CHECKPOINT_COMMANDS:
        from florence2_server.checkpoint_commands import main as checkpoint_main

        return checkpoint_main(arguments)
    if command == "adapters":
        from florence2_server.adapter_commands import main as adapter_main

        return adapter_main(arguments[1:])
    from florence2_server.server_commands import make_repository, serve_command

    if command == "repository":
        return make_repository(arguments[1:])
    return serve_command(arguments[1:] if command == "serve" else arguments)


if __name__ == "__main__":
    sys.exit(main())
