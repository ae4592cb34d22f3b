"""Dagster jobs. Modes: `in-process`, and `multiprocess`, the executor that jobs have by default."""

import os

import clock
import workloads
from dagster import DagsterInstance, DynamicOut, DynamicOutput, execute_job, job, op, reconstructable

step, join, loaded, parted, trained, scored = (
    op(function)
    for function in (
        workloads.step,
        workloads.join,
        workloads.loaded,
        workloads.parted,
        workloads.trained,
        workloads.scored,
    )
)


@op
def first() -> int:
    return workloads.step(0)


@op(out=DynamicOut(int))
def numbers():
    for number in range(workloads.WIDTH):
        yield DynamicOutput(number, mapping_key=str(number))


@job
def chain():
    number = first()
    for _ in range(workloads.LENGTH - 1):
        number = step(number)


@job
def fan():
    join(numbers().map(step).collect())


@job
def digits():
    parts = parted(loaded())
    scored(trained(parts), parts)


def run(made, last: str):
    if clock.MODE == "in-process":
        return made.execute_in_process().output_for_node(last)
    with (
        DagsterInstance.get() as instance,
        execute_job(reconstructable(made), instance=instance, raise_on_error=True) as ended,
    ):
        return ended.output_for_node(last)


if __name__ == "__main__":
    if clock.MODE == "multiprocess":
        os.environ["DAGSTER_HOME"] = os.getcwd()
    clock.main(
        chain=lambda: run(chain, f"step_{workloads.LENGTH - 1}"),
        fan=lambda: run(fan, "join"),
        digits=lambda: run(digits, "scored"),
    )
