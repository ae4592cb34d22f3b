"""Python components do the same in a copy of a process that has imports done as in a process of their own.

Each component is run by two servers, one of which starts Python for every task anew. What they leave behind
is compared: states, errors, parameters, artifacts, and logs to the letter, apart from what always differs.
"""

import json
import os
import re
import select
import signal
from pathlib import Path

import pytest
import runs
from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Output
from server import Server

IMAGE = "python:3.11"
pytestmark = pytest.mark.timeout(300)


@dsl.component(base_image=IMAGE)
def numbers(
    count: int, rate: float, flag: bool, words: list, table: dict, text: str = "späte Zeilen\n"
) -> dict:
    print(repr([count, rate, flag, words, table, text]))
    return {
        "count": count + 1,
        "rate": rate / 3,
        "flag": not flag,
        "words": words[::-1],
        "table": table,
        "text": text,
    }


@dsl.component(base_image=IMAGE)
def outside(name: str = "x"):
    """What a process can see of itself."""
    import locale
    import os
    import pathlib
    import resource
    import signal
    import sys
    import threading

    print(os.getcwd(), sys.argv[0], sys.flags, sys.path, sys.executable, sys.prefix, sys.dont_write_bytecode)
    own = ("HOSTNAME", "KUBERNETES_")
    print({key: value for key, value in sorted(os.environ.items()) if not key.startswith(own)})
    print(sorted(os.listdir("/proc/self/fd")), os.readlink("/proc/self/fd/0"), threading.active_count())
    print([signal.getsignal(number) for number in sorted(signal.valid_signals())], os.umask(0o22))
    limits = sorted(limit for limit in dir(resource) if limit.startswith("RLIMIT"))
    print({limit: resource.getrlimit(getattr(resource, limit)) for limit in limits})
    kept = ("Uid", "Gid", "Groups", "Cap", "NoNew", "Seccomp", "SigBlk", "Umask", "Threads")
    status = pathlib.Path("/proc/self/status").read_text().splitlines()
    print([line for line in status if line.startswith(kept)])
    print(
        pathlib.Path("/proc/self/cgroup").read_text(),
        locale.getlocale(),
        sys.stdout,
        sys.stderr.encoding,
        sys.stdin,
    )
    print(sys.modules["__main__"].__spec__.name, sys.modules["__main__"].__file__, __name__)
    print(
        sorted(os.listdir("/")), sorted(os.listdir("/tmp")), os.path.exists("/proc/1/root/etc"), os.getuid()
    )


@dsl.component(base_image=IMAGE)
def streams():
    import os
    import subprocess
    import sys

    sys.stderr.write("to the other stream\n")
    os.write(1, b"past Python\n")
    subprocess.run(["sh", "-c", "echo from a shell; cat; exit 3"])
    print("äöü ✓ \u2028", flush=True)
    os.system("echo $PWD $HOME")


@dsl.component(base_image=IMAGE)
def files(made: Output[Dataset], score: Output[Metrics]):
    import pathlib
    import random
    import tempfile

    folder = pathlib.Path(made.path)
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("a" * 100_000)
    (folder / "b").mkdir()
    (folder / "b" / "c.bin").write_bytes(bytes(range(256)))
    made.metadata["rows"] = 3
    score.log_metric("accuracy", 0.5)
    random.seed(1)
    print(random.random(), pathlib.Path(tempfile.gettempdir()).exists(), pathlib.Path.cwd())
    pathlib.Path("here.txt").write_text("in the working directory")
    print(pathlib.Path("here.txt").read_text())


@dsl.component(base_image=IMAGE)
def reads(given: Input[Artifact]) -> str:
    import os

    return str(
        sorted((root.replace(given.path, ""), sorted(names)) for root, _, names in os.walk(given.path))
    )


@dsl.component(base_image=IMAGE)
def raises():
    def inner():
        try:
            {}["missing"]
        except KeyError as error:
            raise ValueError("two\nlines") from error

    inner()


