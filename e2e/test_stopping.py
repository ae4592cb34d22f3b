"""What clients see of a server that is told to stop while it is at work for them."""

import base64
import json
import signal
import socket

import pytest
import requests
import runs
import yaml
from components import one_bash


@pytest.fixture
def secure(tmp_path):
    """Gives the address of a server's Kubernetes API over TLS, and what `requests` needs to be let in."""

    def of(server) -> tuple[str, dict]:
        config = yaml.safe_load(server.cli("kubeconfig", "-").stdout)
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        authority = tmp_path / "authority.pem"
        authority.write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
        headers = {"Authorization": f"Bearer {user['token']}"}
        return cluster["server"], {"headers": headers, "verify": str(authority)}

    return of


def begun(url: str, **options):
    """An answer that would never end, after its first bytes have come."""
    answer = requests.get(url, stream=True, timeout=60, **options)
    assert answer.ok, answer.text
    parts = answer.iter_content(None)
    assert next(parts)
    return parts


def test_what_was_asked_for_is_answered_and_what_is_followed_comes_to_its_end(new_server, gate, secure):
    server = new_server().start()
    run_id = runs.submit(server, one_bash, command=f"echo at work; {gate.shell}")
    gate.wait_reached()
    pod = runs.read(server, run_id).task("bash")["pod_name"]
    pods = "/api/v1/namespaces/default/pods"
    over_tls, trust = secure(server)
    follow, watch = {"follow": "true"}, {"watch": "true"}
    endless = [
        begun(f"{server.url}{pods}", params=watch),
        begun(f"{over_tls}{pods}", params=watch, **trust),
        begun(f"{server.url}{pods}/{pod}/log", params=follow),
        begun(f"{over_tls}{pods}/{pod}/log", params=follow, **trust),
        begun(f"{server.url}/apis/v1alpha1/runs/{run_id}/nodes/{pod}/log", params=follow),
        begun(f"{server.url}/apis/v2beta1/runs/{run_id}/:watch"),
    ]
    body = json.dumps({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "late"}}).encode()
    path = "/api/v1/namespaces/default/configmaps"
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as asking:
        asking.sendall(head.encode())
        # From then on the server waits for the body.
        assert asking.recv(1000).startswith(b"HTTP/1.1 100 ")
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(requests.ConnectionError):
            while True:
                server.http("GET", "/healthz")
        asking.sendall(body)
        assert asking.recv(100_000).startswith(b"HTTP/1.1 201 ")
    # One that was cut would be an error to read.
    for parts in endless:
        assert b"ERROR" not in b"".join(parts)
    assert server.process.wait(timeout=20) == 0

    server.start()
    assert server.http("GET", f"{path}/late").ok
    gate.open()
    run = runs.finish(server, run_id)
    assert run.state == "SUCCEEDED", run.describe()


def test_a_request_that_never_becomes_whole_does_not_keep_the_server_from_stopping(new_server):
    server = new_server().start()
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as half:
        half.sendall(b"POST /apis/v2beta1/runs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n{")
        assert server.stop() == 0
