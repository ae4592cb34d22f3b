"""A chain of no-op Python components on `kfp.local`, in the process that this file is.

    python peer.py documented|bare LENGTH FOLDER      # prints the seconds

`documented`: components as the SDK's documentation writes them, whose packages pip checks for each
task. `bare`: `install_kfp_package=False`, so that pip is not asked. Neither makes a virtual
environment for each task, which is the SDK's default and takes about ten seconds a task.
"""

import sys
import time

from kfp import dsl, local


def chain(length: int, is_installing: bool):
    @dsl.component(base_image="python:3.11", install_kfp_package=is_installing)
    def step(number: int) -> int:
        return number + 1

    @dsl.pipeline(name="bench-python-chain")
    def pipeline() -> int:
        last = step(number=0)
        for _ in range(length - 1):
            last = step(number=last.output)
        return last.output

    return pipeline


if __name__ == "__main__":
    form, length, folder = sys.argv[1:]
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=folder)
    pipeline = chain(int(length), is_installing=form == "documented")
    started = time.perf_counter()
    result = pipeline()
    seconds = time.perf_counter() - started
    assert result.output == int(length), result.output
    print(seconds)
