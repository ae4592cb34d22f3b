"""Everything that may stand in a command or an argument for something known only later."""

import json
import re
from pathlib import Path

import pytest
import runs
from components import make_file, shell
from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Model, Output


@dsl.container_component
def tell(
    name: str, resource: str, run: str, task: str, task_id: str, root: str, created: str, scheduled: str
):
    return shell(
        'for part in "$@"; do printf "%s\\n" "$part"; done',
        name, resource, run, task, task_id, root, created, scheduled,
    )  # fmt: skip


@pytest.mark.covers(
    "Placeholders: of the run and the task, as inputs",
    "dsl.PIPELINE_JOB_NAME_PLACEHOLDER",
    "dsl.PIPELINE_JOB_RESOURCE_NAME_PLACEHOLDER",
    "dsl.PIPELINE_JOB_ID_PLACEHOLDER",
    "dsl.PIPELINE_TASK_NAME_PLACEHOLDER",
    "dsl.PIPELINE_TASK_ID_PLACEHOLDER",
    "dsl.PIPELINE_ROOT_PLACEHOLDER",
    "dsl.PIPELINE_JOB_CREATE_TIME_UTC_PLACEHOLDER",
    "dsl.PIPELINE_JOB_SCHEDULE_TIME_UTC_PLACEHOLDER",
)
def test_names_ids_and_times_are_inputs(server):
    @dsl.pipeline(name="who-am-i")
    def pipeline():
        tell(
            name=dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
            resource=dsl.PIPELINE_JOB_RESOURCE_NAME_PLACEHOLDER,
            run=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            task=dsl.PIPELINE_TASK_NAME_PLACEHOLDER,
            task_id=dsl.PIPELINE_TASK_ID_PLACEHOLDER,
            root=dsl.PIPELINE_ROOT_PLACEHOLDER,
            created=dsl.PIPELINE_JOB_CREATE_TIME_UTC_PLACEHOLDER,
            scheduled=dsl.PIPELINE_JOB_SCHEDULE_TIME_UTC_PLACEHOLDER,
        )

    run = runs.succeed(server, pipeline)
    name, resource, run_id, task, task_id, root, created, scheduled = runs.log(
        server, run, "tell"
    ).splitlines()
    assert name == run.body["display_name"]
    assert "who-am-i" in resource
    assert run_id == run.id
    assert task == "tell"
    assert task_id == run.task("tell")["task_id"]
    assert root and "{{" not in root
    for moment in (created, scheduled):
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", moment), moment


@pytest.mark.covers("Placeholders: of the run and the task, inside text and commands")
def test_placeholders_may_be_part_of_a_text(server):
    @dsl.container_component
    def direct():
        return shell(
            'printf "%s\\n" "$@"',
            f"<{dsl.PIPELINE_JOB_ID_PLACEHOLDER}>",
            f"<{dsl.PIPELINE_TASK_NAME_PLACEHOLDER}>",
            f"<{dsl.PIPELINE_JOB_NAME_PLACEHOLDER}>",
        )

    @dsl.container_component
    def given(text: str):
        return shell('printf "%s" "$1"', text)

    @dsl.pipeline(name="inside-text")
    def pipeline(name: str = "Ada"):
        direct()
        given(text=f"{name} in {dsl.PIPELINE_JOB_ID_PLACEHOLDER}")

    run = runs.succeed(server, pipeline)
    assert runs.log(server, run, "direct").splitlines() == [
        f"<{run.id}>", "<direct>", f"<{run.body['display_name']}>",
    ]  # fmt: skip
    assert runs.log(server, run, "given") == f"Ada in {run.id}"


