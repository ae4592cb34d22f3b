"""Fixtures: servers, and what a failed test shows of them."""

import os
import shutil

import pytest
from gate import Gate
from server import BINARY, Server
from witness import Witness

pytest_plugins = ["compatibility"]

os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
for name in [name for name in os.environ if name.startswith("KF_PIPELINES")]:
    del os.environ[name]


def pytest_sessionstart(session):
    if not session.config.option.collectonly and not BINARY.exists():
        pytest.exit(f"{BINARY} does not exist: run `make build`, or set CORACLE_BIN", returncode=2)


@pytest.fixture(scope="session")
def _servers():
    """Every server that was started, so that a failed test can show their logs."""
    started: list[Server] = []
    yield started
    for server in started:
        server.kill()


@pytest.fixture(scope="session")
def server(_servers, tmp_path_factory):
    """One server that tests share. They name what they make after themselves."""
    folder = tmp_path_factory.mktemp("shared-server")
    shared = Server(folder / "data", folder / "server.log")
    _servers.append(shared)
    shared.start()
    yield shared
    assert shared.stop() == 0, f"the shared server ended badly\n{shared.log_tail()}"


@pytest.fixture
def new_server(_servers, tmp_path):
    """Makes servers, not yet started, that a test may kill, fill or break."""
    made: list[Server] = []

    def make(data_dir=None, **options) -> Server:
        server = Server(data_dir or tmp_path / "data", tmp_path / f"server-{len(made)}.log", **options)
        made.append(server)
        _servers.append(server)
        return server

    yield make
    for server in made:
        server.kill()
        _servers.remove(server)


@pytest.fixture
def gate():
    """Something a task runs into and waits at, until the test opens it."""
    with Gate() as opened:
        yield opened


@pytest.fixture
def witness():
    """Something that tasks tell what they do."""
    with Witness() as listening:
        yield listening


@pytest.fixture
def kubectl(server):
    """`kubectl` against the shared server."""
    if shutil.which("kubectl") is None:
        pytest.skip("KUBECTL IS NOT ON THIS MACHINE: the Kubernetes API is not tested with it")
    return server.kubectl


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed:
        for server in item.funcargs.get("_servers", []):
            report.sections.append((f"log of the server at {server.url}", server.log_tail()))


def pytest_terminal_summary(terminalreporter):
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        terminalreporter.section("SKIPPED ON THIS MACHINE", sep="!")
        for report in skipped:
            terminalreporter.line(f"{report.nodeid}: {report.longrepr[2]}")
