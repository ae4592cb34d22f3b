"""Backups of a live server, and data directories out of them."""

import io
import tarfile
import threading

import pytest
import runs
from kfp import dsl
from server import run_cli


@dsl.container_component
def keep(text: str, seconds: str, file: dsl.Output[dsl.Artifact]):
    script = 'echo "$0"; sleep "$1"; mkdir -p "$(dirname "$2")"; echo "$0" > "$2"'
    return dsl.ContainerSpec(
        image=runs.SHELL_IMAGE, command=["sh", "-c"], args=[script, text, seconds, file.path]
    )


@dsl.container_component
def read(file: dsl.Input[dsl.Artifact]):
    return dsl.ContainerSpec(image=runs.SHELL_IMAGE, command=["cat"], args=[file.path])


@dsl.pipeline
def kept(text: str = "a thing to keep", seconds: str = "0"):
    read(file=keep(text=text, seconds=seconds).outputs["file"])


def restored(new_server, backup, folder, **options):
    run_cli("restore", backup, "--data-dir", folder, check=True)
    return new_server(folder, **options).start()


@pytest.mark.parametrize("name", ["all.tar", "all.tar.gz"])
def test_a_backup_of_a_live_server_holds_everything(new_server, tmp_path, name):
    server = new_server().start()
    run = runs.succeed(server, kept)
    server.kubectl("create", "configmap", "own", "--from-literal=key=value")
    backup = tmp_path / name
    said = server.cli("backup", backup).stderr
    assert "backed up" in said and backup.stat().st_mode & 0o777 == 0o600
    runs.succeed(server, kept, text="later")

    # Elsewhere: nothing leads back to the first server.
    other = restored(new_server, backup, tmp_path / "elsewhere" / "data")
    server.stop()
    (tmp_path / "data").rename(tmp_path / "gone")
    assert [found.run_id for found in other.client.list_runs().runs] == [run.id]
    assert runs.log(other, runs.read(other, run.id), "keep") == "a thing to keep\n"
    artifact = runs.artifacts(other, run.id)["file"]
    assert artifact["uri"].startswith(str(tmp_path / "elsewhere"))
    assert runs.texts([artifact]) == ["a thing to keep\n"]
    assert other.kubectl("get", "configmap", "own", "-o", "jsonpath={.data.key}").stdout == "value"
    # What was cached may be taken over.
    again = runs.finish(other, runs.submit_as_compiled(other, kept))
    assert again.state == "SUCCEEDED", again.describe()


def test_what_ran_when_a_backup_was_made_runs_again(new_server, tmp_path):
    server = new_server().start()
    over = threading.Event()

    def work():
        number = 0
        while not over.is_set():
            runs.succeed(server, kept, text=f"run {number}", seconds="0.4")
            number += 1

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for number in range(3):
            server.cli("backup", tmp_path / f"{number}.tar")
    finally:
        over.set()
        worker.join()
    server.stop()
    for number in range(3):
        folder = tmp_path / f"restored-{number}"
        # Launchers know the address of their server.
        other = restored(new_server, tmp_path / f"{number}.tar", folder, port=server.port)
        for found in other.client.list_runs(page_size=100).runs or []:
            run = runs.finish(other, found.run_id)
            assert run.state == "SUCCEEDED", run.describe()
            for artifact in runs.artifacts(other, run.id).values():
                assert runs.texts([artifact])[0], artifact
        other.stop()


def test_only_a_backup_becomes_a_data_directory(tmp_path, new_server):
    server = new_server().start()
    runs.succeed(server, kept)
    whole = tmp_path / "whole.tar"
    server.cli("backup", whole)
    target = tmp_path / "target"

    def refused(file, words):
        ended = run_cli("restore", file, "--data-dir", target)
        assert ended.returncode == 1 and words in ended.stderr, ended.stderr
        assert not target.exists()
        assert [path.name for path in tmp_path.iterdir() if "restoring" in path.name] == []

    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    refused(cut, "damaged or cut off")
    (tmp_path / "text").write_text("not an archive " * 100)
    refused(tmp_path / "text", "no backup of Coracle")
    with tarfile.open(tmp_path / "other.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("something"), io.BytesIO())
    refused(tmp_path / "other.tar", "no backup of Coracle")
    with tarfile.open(whole) as tar, tarfile.open(tmp_path / "evil.tar", "w") as evil:
        for entry in tar:
            evil.addfile(entry, tar.extractfile(entry) if entry.isfile() else None)
        evil.addfile(tarfile.TarInfo("artifacts/../../outside"), io.BytesIO())
    refused(tmp_path / "evil.tar", "is not of a backup")
    assert not (tmp_path / "outside").exists()

    target.mkdir()
    (target / "mine").write_text("mine")
    ended = run_cli("restore", whole, "--data-dir", target)
    assert ended.returncode == 1 and "is not empty" in ended.stderr
    assert [path.name for path in target.iterdir()] == ["mine"]
    ended = run_cli("backup", tmp_path / "none.tar", "--data-dir", tmp_path / "nowhere")
    assert ended.returncode == 1 and "no data directory of Coracle" in ended.stderr
    assert not (tmp_path / "none.tar").exists()
