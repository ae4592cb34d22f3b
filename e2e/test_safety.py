"""What a page in the user's browser, or another machine, must not be able to do."""

import http.client
from pathlib import Path

import pytest


def ask(server, method: str, path: str, headers: dict, body: bytes = b"") -> int:
    """One request whose headers are exactly these. Returns the status."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    status = connection.getresponse().status
    connection.close()
    return status


READS = ["/apis/v2beta1/runs", "/api/v1/pods", "/apis/v2beta1/healthz", "/"]


@pytest.mark.parametrize("path", READS)
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:4242", "127.0.0.1.evil.example", "localhost.evil"]
)
def test_a_name_that_was_rebound_to_this_machine_is_refused(server, path, host):
    assert ask(server, "GET", path, {"Host": host}) in (403, 421)


@pytest.mark.parametrize("path", READS)
def test_the_names_of_this_machine_are_taken(server, path):
    for host in (f"127.0.0.1:{server.port}", f"localhost:{server.port}"):
        assert ask(server, "GET", path, {"Host": host}) == 200, host


WRITES = [
    ("POST", "/apis/v2beta1/experiments"),
    ("POST", "/pipeline/apis/v2beta1/runs"),
    ("POST", "/apis/v2beta1/pipelines/upload"),
    ("POST", "/api/v1/namespaces/default/pods"),
    ("DELETE", "/api/v1/namespaces/default/pods/any"),
]
FOREIGN = ["http://evil.example", "https://127.0.0.1.evil.example", "null", "http://127.0.0.1:1", "file://"]


@pytest.mark.parametrize(("method", "path"), WRITES)
@pytest.mark.parametrize("origin", FOREIGN)
def test_another_sites_page_changes_nothing(server, method, path, origin):
    headers = {"Host": f"127.0.0.1:{server.port}", "Origin": origin, "Content-Type": "text/plain"}
    assert ask(server, method, path, headers, b"{}") == 403


def test_our_own_page_and_programs_without_a_page_may_write(server):
    for name in ("127.0.0.1", "localhost"):
        host = f"{name}:{server.port}"
        for origin in ({}, {"Origin": f"http://{host}"}):
            headers = {"Host": host, "Content-Type": "application/json", **origin}
            body = b'{"display_name": "from %d"}' % hash((host, *origin))
            assert ask(server, "POST", "/apis/v2beta1/experiments", headers, body) == 200


def test_no_answer_lets_another_site_read_it(server):
    answer = server.http("GET", "/apis/v2beta1/runs", headers={"Origin": "http://evil.example"})
    assert answer.headers.get("Access-Control-Allow-Origin") is None


def test_it_listens_on_the_loopback_address_only(server):
    listening = [
        line.split()[1].split(":")
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for line in Path(table).read_text().splitlines()[1:]
        if line.split()[3] == "0A"
    ]
    addresses = [address for address, port in listening if int(port, 16) == server.port]
    assert addresses == ["0100007F"], addresses


def test_the_launchers_door_is_shut_without_a_token(server):
    for headers in ({}, {"Authorization": "Bearer "}, {"Authorization": "Bearer guess"}):
        assert server.http("GET", "/launch/v1/spec", headers=headers).status_code == 401
        assert server.http("PUT", "/launch/v1/report", headers=headers, json={}).status_code == 401


@pytest.mark.parametrize(
    "path", ["/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/static/..%2f..%2fetc/passwd"]
)
def test_a_path_does_not_climb_out_of_the_pages(server, path):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", path)
    assert b"root:" not in connection.getresponse().read()
    connection.close()
