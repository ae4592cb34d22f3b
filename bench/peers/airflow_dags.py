"""The workloads as Airflow DAGs. Airflow itself reads this file."""

import workloads
from airflow.sdk import dag, task

step, join = task(workloads.step), task(workloads.join)


@dag
def chain():
    number = 0
    for _ in range(workloads.LENGTH):
        number = step(number)


@dag
def fan():
    join(step.expand(number=list(range(workloads.WIDTH))))


@dag
def digits():
    parts = task(workloads.parted)(task(workloads.loaded)())
    task(workloads.scored)(task(workloads.trained)(parts), parts)


chain()
fan()
digits()
