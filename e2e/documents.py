"""A good pipeline document and ways to break it, for the tests of what is refused.

The document is what the SDK compiles, so that each broken one differs from it in one place.
"""

import copy

import runs
from kfp import dsl


@dsl.container_component
def prepare(rows: int, out: dsl.OutputPath(str)):
    return dsl.ContainerSpec(
        image=runs.SHELL_IMAGE, command=["sh", "-c", 'echo "$0" > "$1"'], args=[rows, out]
    )


@dsl.container_component
def train(data: str, rate: float):
    return dsl.ContainerSpec(image=runs.SHELL_IMAGE, command=["echo"], args=[data, rate])


@dsl.pipeline(name="probe")
def probe(rows: int, rate: float = 0.5, label: str = "none"):
    train(data=prepare(rows=rows).outputs["out"], rate=rate)


GOOD = runs.compiled(probe)


def tasks(document: dict) -> dict:
    return document["root"]["dag"]["tasks"]


def broken(change) -> dict:
    """A copy of the good document after `change` was made to it."""
    document = copy.deepcopy(GOOD)
    change(document)
    return document


def with_cycle(document: dict) -> None:
    tasks(document)["prepare"]["dependentTasks"] = ["train"]


def with_task_depending_on_itself(document: dict) -> None:
    tasks(document)["train"]["dependentTasks"] = ["train"]


def with_unknown_dependency(document: dict) -> None:
    tasks(document)["train"]["dependentTasks"] = ["clean"]


def with_unknown_executor(document: dict) -> None:
    document["components"]["comp-train"]["executorLabel"] = "exec-elsewhere"


def with_executor_of_no_kind(document: dict) -> None:
    document["deploymentSpec"]["executors"]["exec-train"] = {"teleport": {}}


def with_missing_component(document: dict) -> None:
    del document["components"]["comp-train"]


def with_component_of_no_kind(document: dict) -> None:
    del document["components"]["comp-train"]["executorLabel"]


def with_unknown_producer(document: dict) -> None:
    tasks(document)["train"]["inputs"]["parameters"]["data"]["taskOutputParameter"]["producerTask"] = "clean"


def with_unknown_output(document: dict) -> None:
    tasks(document)["train"]["inputs"]["parameters"]["data"]["taskOutputParameter"]["outputParameterKey"] = (
        "no"
    )


def with_unknown_pipeline_input(document: dict) -> None:
    tasks(document)["train"]["inputs"]["parameters"]["rate"] = {"componentInputParameter": "speed"}


def with_missing_task_input(document: dict) -> None:
    del tasks(document)["train"]["inputs"]["parameters"]["data"]


def with_constant_of_wrong_type(document: dict) -> None:
    tasks(document)["train"]["inputs"]["parameters"]["rate"] = {"runtimeValue": {"constant": "fast"}}


def with_input_of_wrong_type(document: dict) -> None:
    tasks(document)["train"]["inputs"]["parameters"]["rate"] = {"componentInputParameter": "label"}


def with_unknown_parameter_type(document: dict) -> None:
    document["components"]["comp-train"]["inputDefinitions"]["parameters"]["rate"]["parameterType"] = "NUMBER"


def with_default_of_wrong_type(document: dict) -> None:
    document["root"]["inputDefinitions"]["parameters"]["rate"]["defaultValue"] = "fast"


def with_list_for_tasks(document: dict) -> None:
    document["root"]["dag"]["tasks"] = []


def without_root(document: dict) -> None:
    del document["root"]


def with_later_schema(document: dict) -> None:
    document["schemaVersion"] = "3.0.0"


#: What is broken, and the place that the refusal must name.
BROKEN = [
    (with_cycle, "root.dag.tasks"),
    (with_task_depending_on_itself, "root.dag.tasks.train"),
    (with_unknown_dependency, "root.dag.tasks.train.dependentTasks"),
    (with_unknown_executor, "components.comp-train.executorLabel"),
    (with_executor_of_no_kind, "deploymentSpec.executors.exec-train"),
    (with_missing_component, "root.dag.tasks.train.componentRef"),
    (with_component_of_no_kind, "components.comp-train"),
    (with_unknown_producer, "root.dag.tasks.train.inputs.parameters.data"),
    (with_unknown_output, "root.dag.tasks.train.inputs.parameters.data"),
    (with_unknown_pipeline_input, "root.dag.tasks.train.inputs.parameters.rate"),
    (with_missing_task_input, "root.dag.tasks.train.inputs"),
    (with_constant_of_wrong_type, "root.dag.tasks.train.inputs.parameters.rate"),
    (with_input_of_wrong_type, "root.dag.tasks.train.inputs.parameters.rate"),
    (with_unknown_parameter_type, "components.comp-train.inputDefinitions.parameters.rate"),
    (with_default_of_wrong_type, "root.inputDefinitions.parameters.rate"),
    (with_list_for_tasks, "root.dag.tasks"),
    (without_root, "root"),
    (with_later_schema, "schemaVersion"),
]
