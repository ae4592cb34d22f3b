"""`kfp.local.SubprocessRunner` without an environment for each task.

Modes: `documented` sees to the packages of each task with pip; `tuned` asks pip for nothing.
"""

import clock
from kfp import local
from pipelines import pipelines

local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root="outputs")
MADE = pipelines(is_installing=clock.MODE == "documented")

if __name__ == "__main__":
    clock.main(**{name: lambda pipeline=pipeline: pipeline().output for name, pipeline in MADE.items()})