@pytest.mark.covers(
    "Placeholders: the executor's input and output",
    "dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER",
    "dsl.PIPELINE_TASK_EXECUTOR_OUTPUT_PATH_PLACEHOLDER",
)
def test_a_container_may_read_its_input_and_write_its_own_output(server):
    @dsl.container_component
    def metadata(text: str, data: Output[Dataset], size: dsl.OutputPath(int)):
        return dsl.ContainerSpec(
            image=runs.SHELL_IMAGE,
            command=["python3", "-c"],
            args=[
                "import json, os, sys\n"
                "given = json.loads(sys.argv[1])\n"
                "assert given['inputs']['parameterValues']['text'] == 'hello', given\n"
                "made = given['outputs']['artifacts']['data']['artifacts'][0]\n"
                "assert given['outputs']['outputFile'] == sys.argv[2], given\n"
                "open(made['uri'], 'w').write('body')\n"
                "made['metadata'] = {'rows': 7, 'note': 'by hand'}\n"
                "output = {'parameterValues': {'size': 4}, 'artifacts': {'data': {'artifacts': [made]}}}\n"
                "os.makedirs(os.path.dirname(sys.argv[2]), exist_ok=True)\n"
                "json.dump(output, open(sys.argv[2], 'w'))\n",
                dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
                dsl.PIPELINE_TASK_EXECUTOR_OUTPUT_PATH_PLACEHOLDER,
            ],
        )

    @dsl.pipeline(name="executor-files")
    def pipeline():
        metadata(text="hello")

    run = runs.succeed(server, pipeline)
    assert runs.value(server, run.id, "metadata", "size") == 4
    assert runs.artifacts(server, run.id)["data"]["metadata"] == {"rows": 7, "note": "by hand"}


@pytest.mark.covers("Placeholders: IfPresent", "dsl.IfPresentPlaceholder")
def test_what_depends_on_an_optional_input_comes_and_goes(server):
    @dsl.container_component
    def greet(name: str = None, data: Input[Dataset] = None):
        return dsl.ContainerSpec(
            image=runs.SHELL_IMAGE,
            command=["sh", "-c", 'printf "%s|" "$@"', "sh"],
            args=[
                "start",
                dsl.IfPresentPlaceholder(input_name="name", then=["--name", name], else_=["--nobody"]),
                dsl.IfPresentPlaceholder(input_name="data", then=["--data", data.path]),
                "end",
            ],
        )

    @dsl.pipeline(name="if-present")
    def pipeline(given: str = None):
        greet(name="Ada", data=make_file(text="x").outputs["data"]).set_display_name("both")
        greet().set_display_name("neither")
        greet(name=given).set_display_name("passed on")

    run = runs.succeed(server, pipeline)
    assert re.fullmatch(r"start\|--name\|Ada\|--data\|/[^|]*/data\|end\|", runs.log(server, run, "both"))
    assert runs.log(server, run, "neither") == "start|--nobody|end|"
    assert runs.log(server, run, "passed on") == "start|--nobody|end|"


@pytest.mark.covers("Placeholders: Concat, and IfPresent inside it", "dsl.ConcatPlaceholder")
def test_parts_are_joined_to_one_argument(server):
    @dsl.container_component
    def join(first: str, data: Input[Dataset], last: str = None):
        return dsl.ContainerSpec(
            image=runs.SHELL_IMAGE,
            command=["sh", "-c", 'printf "%s|" "$@"', "sh"],
            args=[
                dsl.ConcatPlaceholder(
                    [
                        "--",
                        first,
                        "=",
                        data.uri,
                        dsl.IfPresentPlaceholder(
                            input_name="last", then=dsl.ConcatPlaceholder([":", last]), else_=":none"
                        ),
                    ]
                )
            ],
        )

    @dsl.pipeline(name="concat")
    def pipeline():
        made = make_file(text="x")
        join(first="a", data=made.outputs["data"], last="z").set_display_name("with")
        join(first="a", data=made.outputs["data"]).set_display_name("without")

    run = runs.succeed(server, pipeline)
    uri = runs.artifacts(server, run.id)["data"]["uri"]
    assert runs.log(server, run, "with") == f"--a={uri}:z|"
    assert runs.log(server, run, "without") == f"--a={uri}:none|"


