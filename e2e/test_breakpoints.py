"""What becomes of a run when the server, a helper or a launcher ends at a certain point, as by `kill -9`.

The table of `docs/reliability.md` has every point and what holds after it.
"""

import breakpoints
import pytest
import requests
import runs
from breakpoints import Breakpoints
from components import one_bash
from server import Server
from soak import Soak, busy
from witness import Witness

#: Points that a run comes to often, and the visits that are the last: early and in its middle.
VISITS = {
    "objects.before-commit": (1, 9),
    "objects.committed": (1, 9),
    "rows.before-commit": (1, 3),
    "rows.committed": (1, 3),
    "engine.planned": (1, 3),
    "engine.rows-written": (1, 3),
    "engine.pod-created": (1, 4),
    "node.started": (1, 4),
}
#: What is tested apart from the others: a run that is stopped, and a write that fails (`test_disk_trouble`).
APART = {"engine.pod-deleted", "store.write"}
POINTS = [point for point in breakpoints.listed() if point not in APART]
CASES = [(point, visit) for point in POINTS for visit in VISITS.get(point, (1,))]


class Case:
    """A server with breakpoints, and what looks at its runs."""

    def __init__(self, server: Server, witness: Witness):
        self.server = server
        self.breakpoints = Breakpoints(server)
        self.soak = Soak(server.start(), witness, seed=0)
        self.document = runs.compiled(busy)

    def ask(self, name: str) -> str | None:
        """Asks for a run. None when the server ended before it answered."""
        body = {
            "display_name": name,
            "pipeline_spec": self.document,
            "runtime_config": {"parameters": {"witness": self.soak.witness.url, "is_bad": False}},
        }
        try:
            answer = self.server.http("POST", "/apis/v2beta1/runs", json=body)
        except requests.ConnectionError:
            return None
        assert answer.ok, answer.text
        return answer.json()["run_id"]

    def find(self, name: str) -> list[str]:
        listed = self.server.get("/runs", page_size=100).get("runs", [])
        return [run["run_id"] for run in listed if run["display_name"] == name]


@pytest.fixture(scope="module")
def case(_servers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("breakpoints")
    server = Server(folder / "data", folder / "server.log")
    _servers.append(server)
    with Witness() as witness:
        yield Case(server, witness)
    server.kill()


def is_of_server(point: str) -> bool:
    return not point.startswith(("helper.", "launcher.", "artifacts."))


@pytest.mark.parametrize(("point", "visit"), CASES)
def test_a_run_ends_as_it_should_whoever_ends_where(case, point, visit):
    server, name = case.server, f"{point}-{visit}"
    case.breakpoints.end_at(point, visit)
    run_id = case.ask(name)
    if is_of_server(point):
        server.process.wait(timeout=60)
        server.start()
    if run_id is None:
        # Nobody was told: it is there as a whole, or not at all and may be asked for again.
        found = case.find(name)
        assert len(found) <= 1
        run_id = found[0] if found else case.ask(name)
    case.soak.expected = {run_id: "SUCCEEDED"}
    case.soak.check()
    assert case.breakpoints.was_reached(point)
    case.breakpoints.clear(point)


def test_a_run_that_was_stopped_ends_as_canceled_when_the_server_ends_while_it_stops(case, gate):
    server = case.server
    run_id = runs.submit(server, one_bash, command=gate.shell)
    gate.wait_reached()
    case.breakpoints.end_at("engine.pod-deleted")
    server.client.terminate_run(run_id)
    server.process.wait(timeout=60)

    server.start()
    run = runs.finish(server, run_id)
    assert run.state == "CANCELED", run.describe()
    gate.wait_left()
    case.breakpoints.clear("engine.pod-deleted")
