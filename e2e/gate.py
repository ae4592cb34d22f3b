"""A place that a task runs into and waits at, so that a test can look at it while it is at work.

The task asks an HTTP server of the test's own, which answers when the test opens the gate. No test
sleeps, and a task that is killed while it waits is noticed by its closed connection.
"""

import http.server
import select
import threading


class Gate:
    """Use it in a `with`; give `shell` or `python` to a component."""

    def __init__(self):
        self.reached = threading.Event()
        self.left = threading.Event()
        self.visits = 0
        self._open = threading.Event()
        self._came = threading.Condition()
        gate = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                with gate._came:
                    gate.visits += 1
                    gate._came.notify_all()
                gate.reached.set()
                # Wake to see whether the task is still there: the socket is readable once it is closed.
                while not gate._open.wait(0.05):
                    readable, _, _ = select.select([self.connection], [], [], 0)
                    if readable and not self.connection.recv(1):
                        gate.left.set()
                        return
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        class Listener(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

        self._http = Listener(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/"

    def __enter__(self) -> "Gate":
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.open()
        self._http.shutdown()
        self._http.server_close()

    @property
    def shell(self) -> str:
        """A shell command that waits at the gate."""
        return f"python3 -c 'import urllib.request as u; u.urlopen(\"{self.url}\", timeout=100)'"

    def wait_reached(self) -> None:
        assert self.reached.wait(60), "no task came to the gate in 60 s"

    def wait_visits(self, count: int) -> bool:
        with self._came:
            return self._came.wait_for(lambda: self.visits >= count, 100)

    def wait_left(self) -> None:
        assert self.left.wait(30), "the task still waits at the gate after 30 s"

    def open(self) -> None:
        self._open.set()
