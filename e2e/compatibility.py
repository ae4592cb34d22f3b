"""The table of what runs: rows from the SDK's own lists and from what the tests say they cover.

A test names what it shows with `@pytest.mark.covers("Loops: nested")`. `make compatibility` runs every
test and writes `docs/kfp-compatibility.md`; `test_compatibility.py` compares the committed file with
the rows that there should be. Nothing here decides by itself that something works.
"""

import ast
import inspect
import json
import re
from collections import defaultdict
from pathlib import Path

import kfp
import kfp_server_api
import pytest
import urllib3
from kfp import dsl, kubernetes
from kfp.kubeflow_client import PipelinesClient
from server import ROOT

HERE = Path(__file__).resolve().parent
TABLE = ROOT / "docs" / "kfp-compatibility.md"
OPENAPI = ROOT / "docs" / "openapi" / "pipelines.json"
WORKS = "works"

ENGINE_ONLY = "refused: only the engine records what tasks are and do"
#: What nobody can cover, and why.
NOT_SUPPORTED = {
    "PipelineTask.set_debug_pause": "compiles to variables that Argo's executor reads; they are set and mean "
    "nothing here. `coracle debug RUN TASK` opens a failed task's environment instead",
    "PipelineTask.add_node_selector_constraint": "deprecated by the SDK, which turns it into "
    "`set_accelerator_type`",
    "PipelineTask.set_gpu_limit": "deprecated by the SDK, which turns it into `set_accelerator_limit`",
    "Executors: resolver and customJob": "Kubeflow rejects them too; the document is refused",
    "Placeholders: Google Cloud project, location and persistent resource": "they mean something on Vertex "
    "AI only",
    "Importers: oci:// images": "there is no image registry client; the importer fails with its reason",
    "Documents: Argo workflows (v1)": "refused at upload, with that reason",
    "GET /metrics": "the server keeps no counters yet",
    "POST /apis/v2beta1/workflows": "refused: reports are for Argo workflows, and there are none",
    "POST /apis/v2beta1/scheduledworkflows": "refused: reports are for Argo workflows, and there are none",
    "POST /apis/v2beta1/visualizations/{namespace}": "refused, as by Kubeflow without its service for it",
    "POST /apis/v2beta1/artifact_tasks": ENGINE_ONLY,
    "POST /apis/v2beta1/artifact_tasks:batchCreate": ENGINE_ONLY,
    "POST /apis/v2beta1/runs/{run_id}/tasks": ENGINE_ONLY,
    "PATCH /apis/v2beta1/runs/{run_id}/tasks/{task_id}": ENGINE_ONLY,
    "POST /apis/v2beta1/runs/{run_id}/tasks:batchUpdate": ENGINE_ONLY,
    "REST: the rest of the v1beta1 API": "the SDK does not call it since 2.0",
}

#: Operations that KFP serves and its swagger does not list.
UNLISTED = [
    "GET /apis/v1alpha1/runs/{run_id}/nodes/{node_id}/log",
    "GET /apis/v2beta1/runs/{run_id}/nodes/{node_id}/artifacts/{artifact_name}:read",
    "GET /metrics",
]

SECTIONS = [
    ("Names of `kfp.dsl`", r"dsl\."),
    ("Settings of a task", r"PipelineTask\."),
    ("`kfp.kubernetes`", r"kubernetes\."),
    ("Fields of `KubernetesExecutorConfig`", r"KubernetesExecutorConfig\."),
    ("Methods of `kfp.Client`", r"kfp\.Client\."),
    ("Methods of `PipelinesClient`", r"PipelinesClient\."),
    ("REST", r"(GET|POST|PUT|PATCH|DELETE) /|REST:"),
]
HEAD = f"""# Compatibility with Kubeflow Pipelines

Written by `make compatibility` from the end-to-end tests, which compile with kfp {kfp.__version__}: do not
edit it by hand. A row *works* when every test that covers it passed. The lists of names, methods and
operations are the SDK's own, so that a row cannot be forgotten. How Coracle differs from Kubeflow is in
[pipelines.md](pipelines.md).
"""


def listed() -> list[str]:
    """Every row that the SDK, its client and the API's description ask for."""
    task = dsl.PipelineTask
    settings = [
        name
        for name, member in inspect.getmembers(task, inspect.isfunction)
        if name.startswith(("set_", "add_")) or name in ("after", "ignore_upstream_failure")
    ]
    fields = kubernetes.common.pb.KubernetesExecutorConfig.DESCRIPTOR.fields
    return [
        *(f"dsl.{name}" for name in sorted(dsl.__all__)),
        *(f"PipelineTask.{name}" for name in sorted(settings)),
        *(f"kubernetes.{name}" for name in sorted(kubernetes.__all__)),
        *(f"KubernetesExecutorConfig.{field.name}" for field in fields),
        *(f"kfp.Client.{name}" for name in methods(kfp.Client)),
        *(f"PipelinesClient.{name}" for name in methods(PipelinesClient)),
        *operations(),
    ]


def methods(client: type) -> list[str]:
    """The public methods and properties that a class itself has."""
    return sorted(name for name, member in vars(client).items() if is_public(name, member))


def is_public(name: str, member) -> bool:
    return not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property))