@dsl.component(base_image=IMAGE)
def leaves(how: str):
    import atexit
    import os
    import sys
    import threading

    atexit.register(lambda: print("at exit", file=sys.stderr))
    thread = threading.Thread(target=lambda: print("a thread", file=sys.stderr))
    thread.start()
    thread.join()
    print("before", file=sys.stderr)
    if how == "code":
        sys.exit(3)
    if how == "words":
        sys.exit("in words")
    if how == "at once":
        os._exit(4)
    if how == "interrupted":
        raise KeyboardInterrupt
    if how == "abort":
        os.abort()
    if how.startswith("signal"):
        os.kill(os.getpid(), int(how.split()[1]))


@dsl.component(base_image=IMAGE)
def leaves_open(out: Output[Dataset]):
    import builtins
    import sys

    class Ends:
        def __del__(self):
            print("ended")

    # Nobody closes it; it is written when its module is taken apart.
    this = sys.modules[leaves_open.__module__]
    this.file = builtins.open(out.path, "w")  # noqa: SIM115
    this.file.write("in a buffer")
    this.ends = Ends()
    this.circle = [Ends()]
    this.circle.append(this.circle)


@dsl.component(base_image=IMAGE)
def many_processes() -> int:
    import concurrent.futures
    import multiprocessing
    import os

    with multiprocessing.get_context("fork").Pool(2) as pool:
        forked = sum(pool.map(abs, range(-5, 5)))
    with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        spawned = sum(pool.map(abs, range(-3, 3)))
    child = os.fork()
    if child == 0:
        os._exit(7)
    return forked + spawned + os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@dsl.component(base_image=IMAGE)
def a_server() -> str:
    import http.server
    import threading
    import urllib.request

    class Hello(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *_):
            pass

    # One port for all: each Pod has its own.
    server = http.server.ThreadingHTTPServer(("0.0.0.0", 8099), Hello)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return urllib.request.urlopen("http://127.0.0.1:8099/").read().decode()


@dsl.component(base_image=IMAGE)
def long(text: str) -> int:
    print(text[:10], text[-10:])
    return len(text)


@dsl.component(base_image=IMAGE)
def with_variables() -> str:
    import os

    seed = os.environ.get("PYTHONHASHSEED")
    return f"{os.environ['MODEL']} {seed} {seed and hash('x')}"


@dsl.component(base_image=IMAGE)
def hungry():
    print("eats")
    eaten = []
    while True:
        eaten.append(bytearray(10_000_000))


@dsl.pipeline
def everything():
    numbers(count=1, rate=0.1, flag=True, words=["a", "ä"], table={"k": [1, {"n": 2.5}]})
    outside()
    streams()
    made = files()
    reads(given=made.outputs["made"])
    raises()
    for how in (
        "code", "words", "at once", "interrupted", "abort", "signal 9", "signal 15", "signal 11", "well",
    ):  # fmt: skip
        leaves(how=how).set_display_name(f"leaves {how}")
    leaves_open()
    many_processes()
    a_server()
    a_server()
    long(text="0123456789" * 30_000)
    with_variables().set_env_variable("MODEL", "small")
    with_variables().set_env_variable("MODEL", "large").set_env_variable("PYTHONHASHSEED", "5")
    hungry().set_memory_limit("200M")


#: What is another one each time.
PASSING = [
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.,]\d+Z?", "TIME"),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "ID"),
    (r"[0-9a-f]{10}-1\b", "ATTEMPT"),
    (r"tmp\.[A-Za-z0-9_]+", "tmp.NAME"),
    (r"0x[0-9a-f]+", "0xADDRESS"),
    (r"\bid=\d+", "id=NUMBER"),
]


