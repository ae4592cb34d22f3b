"""Runs that are refused before anything starts."""

import copy
import uuid

import pytest
import runs
from documents import GOOD, probe
from kfp_server_api import ApiException


def expect_refused(server, parameters: dict, *words: str, document: dict = GOOD) -> None:
    before = server.get("/runs").get("total_size", 0)
    answer = runs.post_run(server, document, parameters)
    body = answer.json()
    assert (answer.status_code, body["code"]) == (400, 3), body
    for word in words:
        assert word in body["message"], body["message"]
    assert server.get("/runs").get("total_size", 0) == before, "a run was stored"


def test_a_run_with_all_it_needs_is_taken(server):
    assert runs.post_run(server, GOOD, {"rows": 3}).ok


def test_a_missing_parameter_is_refused(server):
    expect_refused(server, {}, "rows")


def test_an_unknown_parameter_is_refused(server):
    expect_refused(server, {"rows": 3, "colour": "red"}, "colour")


@pytest.mark.parametrize(
    ("declared", "values"),
    [
        ("NUMBER_INTEGER", ["three", 2.5, True, [1], {}]),
        ("NUMBER_DOUBLE", ["fast", True, [], {}]),
        ("STRING", [[], {}]),
        ("BOOLEAN", ["yes", [], {}]),
        ("LIST", ["x", 3, {}]),
        ("STRUCT", ["x", 3, []]),
    ],
)
def test_a_parameter_of_another_type_is_refused(server, declared, values):
    document = copy.deepcopy(GOOD)
    document["root"]["inputDefinitions"]["parameters"]["extra"] = {"parameterType": declared}
    for value in values:
        expect_refused(server, {"rows": 3, "extra": value}, "extra", document=document)


def test_a_value_outside_the_literals_is_refused(server):
    document = copy.deepcopy(GOOD)
    document["root"]["inputDefinitions"]["parameters"]["label"]["literals"] = ["none", "some"]
    assert runs.post_run(server, document, {"rows": 3, "label": "some"}).ok
    expect_refused(server, {"rows": 3, "label": "all"}, "label", "some", document=document)


def test_the_sdk_shows_why(server):
    with pytest.raises(ApiException) as refused:
        server.client.create_run_from_pipeline_func(probe, arguments={"rows": "many"})
    assert refused.value.status == 400
    assert "rows" in refused.value.body


def test_an_unknown_pipeline_version_is_refused(server):
    reference = {"pipeline_id": str(uuid.uuid4()), "pipeline_version_id": str(uuid.uuid4())}
    answer = server.http(
        "POST", "/apis/v2beta1/runs", json={"display_name": "x", "pipeline_version_reference": reference}
    )
    assert answer.status_code == 404, answer.text


def test_an_unknown_experiment_is_refused(server):
    answer = server.http(
        "POST",
        "/apis/v2beta1/runs",
        json={
            "display_name": "x",
            "experiment_id": str(uuid.uuid4()),
            "pipeline_spec": GOOD,
            "runtime_config": {"parameters": {"rows": 3}},
        },
    )
    assert answer.status_code == 404, answer.text


def test_a_run_of_nothing_is_refused(server):
    answer = server.http("POST", "/apis/v2beta1/runs", json={"display_name": "x"})
    assert answer.status_code == 400, answer.text


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b'{"display_nam": "typo"}'])
def test_a_body_that_is_not_a_run_is_refused(server, body):
    answer = server.http(
        "POST", "/apis/v2beta1/runs", data=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400, answer.text
    assert answer.json()["code"] == 3, answer.text


def test_a_run_that_does_not_exist_is_not_found(server):
    for method, path in (
        ("GET", ""), ("DELETE", ""), ("POST", ":terminate"), ("POST", ":archive"),
    ):  # fmt: skip
        answer = server.http(method, f"/apis/v2beta1/runs/{uuid.uuid4()}{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, 5), answer.text
