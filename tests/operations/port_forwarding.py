"""Forwards connections from one port of this machine to another one, as `kubectl port-forward` does."""

import socket
import threading

_HOST = "127.0.0.1"


def forward(local: int, port: int) -> None:
    """Listen on a port, and forward its connections, in threads that keep the process running."""
    listener = socket.create_server((_HOST, local))
    threading.Thread(target=_accept, args=(listener, port)).start()


def _accept(listener: socket.socket, port: int) -> None:
    while True:
        near, _ = listener.accept()
        far = socket.create_connection((_HOST, port))
        for source, sink in ((near, far), (far, near)):
            threading.Thread(target=_copy, args=(source, sink)).start()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    while chunk := source.recv(65536):
        sink.sendall(chunk)
    sink.shutdown(socket.SHUT_WR)
