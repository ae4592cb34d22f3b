"""What `make demo` runs once everything is built: start a server if none is up, then the digits example.

python examples/demo.py --coracle target/debug/coracle --data-dir .coracle/demo
"""

import argparse
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import requests

DEFAULT_PORT = 4242


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--coracle", type=Path, default=Path("target/debug/coracle"))
    parser.add_argument("--data-dir", type=Path, default=Path(".coracle/demo"))
    options, rest = parser.parse_known_args()

    url = running(options.data_dir)
    if url:
        print(f"a Coracle server is up at {url}; using it", flush=True)
    else:
        url = start(options.coracle, options.data_dir)

    print("submitting the digits pipeline with the unmodified kfp SDK", flush=True)
    # The SDK takes two seconds to import, so it comes after the lines that say what happens.
    sys.path.insert(0, str(Path(__file__).parent / "digits"))
    import run

    code = run.main(["--host", url, *rest])
    print(f"the server keeps running; stop it with: {options.coracle} down --data-dir {options.data_dir}")
    return code


def running(data_dir: Path) -> str | None:
    """The URL of the server of this data directory, if one answers there."""
    try:
        url = json.loads((data_dir / "server.json").read_text())["url"]
        answer = requests.get(f"{url}/healthz", timeout=5)
    except (OSError, ValueError, KeyError):
        return None
    return url if answer.ok else None


def start(coracle: Path, data_dir: Path) -> str:
    port = DEFAULT_PORT if is_free(DEFAULT_PORT) else 0
    if port == 0:
        print(f"port {DEFAULT_PORT} is taken by another program; taking a free one", flush=True)
    command = [str(coracle), "up", "-d", "--data-dir", str(data_dir), "--port", str(port)]
    print("starting it:", " ".join(command), flush=True)
    # The tool that makes Python environments lies beside this interpreter when it is nowhere else.
    path = f"{os.environ.get('PATH', '')}{os.pathsep}{Path(sys.executable).parent}"
    ended = subprocess.run(command, env={**os.environ, "PATH": path})
    if ended.returncode != 0:
        sys.exit(ended.returncode)
    url = running(data_dir)
    if not url:
        sys.exit(f"the server of {data_dir} does not answer; its log is {data_dir}/coracle.log")
    return url


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


if __name__ == "__main__":
    sys.exit(main())
