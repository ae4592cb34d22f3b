"""What users and their tasks do to a server all at once, or too much of."""

import concurrent.futures
import contextlib
import signal
import time
from pathlib import Path

import pytest
import runs
from kfp import dsl
from runs import SHELL_IMAGE

#: Runs that are asked for at once. `docs/reliability.md` has what 1000 took.
AT_ONCE = 60
#: Tasks that are at work, or wait for a place on this machine, when the server is told to stop.
AT_WORK = 100


@dsl.container_component
def shell(command: str):
    return dsl.ContainerSpec(image=SHELL_IMAGE, command=["bash", "-ec"], args=[command])


@dsl.pipeline
def one(command: str):
    shell(command=command)


@dsl.pipeline
def many(command: str, items: list):
    with dsl.ParallelFor(items):
        shell(command=command)


def memory(pid: int) -> int:
    """What a process holds, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) * 1024


def below(pid: int) -> dict[int, str]:
    """Every process that comes from a process, with its state."""
    parents = {}
    states = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            state, parent = (folder / "stat").read_text().rpartition(") ")[2].split()[:2]
            parents[int(folder.name)], states[int(folder.name)] = int(parent), state
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {child: states[child] for child in found - {pid}}


def test_as_many_runs_as_clients_like_are_taken_at_once_and_end(new_server):
    server = new_server().start()
    document = runs.compiled(one)

    def ask(_):
        while (answer := runs.post_run(server, document, {"command": "true"})).status_code == 429:
            assert int(answer.headers["Retry-After"]) > 0
        assert answer.ok, answer.text
        return answer.json()["run_id"]

    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as clients:
        asked = list(clients.map(ask, range(AT_ONCE)))
    assert len(set(asked)) == AT_ONCE
    for run_id in asked:
        run = runs.finish(server, run_id)
        assert run.state == "SUCCEEDED", run.describe()
    assert memory(server.process.pid) < 500 << 20


def test_a_flood_of_output_does_not_grow_the_server_and_says_what_is_missing(new_server):
    server = new_server().start()
    runs.succeed(server, one, command="true")
    before = memory(server.process.pid)
    size = 80 << 20
    line = "a line of some length, as many programs write"
    command = f"echo first; head -c {size} < <(yes '{line}'); echo; echo last"
    run = runs.succeed(server, one, command=command)
    assert memory(server.process.pid) - before < 64 << 20

    whole = runs.log(server, run, "shell")
    assert len(whole) > size and whole.startswith("first\n") and whole.endswith("last\n")
    pod = run.task("shell")["pod_name"]
    path = f"/api/v1/namespaces/default/pods/{pod}/log"
    shown = server.http("GET", path).text.splitlines()
    assert shown[0].startswith("coracle: ") and "bytes are missing here" in shown[0], shown[0]
    assert shown[-1] == "last"
    assert sum(map(len, shown)) < 51 << 20
    tail = server.http("GET", path, params={"tailLines": 1})
    assert tail.text == "last\n"


MORE_AND_MORE = """
import itertools, threading
threading.stack_size(32768)
ends = threading.Event()
made = 0
try:
    for made in itertools.count():
        threading.Thread(target=ends.wait).start()
except RuntimeError:
    print("made", made, flush=True)
ends.set()
"""


def test_a_task_that_makes_ever_more_processes_comes_to_a_limit(new_server):
    groups = [Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")]
    server = new_server().start()
    run = runs.succeed(server, one, command=f"python3 -c '{MORE_AND_MORE}'")
    made = int(runs.log(server, run, "shell").split()[1])
    if not any((group / "coracle").is_dir() for group in groups):
        pytest.skip(
            "NO CONTROL GROUP FOR PROCESSES CAN BE MADE HERE: a container may make as many as it likes"
        )
    assert made < int(Path("/proc/sys/kernel/pid_max").read_text()) / 4
    runs.succeed(server, one, command="true")
    assert not below(server.process.pid)


#: Each child leaves one of its own behind, and nobody waits for either.
ORPHANS = """
import os, time
for number in range(100):
    if os.fork() == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
def dead(parent):
    found = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            state, of = open(f"/proc/{pid}/stat").read().rpartition(") ")[2].split()[:2]
        except OSError:
            continue
        found += state == "Z" and int(of) == parent
    return found
while dead(1):
    os.sched_yield()
print("nobody is left to the first process")
"""


def test_a_task_that_waits_for_none_of_its_children_leaves_no_zombies(new_server):
    server = new_server().start()
    run = runs.succeed(server, one, command=f"python3 -c '{ORPHANS}'")
    assert runs.log(server, run, "shell") == "nobody is left to the first process\n"
    assert "Z" not in below(server.process.pid).values()


def test_a_server_that_is_told_to_stop_leaves_its_tasks_at_work_for_the_next_one(new_server, gate):
    server = new_server().start()
    port = gate.url.rstrip("/").rpartition(":")[2]
    waits = f"exec 3<>/dev/tcp/127.0.0.1/{port}; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3"
    run_id = runs.submit(server, many, command=waits, items=list(range(AT_WORK)))
    # From then on there is a node.
    assert gate.wait_visits(1)
    node = server.http("GET", "/api/v1/nodes").json()["items"][0]
    places = min(AT_WORK, int(node["status"]["allocatable"]["pods"]))
    assert gate.wait_visits(places), f"{gate.visits} of {places} came"
    asked = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=20) == 0
    assert time.monotonic() - asked < 10
    gate.open()

    server.start()
    run = runs.finish(server, run_id)
    assert run.state == "SUCCEEDED", run.describe()
    assert gate.visits == AT_WORK, "no task was run again"
