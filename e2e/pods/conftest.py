"""What is true of Pods is true of them however they run: as processes, and as containers of an image."""

import shutil

import pytest
from engine import Engine, Missing
from pod_manifests import Pods
from server import Server


@pytest.fixture(scope="session")
def engine(tmp_path_factory):
    try:
        started = Engine(tmp_path_factory.mktemp("engine"))
    except Missing as missing:
        pytest.skip(f"NO CONTAINER ENGINE ON THIS MACHINE: Pods are not tested with one: {missing}")
    yield started
    started.stop()


def pytest_generate_tests(metafunc):
    """Each test runs for every runtime, or for those that its module names."""
    if "runtime" in metafunc.fixturenames:
        runtimes = getattr(metafunc.module, "RUNTIMES", ["process", "container"])
        metafunc.parametrize("runtime", runtimes, indirect=True, scope="session")


@pytest.fixture(scope="session")
def runtime(request):
    return request.param


@pytest.fixture(scope="session")
def flags(request, runtime):
    """What a server is started with."""
    if runtime == "process":
        return ["--runtime", "process"]
    engine = request.getfixturevalue("engine")
    return ["--runtime", "container", "--container-socket", str(engine.socket)]


@pytest.fixture(scope="session")
def server(_servers, flags, runtime, tmp_path_factory):
    """One server for each runtime."""
    if shutil.which("kubectl") is None:
        pytest.skip("KUBECTL IS NOT ON THIS MACHINE: the Kubernetes API is not tested with it")
    folder = tmp_path_factory.mktemp(f"{runtime}-server")
    shared = Server(folder / "data", folder / "server.log")
    _servers.append(shared)
    shared.start(*flags)
    yield shared
    assert shared.stop() == 0, f"the shared server ended badly\n{shared.log_tail()}"


@pytest.fixture
def pods(server):
    made = Pods(server)
    yield made
    if made.made:
        server.kubectl("delete", "pod", "--ignore-not-found", "--grace-period=0", "--force", *made.made)
