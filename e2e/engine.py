"""A container engine for tests, the image that they run, and a registry that they pull it from."""

import base64
import gzip
import hashlib
import http.client
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

#: A shell with the usual small programs, and Python. The name stands for this machine's own programs as well.
IMAGE = "localhost/busybox:1"
#: Parts of Python that no test needs.
LEFT_OUT = {
    "test",
    "tests",
    "site-packages",
    "__pycache__",
    "ensurepip",
    "idlelib",
    "tkinter",
    "lib2to3",
    "config",
}


class Missing(Exception):
    """This machine has no engine, and none can be started."""


class Engine:
    """Docker or Podman behind a socket. `CORACLE_TEST_ENGINE` names one; else Podman is started."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.process: subprocess.Popen | None = None
        self.registry, self.private = Registry(), Registry(is_private=True)
        named = os.environ.get("CORACLE_TEST_ENGINE")
        self.socket = Path(named) if named else folder / "podman.sock"
        if not named:
            self._start()
        try:
            self._make_image()
        except Exception:
            self.stop()
            raise

    def _start(self) -> None:
        lacking = [name for name in ("podman", "runc") if shutil.which(name) is None]
        if lacking or os.geteuid() != 0:
            raise Missing(f"{', '.join(lacking) or 'root'} is missing to start Podman")
        # Hard limits of this process are the highest that containers can have.
        limits = ["nofile=1024:1024", "nproc=4096:4096"]
        settings = self.folder / "containers.conf"
        settings.write_text(
            f"[containers]\ndefault_ulimits = {json.dumps(limits)}\n"
            '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
        )
        registries = self.folder / "registries.conf"
        hosts = (self.registry.host, self.private.host)
        registries.write_text(
            "".join(f'[[registry]]\nlocation = "{host}"\ninsecure = true\n' for host in hosts)
        )
        self._variables = {
            **os.environ, "CONTAINERS_CONF": str(settings), "CONTAINERS_REGISTRIES_CONF": str(registries)
        }  # fmt: skip
        places = [("--root", "root"), ("--runroot", "run"), ("--tmpdir", "tmp")]
        self._podman = [
            "podman",
            *(word for flag, name in places for word in (flag, str(self.folder / name))),
        ]
        # The other driver copies the whole image for each container, and works everywhere.
        tried = subprocess.run(
            [*self._podman, "--storage-driver", "overlay", "info"], capture_output=True, env=self._variables
        )
        self._podman += ["--storage-driver", "vfs" if tried.returncode else "overlay"]
        self.start()

    def start(self) -> None:
        """Starts Podman's service, once more after `pause`."""
        self._log = (self.folder / "podman.log").open("ab")
        self.process = subprocess.Popen(
            [*self._podman, "system", "service", "--time=0", f"unix://{self.socket}"],
            stdout=self._log, stderr=self._log, env=self._variables, cwd=self.folder,
        )  # fmt: skip
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                self.ask("GET", "/version")
                return
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.05)
        raise Missing(f"Podman does not start: {(self.folder / 'podman.log').read_text()}")

    def pause(self) -> None:
        """Ends the service; containers go on."""
        self.process.terminate()
        self.process.wait(timeout=20)

    def stop(self) -> None:
        for container in self.containers():
            self.ask("DELETE", f"/containers/{container['Id']}?force=1&v=1")
        if self.process:
            self.pause()
            # Podman's own mount would keep the folder from being removed.
            subprocess.run(["umount", "--lazy", self.folder / "root" / "overlay"], capture_output=True)
        self.registry.stop()
        self.private.stop()

    def ask(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json"):
        """What the Docker API answers, as JSON if it is that."""
        connection = http.client.HTTPConnection("localhost", timeout=60)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(60)
        connection.sock.connect(str(self.socket))
        connection.request(method, f"/v1.41{path}", body, {"Content-Type": kind})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status >= 400 and not (method == "DELETE" and answer.status == 404):
            raise AssertionError(f"{method} {path}: {answer.status} {text[:500]}")
        try:
            return json.loads(text)
        except ValueError:
            return text

    def containers(self, *pods: str) -> list[dict]:
        """Those of Pods of any test, or of these."""
        filters = quote(json.dumps({"label": ["coracle.dev/pod-uid"]}))
        all_of_them = self.ask("GET", f"/containers/json?all=1&filters={filters}")
        name = "io.kubernetes.pod.name"
        return [one for one in all_of_them if not pods or one["Labels"].get(name) in pods]

    def remove_image(self, name: str) -> None:
        self.ask("DELETE", f"/images/{quote(name, safe='')}?force=1")

    def _make_image(self) -> None:
        layer = root_of_image()
        self.ask("POST", f"/images/create?fromSrc=-&repo={quote(IMAGE)}", layer, "application/x-tar")
        self.registry.serve_layer(layer)
        self.private.serve_layer(layer)


def root_of_image() -> bytes:
    """A tar of everything in the image: busybox under all its names, and this Python with what it needs."""
    busybox = shutil.which("busybox")
    if busybox is None or "not a dynamic executable" not in said("ldd", busybox):
        raise Missing("a static busybox (Debian: busybox-static) is missing to make an image of")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(busybox, "bin/busybox")
        for applet in said(busybox, "--list").split():
            if applet != "busybox":
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
        for folder, mode in (("tmp", 0o1777), ("etc", 0o755), ("root", 0o700)):
            made = tarfile.TarInfo(folder)
            made.type, made.mode = tarfile.DIRTYPE, mode
            tar.addfile(made)
        passwd = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"
        file = tarfile.TarInfo("etc/passwd")
        file.size = len(passwd)
        tar.addfile(file, io.BytesIO(passwd))
        add_python(tar)
    return packed.getvalue()


def add_python(tar: tarfile.TarFile) -> None:
    interpreter = Path(sys.executable).resolve()
    library = Path(sysconfig.get_path("stdlib", vars={"base": sys.base_prefix}))

    def keep(entry: tarfile.TarInfo):
        name = Path(entry.name).name
        return None if name in LEFT_OUT or name.startswith("config-") or name.endswith(".a") else entry

    tar.add(library, str(library).lstrip("/"), filter=keep)
    tar.add(interpreter, str(interpreter).lstrip("/"))
    link = tarfile.TarInfo("bin/python3")
    link.type, link.linkname = tarfile.SYMTYPE, str(interpreter)
    tar.addfile(link)
    modules = library.glob("lib-dynload/*.so")
    needed = {
        found for path in (interpreter, *modules) for found in re.findall(r"(/\S+\.so\S*)", said("ldd", path))
    }
    for path in sorted(needed):
        tar.add(os.path.realpath(path), path.lstrip("/"))


def said(*command) -> str:
    ended = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    return ended.stdout + ended.stderr


class Registry:
    """One image under every name, as the OCI distribution protocol serves it.

    A private one asks for `USER` and `PASSWORD`. Names that begin with `none/` are not there.
    """

    USER, PASSWORD = "somebody", "secret:word"

    def __init__(self, is_private: bool = False):
        self.is_private = is_private
        self.blobs: dict[str, bytes] = {}
        self.manifest = b""
        self.pulls: list[str] = []
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                registry._answer(self)

            do_HEAD = do_GET

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def image(self, name: str) -> str:
        return f"{self.host}/{name}"

    def serve_layer(self, layer: bytes) -> None:
        packed = gzip.compress(layer, compresslevel=1, mtime=0)
        config = json.dumps({
            "architecture": "amd64", "os": "linux",
            "config": {"Cmd": ["echo", "the image's own"], "User": "65534"},
            "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
        }).encode()  # fmt: skip
        self.blobs = {digest(blob): blob for blob in (config, packed)}

        def described(kind, blob):
            return {
                "mediaType": f"application/vnd.docker.{kind}",
                "size": len(blob),
                "digest": digest(blob),
            }

        self.manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
                "config": described("container.image.v1+json", config),
                "layers": [described("image.rootfs.diff.tar.gzip", packed)],
            }
        ).encode()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.removeprefix("/v2/")
        who = f"{self.USER}:{self.PASSWORD}".encode()
        is_known = request.headers.get("Authorization") == f"Basic {base64.b64encode(who).decode()}"
        status, kind, body = 404, "application/json", b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}'
        if self.is_private and not is_known:
            status, body = 401, b'{"errors": [{"code": "UNAUTHORIZED"}]}'
        elif path == "":
            status, body = 200, b"{}"
        elif "/manifests/" in path and not path.startswith("none/"):
            status, kind, body = 200, json.loads(self.manifest)["mediaType"], self.manifest
            if request.command == "GET":
                self.pulls.append(path)
        elif "/blobs/" in path and path.rsplit("/", 1)[1] in self.blobs:
            status, kind, body = 200, "application/octet-stream", self.blobs[path.rsplit("/", 1)[1]]
        request.send_response(status)
        request.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        if status == 401:
            request.send_header("WWW-Authenticate", 'Basic realm="tests"')
        if "/manifests/" in path:
            request.send_header("Docker-Content-Digest", digest(body))
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body)


def digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"
