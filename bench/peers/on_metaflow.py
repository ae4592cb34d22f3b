"""Metaflow: `python flow.py run`, with as many workers as there are processors.

A flow is a class with a method for each step, which Metaflow reads from a file: it is written here.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import clock
import workloads

HEAD = """
import json
import workloads
from metaflow import FlowSpec, step

class Bench(FlowSpec):
"""
END = """
    @step
    def end(self):
        with open(workloads.file("result.json"), "w") as file:
            json.dump({result}, file)

Bench()
"""
ONE = """
    @step
    def {name}(self):
        {body}
        self.next(self.{next})
"""


def chain() -> str:
    names = ["start", *(f"step_{number}" for number in range(2, workloads.LENGTH)), "end"]
    steps = ["self.number = workloads.step(0)"] + ["self.number = workloads.step(self.number)"] * (
        workloads.LENGTH - 2
    )
    return "".join(
        ONE.format(name=name, body=body, next=after)
        for name, body, after in zip(names, steps, names[1:], strict=False)
    ) + END.format(result="workloads.step(self.number)")


FAN = """
    @step
    def start(self):
        self.numbers = list(range(workloads.WIDTH))
        self.next(self.one, foreach="numbers")

    @step
    def one(self):
        self.number = workloads.step(self.input)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.number = workloads.join([one.number for one in inputs])
        self.next(self.end)
"""
DIGITS = "".join(
    ONE.format(name=name, body=body, next=after)
    for name, body, after in (
        ("start", "self.digits = workloads.loaded()", "split"),
        ("split", "self.parts = workloads.parted(self.digits)", "train"),
        ("train", "self.model = workloads.trained(self.parts)", "end"),
    )
)


def run(steps: str):
    Path("flow.py").write_text(HEAD + steps)
    ended = subprocess.run(
        [sys.executable, "flow.py", "--quiet", "run", "--max-workers", str(os.cpu_count())],
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parent),
            "USERNAME": "bench",
            "METAFLOW_HOME": os.getcwd(),
            "METAFLOW_DATASTORE_SYSROOT_LOCAL": os.getcwd(),
        },
    )
    if ended.returncode != 0:
        sys.exit(ended.returncode)
    return json.loads(Path("result.json").read_text())


if __name__ == "__main__":
    clock.main(
        chain=lambda: run(chain()),
        fan=lambda: run(FAN + END.format(result="self.number")),
        digits=lambda: run(DIGITS + END.format(result="workloads.scored(self.model, self.parts)")),
    )