def same(text: str, server) -> list[str]:
    """The lines of a text, in no order: that of what comes through two streams is nobody's."""
    text = text.replace(str(server.data_dir), "DATA").replace(str(server.port), "PORT")
    for pattern, name in PASSING:
        text = re.sub(pattern, name, text)
    return sorted(line for line in text.splitlines() if line.strip() and not line.startswith("coracle: "))


def left_behind(server, run) -> dict[str, list[str]]:
    """What each task left behind, by its name; of tasks with one name all."""
    found = {}
    for row in runs.rows(server, run.id):
        if row["type"] == "ROOT":
            continue
        told = {key: row.get(key) for key in ("state", "status_metadata")}
        # What follows is the end of the log, where the order of two streams is nobody's.
        told["error"] = str(row.get("error")).split(":")[:4]
        told["outputs"] = (row.get("outputs") or {}).get("parameters")
        log = server.cli("logs", run.id, row["task_id"], check=False).stdout
        name = row["display_name"] or row["name"]
        found[name] = same(json.dumps(told, indent=1, sort_keys=True) + "\n" + log, server)
    listed = server.get("/artifacts", run_id=run.id, page_size=200)["artifacts"]
    ids = ("artifact_id", "created_at", "producer_task", "uri")
    # A log's size varies with what it is compared without.
    made = [
        {key: value for key, value in artifact.items() if key not in ids}
        for artifact in listed
        if artifact["name"] != "executor-logs"
    ]
    made.sort(key=lambda artifact: artifact["name"])
    found["artifacts"] = same(json.dumps(made, indent=1, sort_keys=True), server)
    return found