def operations() -> list[str]:
    """Each REST operation as `GET /path`: ours, and those of KFP's own generated client."""
    found = {}
    described = json.loads(OPENAPI.read_text())["paths"]
    ours = [f"{method.upper()} {path}" for path, item in described.items() for method in item]
    for operation in [*ours, *swagger(), *UNLISTED]:
        found.setdefault(re.sub(r"\{[^}]*\}", "{}", operation), operation)
    return sorted(found.values(), key=lambda operation: operation.split()[::-1])


def swagger() -> list[str]:
    """What the generated client can call, read from its source."""
    folder = Path(kfp_server_api.__file__).parent / "api"
    calls = re.compile(r"call_api\(\s*'([^']+)',\s*'([A-Z]+)'")
    return [
        f"{method} {re.sub(r'{[a-z_]*[.]', '{', path)}"
        for file in sorted(folder.glob("*_api.py"))
        for path, method in calls.findall(file.read_text())
    ]


def covered() -> dict[str, set[str]]:
    """Each row that a test names, with the files of those tests; read without running them."""
    rows: dict[str, set[str]] = defaultdict(set)
    for file in sorted(HERE.rglob("test_*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", None) == "covers":
                for argument in node.args:
                    rows[ast.literal_eval(argument)].add(str(file.relative_to(HERE)))
    return rows


def rows() -> list[str]:
    return list(dict.fromkeys([*listed(), *sorted({*covered(), *NOT_SUPPORTED})]))


def section(row: str) -> str:
    for title, pattern in SECTIONS:
        if re.match(pattern, row):
            return title
    return row.split(":")[0]


def table(states: dict[str, str]) -> str:
    """The whole document. `states` has what became of each row."""
    files = covered()
    sections: dict[str, list[str]] = defaultdict(list)
    for row in rows():
        sections[section(row)].append(row)
    named = [title for title, _ in SECTIONS]
    parts = [HEAD]
    for title in [*sorted(set(sections) - set(named)), *(title for title in named if title in sections)]:
        parts.append(f"\n## {title}\n\n| what | state | shown by |\n| --- | --- | --- |\n")
        for row in sections[title]:
            where = ", ".join(f"`{file}`" for file in sorted(files.get(row, ())))
            parts.append(f"| {shown(row)} | {states.get(row, 'not run')} | {where} |\n")
    return "".join(parts)


def shown(row: str) -> str:
    """A row's name as its cell has it: code for names, prose without its section's title for the rest."""
    if section(row) in dict(SECTIONS) and not row.startswith("REST:"):
        return f"`{row}`"
    return row.split(": ", 1)[1]


def read_table() -> dict[tuple[str, str], tuple[str, str]]:
    """The committed rows: (section, cell) to (state, files)."""
    found, title = {}, ""
    for line in TABLE.read_text().splitlines():
        if line.startswith("## "):
            title = line.removeprefix("## ")
        elif line.startswith("| ") and not line.startswith(("| what |", "| ---")):
            what, state, where = (cell.strip() for cell in line.strip("|").split(" | "))
            found[title, what] = (state, where)
    return found


class Recorder:
    """Notes what each test covers, what became of it, and which operations it called."""

    def __init__(self):
        self.results: dict[str, list[str]] = defaultdict(list)
        self.called: dict[str, set[str]] = defaultdict(set)
        self.passed: set[str] = set()
        self.current = ""
        self.patterns = [
            (re.compile(re.sub(r"\\\{.*?\\\}", "[^/:]+", re.escape(operation.split()[1])) + "$"), operation)
            for operation in operations()
        ]

    def watch_requests(self) -> None:
        plain = urllib3.connectionpool.HTTPConnectionPool.urlopen
        recorder = self

        def urlopen(pool, method, url, *arguments, **options):
            answer = plain(pool, method, url, *arguments, **options)
            if answer.status < 300:
                recorder.note(method, url)
            return answer

        urllib3.connectionpool.HTTPConnectionPool.urlopen = urlopen

    def note(self, method: str, url: str) -> None:
        path = url.split("?")[0].removeprefix("/pipeline")
        fitting = [
            operation
            for pattern, operation in self.patterns
            if operation.startswith(f"{method} ") and pattern.match(path)
        ]
        # `/pipelines/create` is more exact than `/pipelines/{pipeline_id}`.
        for operation in sorted(fitting, key=lambda operation: operation.count("{"))[:1]:
            self.called[self.current].add(operation)

    def states(self) -> dict[str, str]:
        states = {row: f"not supported: {why}" for row, why in NOT_SUPPORTED.items()}
        for test in self.passed:
            for operation in self.called[test]:
                states[operation] = WORKS
        for row, results in self.results.items():
            if "failed" in results:
                states[row] = "fails"
            elif "passed" in results:
                states[row] = WORKS
        return states

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item):
        self.current = item.nodeid

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = (yield).get_result()
        if report.when == "call" or report.outcome != "passed":
            for mark in item.iter_markers("covers"):
                for row in mark.args:
                    self.results[row].append(report.outcome)
            if report.outcome == "passed":
                self.passed.add(item.nodeid)

    def pytest_sessionfinish(self):
        TABLE.write_text(table(self.states()))


def pytest_addoption(parser):
    parser.addoption(
        "--write-compatibility", action="store_true", help=f"write docs/{TABLE.name} from what the tests did"
    )


def pytest_configure(config):
    config.addinivalue_line("markers", "covers(*rows): rows of docs/kfp-compatibility.md that a test shows")
    if config.getoption("--write-compatibility"):
        recorder = Recorder()
        recorder.watch_requests()
        config.pluginmanager.register(recorder)
