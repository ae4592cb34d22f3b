"""How bench/peers.py talks to the scripts of this folder.

    python on_PEER.py chain|fan|digits    runs a workload, and prints when it began and ended
    python on_PEER.py server              prints how to start the peer's server

They are run by the peer's own interpreter, in a folder of their own, with BENCH_FOLDER (that
folder), BENCH_MODE (one of the ways in which the peer is measured) and BENCH_PORT.
"""

import json
import os
import sys
import time
import urllib.error

import workloads

MODE = os.environ.get("BENCH_MODE", "")
PORT = os.environ.get("BENCH_PORT", "")


def main(server=None, first: int = 0, **runs) -> None:
    """Does what the command line asks for. Each run returns what its last task did, or how to ask for it."""
    asked = sys.argv[1]
    if asked == "server":
        command, environment, health = server()
        print(json.dumps({"command": command, "environment": environment, "health": health}))
        return
    began = time.time()
    try:
        result = runs[asked]()
    except urllib.error.HTTPError as error:
        sys.exit(f"{error}: {error.read().decode()}")
    ended = time.time()
    if callable(result):
        result = result()
    if not workloads.is_right(asked, result, first):
        sys.exit(f"{asked} returned {result!r}")
    print("\n" + json.dumps({"began": began, "ended": ended}))
