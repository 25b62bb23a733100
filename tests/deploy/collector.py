"""A stand-in for an OpenTelemetry collector."""

import contextlib
import http.server
import threading


@contextlib.contextmanager
def collector():
    """Run a collector that keeps what it receives."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.server.paths.add(self.path)
            self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.paths, server.bodies = set(), []
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