@pytest.fixture(scope="module")
def both(_servers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("warm")
    started = []
    # As `nohup coracle up` would have it.
    heard = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for name, flags in (("plain", ["--no-warm-python"]), ("warm", [])):
        (folder / name).mkdir()
        server = Server(folder / name / "data", folder / name / "server.log")
        _servers.append(server)
        started.append(server.start(*flags))
    signal.signal(signal.SIGHUP, heard)
    yield started
    for server in started:
        assert server.stop() == 0, server.log_tail()


def workers(server) -> list[int]:
    """The processes of a server that wait for tasks."""
    return [pid for pid in processes(f"{server.data_dir}/workers/") if parent(pid) == server.process.pid]


def processes(of: str) -> list[int]:
    """Those that have something in their command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if of in (folder / "cmdline").read_text(errors="replace"):
                found.append(int(folder.name))
        except OSError:
            pass  # it ended meanwhile
    return found


def parent(pid: int) -> int | None:
    try:
        return int(re.search(r"^PPid:\s*(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)[1])
    except OSError:
        return None


def test_a_component_does_the_same_in_a_warm_process_as_in_its_own(both):
    start_worker(both[1])
    found = []
    for server in both:
        run = runs.finish(server, runs.submit(server, everything), timeout=250)
        assert run.state == "FAILED"
        found.append(left_behind(server, run))
    plain, warm = found
    assert workers(both[0]) == []
    assert "sys.flags(" in str(plain["outside"]) and "OOMKilled" in str(plain["hungry"])
    assert plain.keys() == warm.keys()
    for name in plain:
        assert warm[name] == plain[name], name


@dsl.component(base_image=IMAGE)
def who(tag: str) -> dict:
    import os

    with open("/proc/self/status") as file:
        parent = next(line for line in file if line.startswith("PPid"))
    import json as module

    left = os.environ.get("LEFT")
    os.environ["LEFT"] = "behind"

    was = getattr(module, "left_behind", None)
    module.left_behind = tag
    return {"parent": parent.split()[1], "found": [was, os.listdir("."), left]}


@dsl.pipeline
def one_after_the_other():
    first = who(tag="a")
    second = who(tag="b").after(first)
    who(tag="c").after(second)


def test_a_task_finds_nothing_of_the_one_before(both):
    _, server = both
    start_worker(server)
    run = runs.succeed(server, one_after_the_other)
    found = [runs.value(server, run.id, name, "Output") for name in ("who", "who-2", "who-3")]
    # Their parent is outside of what they see: they are copies of a worker.
    assert {value["parent"] for value in found} == {"0"}
    assert [value["found"] for value in found] == [[None, [], None]] * 3


def start_worker(server, pipeline=one_after_the_other):
    """The first task of an environment has a worker started, and is a copy of it already."""
    run = runs.succeed(server, pipeline, timeout=250)
    assert workers(server)
    return run


@dsl.component(base_image=IMAGE)
def waits(url: str):
    import signal
    import sys
    import urllib.request

    def end(*_):
        print("told to end", flush=True)
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    urllib.request.urlopen(url).read()
    print("went on")


@dsl.pipeline
def waiting(url: str):
    waits(url=url)


def test_a_task_outlives_server_and_worker_and_is_taken_up(new_server, gate):
    server = new_server().start()
    first = start_worker(server)
    assert runs.value(server, first.id, "who", "Output")["parent"] == "0"
    run_id = runs.submit(server, waiting, url=gate.url)
    gate.wait_reached()
    for worker in workers(server):
        os.kill(worker, signal.SIGKILL)
    server.kill()
    server.start()
    gate.open()
    run = runs.finish(server, run_id)
    assert run.state == "SUCCEEDED", run.describe()
    assert "went on" in server.cli("logs", run_id).stdout
    assert runs.row(server, run_id, "waits").get("retries", []) == []


def test_a_task_in_a_warm_process_hears_that_it_is_to_end(both, gate):
    _, server = both
    run_id = runs.submit(server, waiting, url=gate.url)
    gate.wait_reached()
    server.client.terminate_run(run_id)
    run = runs.finish(server, run_id)
    assert run.state == "CANCELED"
    assert "told to end" in server.cli("logs", run_id).stdout


@dsl.component(base_image=IMAGE, packages_to_install=["numpy"])
def draws() -> list:
    import sys

    had = "numpy" in sys.modules
    import numpy

    return [had, float(numpy.random.random()), int((numpy.ones((64, 64)) @ numpy.ones((64, 64))).sum())]


@dsl.component(base_image=IMAGE, packages_to_install=["numpy"])
def draws_with_variable() -> list:
    import sys

    return ["numpy" in sys.modules]


@dsl.pipeline
def drawing():
    draws()
    draws()
    draws_with_variable().set_env_variable("OMP_NUM_THREADS", "1")


def test_what_tasks_import_is_there_already_in_later_ones_and_draws_other_numbers(new_server):
    server = new_server().start()
    start_worker(server, drawing)
    first = runs.succeed(server, drawing)
    assert [runs.value(server, first.id, name, "Output")[0] for name in ("draws", "draws-2")] == [False] * 2
    # A process with what was seen is prepared once no task has begun for a moment.
    learned = next(Path(server.data_dir, "workers").glob("*/imports.json"))
    assert json.loads(learned.read_text()) == {"wanted": ["numpy"], "refused": []}
    runs.until(server, first.id, lambda _: list(learned.parent.glob("full-*")))

    def warm(_) -> bool:
        later = runs.succeed(server, drawing)
        one, other = (runs.value(server, later.id, name, "Output") for name in ("draws", "draws-2"))
        assert one[1] != other[1], "two tasks drew the same number"
        assert one[2] == other[2] == 64**3
        # What has variables of its own may mean them for a library.
        assert runs.value(server, later.id, "draws-with-variable", "Output") == [False]
        return one[0] and other[0]

    runs.until(server, first.id, warm)


def test_workers_end_with_their_server(new_server):
    server = new_server().start()
    start_worker(server)
    (worker,) = workers(server)
    ended = os.pidfd_open(worker)
    server.kill()
    assert select.select([ended], [], [], 20)[0], "the worker went on"
    os.close(ended)