@pytest.mark.covers(
    "Placeholders: an artifact's uri, path and metadata", "dsl.Model", "dsl.Artifact", "dsl.Output"
)
def test_an_artifacts_uri_path_and_metadata_are_arguments(server):
    @dsl.component(base_image="python:3.11")
    def train(model: Output[Model]):
        with open(model.path, "w") as file:
            file.write("weights")
        model.metadata["layers"] = 3
        model.metadata["names"] = ["a", "b"]

    @dsl.container_component
    def look(model: Input[Model], copy: Output[Artifact]):
        return shell(
            'printf "%s\\n" "$@"; cp "$2" "$6"',
            model.uri, model.path, model.metadata["layers"], model.metadata, copy.uri, copy.path,
        )  # fmt: skip

    @dsl.pipeline(name="artifact-placeholders")
    def pipeline():
        look(model=train().outputs["model"])

    run = runs.succeed(server, pipeline)
    uri, path, layers, metadata, copy_uri, copy_path = runs.log(server, run, "look").splitlines()
    made = runs.artifacts(server, run.id)
    assert uri == made["model"]["uri"]
    assert Path(path).read_text() == "weights"
    assert layers == "3"
    assert json.loads(metadata) == {"layers": 3, "names": ["a", "b"]}
    assert copy_uri == made["copy"]["uri"]
    assert Path(made["copy"]["uri"]).read_text() == "weights"
    assert copy_path.endswith("/copy")


@pytest.mark.covers("Placeholders: a whole artifact or a list of them as JSON")
def test_a_list_of_artifacts_is_json(server):
    @dsl.container_component
    def look(data: Input[list[Dataset]]):
        return shell('printf "%s" "$1"', data)

    @dsl.pipeline(name="artifact-json")
    def pipeline():
        with dsl.ParallelFor(["a", "b"]) as text:
            made = make_file(text=text)
        look(data=dsl.Collected(made.outputs["data"]))

    run = runs.succeed(server, pipeline)
    listed = json.loads(runs.log(server, run, "look"))
    listed = listed["artifacts"] if isinstance(listed, dict) else listed
    assert [Path(artifact["uri"]).read_text() for artifact in listed] == ["a", "b"]


@pytest.mark.covers(
    "Placeholders: in the first word of a command and in variables", "PipelineTask.set_env_variable"
)
def test_the_program_itself_and_variables_may_be_placeholders(server):
    @dsl.container_component
    def start(program: str, text: str):
        return dsl.ContainerSpec(
            image=runs.SHELL_IMAGE, command=[program], args=["-c", 'echo "$GREETING $0"', text]
        )

    @dsl.pipeline(name="first-word")
    def pipeline(program: str = "sh"):
        start(program=program, text="you").set_env_variable("GREETING", "hello")

    run = runs.succeed(server, pipeline)
    assert runs.log(server, run, "start") == "hello you\n"


@pytest.mark.covers("Placeholders: null is dropped from a command")
def test_an_argument_without_a_value_is_dropped(server):
    @dsl.container_component
    def show(first: str, middle: str = None, last: str = "z"):
        return shell('printf "%s|" "$@"', first, middle, last)

    @dsl.pipeline(name="dropped")
    def pipeline():
        show(first="a")

    run = runs.succeed(server, pipeline)
    assert runs.log(server, run, "show") == "a|z|"


@pytest.mark.covers("Placeholders: text that looks like one")
def test_a_value_is_not_taken_for_a_placeholder(server):
    @dsl.container_component
    def show(text: str):
        return shell('printf "%s" "$1"', text)

    @dsl.pipeline(name="not-a-placeholder")
    def pipeline(text: str):
        show(text=text)

    text = "{{$.inputs.parameters['text']}} {{$.pipeline_job_uuid}} {{ jinja }}"
    run = runs.succeed(server, pipeline, text=text)
    assert runs.log(server, run, "show") == text
