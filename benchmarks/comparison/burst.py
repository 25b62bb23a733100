"""`python -m benchmarks.burst`: a hundred questions at once beside the same hundred from sixteen callers.

Whoever asks again as soon as there is an answer keeps Triton's batcher awake; a burst with nobody behind it does not
(config.pbtxt says what then happens). Our server with the demo checkpoint, and its own settings.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

from florence2.client import Client
from rich.console import Console
from serve import REPOSITORY, TritonServer

QUESTIONS = 100
CALLERS = 16
ROUNDS = 5
_IMAGE = (REPOSITORY.parent / "examples" / "scene.png").read_bytes()
_READY_SECONDS = 180.0


def main() -> None:
    """Measure both in alternation, and print each round."""
    console = Console()
    log_file = Path("out") / "burst.log"
    log_file.parent.mkdir(exist_ok=True)
    with log_file.open("wb") as log, TritonServer(log=log) as server:
        server.wait_until_ready(_READY_SECONDS)
        with Client(server.grpc_url) as client:
            _seconds(client, CALLERS)
            ratios = []
            for number in range(ROUNDS):
                at_once, in_turn = _seconds(client, QUESTIONS), _seconds(client, CALLERS)
                ratios.append(at_once / in_turn)
                console.print(
                    f"round {number + 1}: {QUESTIONS} at once {at_once:.2f} s, by {CALLERS} callers {in_turn:.2f} s"
                )
    console.print(f"ratio: median {median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}")


def _seconds(client: Client, callers: int) -> float:
    with ThreadPoolExecutor(callers) as pool:
        begin = time.monotonic()
        for answer in pool.map(lambda _: client.caption(_IMAGE, max_new_tokens=24), range(QUESTIONS)):
            assert answer.text
        return time.monotonic() - begin


if __name__ == "__main__":
    main()
