"""A Python process that has imported what tasks need, and becomes, as a copy of itself, one task after the other.

Run as `python3 worker.py LIMIT MODULE...`: the bytes of memory that it may have after its imports, and what to import
besides the KFP executor. Its standard input is the socket that it takes connections from. Each line that it prints is
for the node. It ends when nobody reads those any more; the tasks that it became go on.

A connection is one task. The container's first process says, with descriptors, where the task belongs; the launcher
says what it is, and hears its process id and how it ended. Between them lie two copies: one that waits for the task,
and the task, which is born into the container's PID namespace. A container that goes without having asked for its task
closes the connection, and the copies go too.
"""

import argparse
import array
import ast
import atexit
import contextlib
import ctypes
import errno
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import tempfile
import threading
import types

EXECUTOR = "kfp.dsl.executor_main"
# What keeps threads, connections or devices that a copy does not get, though not all do from the moment of the import.
UNSAFE = {"cudf", "cupy", "dask", "distributed", "grpc", "h2o", "jax", "mxnet", "paddle", "polars", "pyspark", "ray"}
UNSAFE |= {"tensorflow", "tensorrt", "torch", "vllm"}
LONGEST = 64 * 1024

libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """An import that copies would not do well with."""


def checked(result):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


# Preparing


def prepare(modules, limit):
    """Imports what tasks will, and gives the variables that this added."""
    # What the executor imports is wanted, not that it has been: `runpy` runs it, and would say that it has.
    importlib.import_module(EXECUTOR)
    del sys.modules[EXECUTOR]
    package, _, name = EXECUTOR.rpartition(".")
    delattr(sys.modules[package], name)
    # Its first use imports and compiles more.
    argparse.ArgumentParser().parse_known_args([])
    had = set(os.environ)
    for name in modules:
        importing(name, limit)
    gc.collect()
    gc.freeze()
    return {name: value for name, value in os.environ.items() if name not in had}


def importing(name, limit):
    """Imports one module, and looks whether it left anything behind that a copy would lack or show."""
    before, had, variables = outside(), unsafe(), dict(os.environ)
    with tempfile.TemporaryFile() as said:
        streams = [os.dup(1), os.dup(2)]
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
        try:
            importlib.import_module(name)
        except BaseException as error:
            raise Refused(name, f"it cannot be imported: {error!r}") from None
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, stream in enumerate(streams, 1):
                os.dup2(stream, number)
                os.close(stream)
        if said.seek(0, os.SEEK_END):
            raise Refused(name, "its import prints something")
    if any(os.environ.get(variable) != value for variable, value in variables.items()):
        raise Refused(name, "it changes variables")
    if unsafe() - had:
        raise Refused(name, f"it imports {', '.join(unsafe() - had)}")
    # A library that ends its threads before a fork and starts them after does so now.
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    if len(os.listdir("/proc/self/task")) > 1:
        raise Refused(name, "it starts threads")
    if outside() != before:
        raise Refused(name, "it opens files or connections, or handles signals")
    with open("/proc/self/statm") as file:
        if int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") > limit:
            raise Refused(name, "it takes too much memory")


def unsafe():
    return UNSAFE & sys.modules.keys()


def outside():
    """What of this process is not its memory."""
    files = {}
    for number in os.listdir("/proc/self/fd"):
        # The one that was just read with is gone.
        with contextlib.suppress(OSError):
            files[number] = os.readlink(f"/proc/self/fd/{number}")
    handled = [signal.getsignal(number) for number in signal.valid_signals()]
    return files, handled, os.getcwd()


