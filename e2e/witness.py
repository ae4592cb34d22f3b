"""Something that tasks tell what they do, so that a test can count and time it.

A task's own files are its own and are gone when it ends; what it told an HTTP server of the test is not.
"""

import http.server
import threading
import time
from collections import defaultdict
from urllib.parse import unquote


class Witness:
    """Use it in a `with`. Give `shell(name)` to a component: it tells, and prints how often that was told."""

    def __init__(self):
        self._told: dict[str, list[float]] = defaultdict(list)
        self._lock = threading.Lock()
        witness = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                name = unquote(self.path.lstrip("/"))
                with witness._lock:
                    witness._told[name].append(time.monotonic())
                    body = str(len(witness._told[name])).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        class Listener(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, *_):
                """Whoever asked may be killed before it is answered."""

        self._http = Listener(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> "Witness":
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._http.shutdown()
        self._http.server_close()

    def shell(self, name: str) -> str:
        ask = f'import urllib.request as u; print(u.urlopen("{self.url}/{name}").read().decode())'
        return f"python3 -c '{ask}'"

    def count(self, name: str) -> int:
        return len(self._told[name])

    def counts(self) -> dict[str, int]:
        return {name: len(times) for name, times in self._told.items()}

    def gaps(self, name: str) -> list[float]:
        """Seconds from each time to the next."""
        times = self._told[name]
        return [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
