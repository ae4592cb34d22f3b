"""Starting: what cannot be used is refused with one clear sentence, and left as it was."""

import hashlib
import os
import shutil
import socket
import sqlite3
import stat
import subprocess
from pathlib import Path

import pytest
from server import BINARY, environment, free_port, run_cli


def refused(*arguments, timeout: float = 30) -> str:
    """`coracle up` must end by itself and say why in a line or two. Returns what it said."""
    ended = run_cli("up", "--foreground", *arguments, timeout=timeout)
    return said(ended)


def said(ended: subprocess.CompletedProcess) -> str:
    text = ended.stderr.strip()
    assert ended.returncode not in (0, 101), f"exit {ended.returncode}\n{ended.stdout}\n{text}"
    assert "panicked" not in text and "RUST_BACKTRACE" not in text, text
    lines = [line for line in text.splitlines() if line.strip()]
    assert 1 <= len(lines) <= 4, f"not one clear sentence and a hint:\n{text}"
    return text


def fingerprint(folder: Path) -> dict[str, str]:
    """Every file below a folder with a digest of its content; what a lock needs left out."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name not in ("coracle.lock", "coracle.log")
    }


@pytest.fixture
def used(new_server):
    """A data directory that a server used and left."""
    server = new_server().start()
    server.client.create_experiment("kept")
    assert server.stop() == 0
    return server.data_dir


def database(folder: Path) -> Path:
    return folder / "coracle.db"


def test_a_second_server_on_the_same_data_directory(new_server):
    first = new_server().start()
    text = refused("--data-dir", first.data_dir, "--port", free_port())
    assert str(first.data_dir) in text
    assert first.http("GET", "/healthz").ok


def test_a_folder_for_pods_that_is_a_file(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    text = refused("--data-dir", tmp_path / "data", "--port", free_port(), "--host-path", file)
    assert str(file) in text and "--host-path" in text
    assert file.read_text() == "mine"


def test_a_port_in_use(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        text = refused("--data-dir", tmp_path / "data", "--port", port)
    assert str(port) in text


def test_a_corrupt_database(used):
    database(used).write_bytes(b"SQLite format 3\0" + os.urandom(8192))
    before = fingerprint(used)
    text = refused("--data-dir", used, "--port", free_port())
    assert "coracle.db" in text
    assert fingerprint(used) == before


def test_a_database_that_is_no_database(used):
    database(used).write_text("dear diary\n" * 1000)
    before = fingerprint(used)
    assert "coracle.db" in refused("--data-dir", used, "--port", free_port())
    assert fingerprint(used) == before


def test_a_database_of_a_newer_version(used):
    with sqlite3.connect(database(used)) as connection:
        connection.execute(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)"
            " VALUES (99991231000000, 'from the future', TRUE, x'00', 0)"
        )
    connection.close()
    before = fingerprint(used)
    assert "newer" in refused("--data-dir", used, "--port", free_port())
    assert fingerprint(used) == before


def in_own_mounts(script: str) -> subprocess.CompletedProcess:
    """Run a script where it may mount, without this machine's mounts being changed."""
    return subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-ec", script],
        capture_output=True, text=True, timeout=60, env=environment(),
    )  # fmt: skip


@pytest.fixture
def mounts():
    """Skips where a mount of one's own cannot be had."""
    if shutil.which("unshare") is None or in_own_mounts("mount -t tmpfs tmpfs /mnt").returncode != 0:
        pytest.skip("THIS MACHINE GIVES NO MOUNT NAMESPACES: a read-only and a full disk are not tested")


def test_a_read_only_disk(used, mounts):
    before = fingerprint(used)
    text = said(
        in_own_mounts(
            f"mount --bind '{used}' '{used}'; mount -o remount,ro,bind '{used}';"
            f"exec '{BINARY}' up --foreground --data-dir '{used}' --port {free_port()}"
        )
    )
    assert str(used) in text
    assert fingerprint(used) == before


def test_a_full_disk(tmp_path, mounts):
    folder = tmp_path / "small"
    folder.mkdir()
    text = said(
        in_own_mounts(
            f"mount -t tmpfs -o size=16k tmpfs '{folder}';"
            f"exec '{BINARY}' up --foreground --data-dir '{folder}/data' --port {free_port()}"
        )
    )
    assert "space" in text or "full" in text, text


def test_a_data_directory_that_is_a_file(tmp_path):
    file = tmp_path / "data"
    file.write_text("not a folder")
    assert str(file) in refused("--data-dir", file, "--port", free_port())
    assert file.read_text() == "not a folder"


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.7"])
def test_an_address_that_others_can_reach_is_refused(tmp_path, address):
    text = refused("--data-dir", tmp_path / "data", "--port", free_port(), "--host", address)
    assert address in text and "authentication" in text
    assert not database(tmp_path / "data").exists()


def test_the_data_directory_is_its_owners_alone(used):
    assert stat.S_IMODE(used.stat().st_mode) == 0o700


def test_a_stopped_server_can_be_started_again_after_a_kill(new_server):
    server = new_server().start()
    server.kill()
    server.start()
    assert server.stop() == 0
