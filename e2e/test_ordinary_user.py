"""A server that is not root's: tasks run in a user namespace, and see this machine's files read-only."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
import runs
from kfp import dsl
from server import BINARY, Server

#: Nobody in particular.
USER = 65534


@pytest.fixture
def server(_servers):
    if os.geteuid() != 0:
        pytest.skip("NOT ROOT: the other tests are those of an ordinary user already")
    # Where that user can get at it, unlike pytest's own folders.
    folder = Path(tempfile.mkdtemp(prefix="coracle-user-"))
    folder.chmod(0o755)
    own = folder / "own"
    own.mkdir()
    os.chown(own, USER, USER)
    binary = shutil.copy(BINARY, folder / "coracle")
    server = Server(own / "data", folder / "server.log", variables={"HOME": str(own)})
    _servers.append(server)
    yield server.start(binary=binary, user=USER)
    assert server.stop() == 0, server.log_tail()
    _servers.remove(server)
    shutil.rmtree(folder)


@dsl.container_component
def looks(out: dsl.OutputPath(str)):
    script = (
        'mkdir -p "$(dirname "$0")"; cat /var/run/secrets/kubernetes.io/serviceaccount/namespace > "$0"; '
        "echo; id -u; touch /run/mark 2>&1; touch /etc/mark 2>&1; "
        "for folder in /run/coracle-own-*; do touch $folder/mark 2>&1; done; cat /etc/hosts"
    )
    return dsl.ContainerSpec(image=runs.SHELL_IMAGE, command=["sh", "-c", script], args=[out])


@dsl.pipeline
def looking():
    looks()


@pytest.fixture
def theirs():
    """A folder of that user's, beside which a Pod's own are made."""
    folder = Path(tempfile.mkdtemp(prefix="coracle-own-", dir="/run"))
    os.chown(folder, USER, USER)
    yield folder
    shutil.rmtree(folder)


def test_tasks_run_as_that_user_and_have_their_pods_own_files(server, theirs):
    run = runs.finish(server, runs.submit(server, looking))
    assert run.state == "SUCCEEDED", run.describe()
    assert runs.value(server, run.id, "looks") == "default"
    log = server.cli("logs", run.id).stdout
    assert str(USER) in log.splitlines()
    assert "/etc/mark" in log and str(theirs) in log, "the machine's files can be written to"
    assert not Path("/run/mark").exists() and not Path("/etc/mark").exists()
    assert list(theirs.iterdir()) == []
