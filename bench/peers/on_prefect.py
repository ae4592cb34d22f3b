"""Prefect: flows in a process of their own, as `python flow.py`, beside a server that is up."""

import os
import sys
from pathlib import Path

import clock

SETTINGS = {
    "PREFECT_HOME": os.getcwd(),
    "PREFECT_API_URL": f"http://127.0.0.1:{clock.PORT}/api",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "DO_NOT_TRACK": "1",
}


def server():
    prefect = str(Path(sys.executable).with_name("prefect"))
    return [prefect, "server", "start", "--port", clock.PORT], SETTINGS, "/api/health"


def flows() -> dict:
    os.environ.update(SETTINGS)
    import workloads
    from prefect import flow, task

    step, join = task(workloads.step), task(workloads.join)

    @flow
    def chain():
        number = 0
        for _ in range(workloads.LENGTH):
            number = step(number)
        return number

    @flow
    def fan():
        return join(step.map(range(workloads.WIDTH)))

    @flow
    def digits():
        parts = task(workloads.parted)(task(workloads.loaded)())
        return task(workloads.scored)(task(workloads.trained)(parts), parts)

    return {"chain": chain, "fan": fan, "digits": digits}


if __name__ == "__main__":
    clock.main(server, **({} if sys.argv[1] == "server" else flows()))