def imports(source):
    """The modules that a component's source names and this process does not have."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError, RecursionError):
        return []
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    return sorted(name for name in names if name not in sys.modules and name.split(".")[0] not in UNSAFE)


# Between node, container and launcher


def tell(**what):
    # When the node is gone, tasks go on.
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(what).encode() + b"\n")


def send(connection, **what):
    connection.sendall(json.dumps(what).encode() + b"\n")


def receive(connection, descriptors):
    """A line of JSON, and the descriptors that came with its first byte."""
    text, came = b"", array.array("i")
    while not text.endswith(b"\n"):
        part, ancillary, _, _ = connection.recvmsg(LONGEST, socket.CMSG_SPACE(descriptors * came.itemsize))
        if not part:
            os._exit(0)
        for _, _, content in ancillary:
            came.frombytes(content)
        text += part
    return json.loads(text), list(came)


def serve(listener):
    """Waits for tasks; in the process of one, what it is."""
    # Nobody waits for copies that wait themselves.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    poll.register(1, 0)
    while True:
        if 1 in dict(poll.poll()):
            return None
        connection, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            null = os.open(os.devnull, os.O_RDONLY)
            os.dup2(null, listener.detach())
            os.close(null)
            return attend(connection)
        connection.close()


def attend(connection):
    """In a copy: waits for a further copy to be the task. In that one: enters the container, and gives what it is to be."""
    try:
        place, spaces = receive(connection, 5)
        # Until the task is where it belongs, nobody there may look into it.
        prctl(PR_SET_DUMPABLE, 0)
        spaces = dict(zip(place["descriptors"], spaces))
        for name in ("user", "pid"):
            if name in spaces:
                checked(libc.setns(spaces[name], 0))
        pid = os.fork()
        if pid:
            status = os.waitpid(pid, 0)[1]
            send(connection, ended=status, said=last_words(status))
            os._exit(0)
        enter(place, spaces)
        task, streams = receive(connection, 2)
        learned = imports(task["source"])
        if learned:
            tell(imports=learned)
        for number, stream in enumerate(streams, 1):
            os.dup2(stream, number)
        send(connection, pid=os.getpid())
        connection.close()
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        return task
    except BaseException as error:
        os.write(2, f"a task was not taken: {error!r}\n".encode())
        os._exit(1)


def last_words(status):
    """What a shell says of a command that a signal ended."""
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    if number in (None, signal.SIGINT, signal.SIGPIPE):
        return ""
    dumped = " (core dumped)" if os.WCOREDUMP(status) else ""
    return f"{signal.strsignal(number)}{dumped}\n"


# Entering a container

PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 4, 24, 38


def prctl(what, value):
    return libc.prctl(what, ctypes.c_ulong(value), 0, 0, 0)


def enter(place, spaces):
    """As `init::command` of the sandbox does it."""
    for group in place["cgroups"]:
        with open(os.path.join(group, "cgroup.procs"), "w") as file:
            file.write("0")
    for name in ("uts", "mnt"):
        if name in spaces:
            checked(libc.setns(spaces[name], 0))
    os.umask(0o022)
    os.setsid()
    if "mediation" in spaces:
        hand_over(place["filter"], spaces["mediation"])
    give_up(place["capabilities"] if os.getuid() == 0 else 0, place["capabilities"])
    prctl(PR_SET_DUMPABLE, 1)


def give_up(capabilities, bound):
    """What a program of this user would have after it was started within these bounds."""
    for number in range(64):
        if not bound >> number & 1:
            prctl(PR_CAPBSET_DROP, number)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    current = (ctypes.c_uint32 * 6)()
    checked(libc.capget(header, current))
    kept = [current[1] & capabilities & 0xFFFFFFFF, current[4] & capabilities >> 32]
    wanted = (ctypes.c_uint32 * 6)(kept[0], kept[0], 0, kept[1], kept[1], 0)
    checked(libc.capset(header, wanted))


def hand_over(filter, to):
    """Puts the filter of network calls over this process, and gives away what must answer them."""

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]

    program = bytes.fromhex(filter["program"])
    described = Program(len(program) // 8, program)

    def apply(flags):
        # The one that sets a filter is 1.
        return libc.syscall(filter["call"], ctypes.c_ulong(1), ctypes.c_ulong(flags), ctypes.byref(described))

    # Before the filter is there, which asks about a call that making it takes.
    with socket.socket(fileno=os.dup(to)) as mediation:
        for flags in filter["flags"]:
            listener = apply(flags)
            if listener < 0 and ctypes.get_errno() == errno.EACCES:
                prctl(PR_SET_NO_NEW_PRIVS, 1)
                listener = apply(flags)
            if listener >= 0 or ctypes.get_errno() != errno.EINVAL:
                break
        if listener < 0:
            mediation.send(ctypes.get_errno().to_bytes(4, sys.byteorder))
        else:
            rights = array.array("i", [listener])
            mediation.sendmsg([bytes(4)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


# Becoming a task


def become(task, imported):
    """What the component's shell script does, and then `python3 -m`."""
    os.environ.clear()
    os.environ.update(imported)
    os.environ.update(task["environment"])
    os.chdir(task["directory"])
    os.environ["PWD"] = os.getcwd()
    folder = tempfile.mkdtemp(prefix="tmp.", dir=os.environ.get("TMPDIR", "/tmp"))
    path = os.path.join(folder, "ephemeral_component.py")
    with open(path, "wb") as file:
        file.write(task["source"].encode())
    os.environ["_KFP_RUNTIME"] = "true"
    sys.argv[:] = [EXECUTOR, "--component_module_path", path, *task["args"]]
    sys.path[0] = os.getcwd()
    sys.dont_write_bytecode = False
    tempfile.tempdir = None
    if "numpy.random" in sys.modules:
        # Python's own generator sees to this by itself.
        sys.modules["numpy.random"].seed()
    sys.modules["__main__"] = types.ModuleType("__main__")
    had = set(sys.modules)
    code = run()
    finish(had)
    if code is None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code & 0xFF)


def run():
    """Runs the executor as `python3 -m` does, and gives its exit code; none if an interrupt ended it."""
    try:
        runpy._run_module_as_main(EXECUTOR)
        return 0
    except SystemExit as leaving:
        if leaving.code is None or isinstance(leaving.code, int):
            return leaving.code or 0
        print(leaving.code, file=sys.stderr)
        return 1
    except BaseException as error:
        # Without the line of this file, which no other Python would show.
        error.__traceback__ = error.__traceback__.tb_next
        sys.excepthook(type(error), error, error.__traceback__)
        return None if isinstance(error, KeyboardInterrupt) else 1


def finish(had):
    """Ends what is the task's own as Python does at its end: threads, exit functions, objects, buffers.

    What libraries hold is left as it is: to take it apart is to copy its memory first, which takes longer than a small
    task. So is everything if threads go on, which Python would stop first.
    """
    threading._shutdown()
    atexit._run_exitfuncs()
    own = [module for name, module in sys.modules.items() if name not in had and is_own(module)]
    if threading.active_count() == 1:
        for module in reversed(own):
            for name in [name for name in vars(module) if name != "__builtins__"]:
                vars(module)[name] = None
        gc.collect()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def is_own(module):
    """Whether a module is of neither Python nor its packages."""
    file = getattr(module, "__file__", None)
    return bool(file) and not file.startswith((sys.prefix, sys.base_prefix))


def main(limit, modules):
    sys.dont_write_bytecode = True
    # What `nohup` or a shell had the server ignore, the launcher does not, and so not what it starts.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        imported = prepare(modules, limit)
    except Refused as refused:
        name, why = refused.args
        tell(refused=name, why=why)
        return
    except ImportError as error:
        tell(refused=None, why=str(error))
        return
    tell(ready=os.getpid())
    task = serve(socket.socket(fileno=0))
    if task is not None:
        become(task, imported)


main(int(sys.argv[1]), sys.argv[2:])
