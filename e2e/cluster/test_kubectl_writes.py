"""`kubectl` writes: apply, edit, patch of every type, replace, delete."""

import json

import yaml
from manifests import config_map, deployment, pod


def test_apply_creates_then_changes_nothing_then_changes_what_is_new(namespace):
    assert "configmap/a created" in namespace.apply(config_map("a", x="1", y="2"))
    assert "configmap/a unchanged" in namespace.apply(config_map("a", x="1", y="2"))
    assert "configmap/a configured" in namespace.apply(config_map("a", x="3"))
    assert namespace.get("configmap", "a")["data"] == {"x": "3"}


def test_apply_of_a_deployment_keeps_what_others_have_scaled(namespace):
    manifest = deployment("web")
    del manifest["spec"]["replicas"]
    namespace.apply(manifest)
    namespace.kubectl("scale", "deployment/web", "--replicas=3")
    assert "unchanged" in namespace.apply(manifest)
    assert namespace.value("deployment/web", ".spec.replicas") == "3"


def test_a_dry_run_shows_what_would_be_and_stores_nothing(namespace):
    said = namespace.apply(config_map("a", x="1"), flags=("--dry-run=server",))
    assert "created (server dry run)" in said
    assert "not found" in namespace.refused("get", "configmap", "a")


def test_diff_shows_what_apply_would_change(namespace):
    namespace.apply(config_map("a", x="1"))
    same = namespace.run("diff", "-f", "-", stdin=yaml.safe_dump(config_map("a", x="1")))
    assert same.returncode == 0, same.stderr
    other = namespace.run("diff", "-f", "-", stdin=yaml.safe_dump(config_map("a", x="2")))
    assert other.returncode == 1, other.stderr
    assert '-  x: "1"' in other.stdout and '+  x: "2"' in other.stdout


def test_server_side_apply_shares_an_object_and_reports_conflicts(namespace):
    def apply(manager: str, *flags, **data):
        return namespace.run(
            "apply", "--server-side", f"--field-manager={manager}", *flags, "-f", "-",
            stdin=yaml.safe_dump(config_map("shared", **data)),
        )  # fmt: skip

    assert apply("one", a="1", b="1").returncode == 0
    assert apply("two", c="1").returncode == 0
    assert namespace.get("configmap", "shared")["data"] == {"a": "1", "b": "1", "c": "1"}
    refused = apply("two", a="2", c="1")
    assert refused.returncode != 0
    assert 'conflict with "one": .data.a' in refused.stderr
    assert apply("two", "--force-conflicts", a="2", c="1").returncode == 0
    # What nobody lists any more goes; what another one lists stays.
    assert apply("one", b="1").returncode == 0
    assert apply("two", c="1").returncode == 0
    assert namespace.get("configmap", "shared")["data"] == {"b": "1", "c": "1"}
    shown = namespace.kubectl("get", "configmap", "shared", "-o", "json", "--show-managed-fields")
    managers = {entry["manager"] for entry in json.loads(shown)["metadata"]["managedFields"]}
    assert managers == {"one", "two"}


def test_an_object_is_edited(namespace):
    namespace.apply(config_map("a", x="before"))
    said = namespace.kubectl("edit", "configmap", "a", KUBE_EDITOR="sed -i s/before/after/")
    assert "configmap/a edited" in said
    assert namespace.get("configmap", "a")["data"] == {"x": "after"}


def test_every_type_of_patch(namespace):
    namespace.apply(deployment("web", replicas=0))
    target = "deployment/web"

    def patch(kind: str, change) -> None:
        namespace.kubectl("patch", target, f"--type={kind}", "-p", json.dumps(change))

    patch("merge", {"metadata": {"labels": {"tier": "front", "app": None}}})
    patch("json", [{"op": "add", "path": "/metadata/annotations/note", "value": "x"}])
    sidecar = {"name": "sidecar", "image": "busybox:1.36"}
    patch("strategic", {"spec": {"template": {"spec": {"containers": [sidecar]}}}})
    found = namespace.get(target)
    assert found["metadata"]["labels"] == {"tier": "front"}
    assert found["metadata"]["annotations"]["note"] == "x"
    # Merged by name, not replaced.
    names = {container["name"] for container in found["spec"]["template"]["spec"]["containers"]}
    assert names == {"main", "sidecar"}
    failed = namespace.refused("patch", target, "--type=json", "-p", '[{"op":"remove","path":"/spec/none"}]')
    assert "the server rejected our request" in failed or "remove operation" in failed


def test_a_patch_that_takes_away_what_is_required_is_refused_and_changes_nothing(namespace):
    namespace.apply(deployment("web", replicas=0))
    change = json.dumps({"spec": {"template": {"spec": {"containers": None}}}})
    said = namespace.refused("patch", "deployment/web", "--type=merge", "-p", change)
    assert "spec.template.spec.containers: Required value" in said
    assert namespace.get("deployment/web")["spec"]["template"]["spec"]["containers"]


def test_a_replace_of_an_older_revision_is_a_conflict(namespace):
    namespace.apply(config_map("a", x="1"))
    old = namespace.get("configmap", "a")
    namespace.kubectl("patch", "configmap/a", "--type=merge", "-p", '{"data":{"x":"2"}}')
    said = namespace.refused("replace", "-f", "-", stdin=yaml.safe_dump(old))
    assert "the object has been modified" in said


def test_unknown_fields_and_bad_names_are_refused_with_their_place(namespace):
    unknown = pod("p")
    unknown["spec"]["containers"][0]["imagee"] = "x"
    said = namespace.refused("apply", "-f", "-", stdin=yaml.safe_dump(unknown))
    assert 'unknown field "spec.containers[0].imagee"' in said
    said = namespace.refused("apply", "-f", "-", stdin=yaml.safe_dump(config_map("Bad_Name")))
    assert 'metadata.name: Invalid value: "Bad_Name"' in said
    said = namespace.refused("apply", "-f", "-", stdin=yaml.safe_dump(config_map("x" * 254)))
    assert "must be no more than 253 characters" in said
    assert namespace.kubectl("get", "pods", "-o", "name") == ""


def test_what_an_object_owns_goes_with_it_unless_it_is_orphaned(namespace):
    for name, cascade in [("goes", "foreground"), ("stays", "orphan")]:
        namespace.apply(deployment(name, replicas=1))
        namespace.kubectl("rollout", "status", f"deployment/{name}", "--timeout=60s")
        namespace.kubectl("delete", f"deployment/{name}", f"--cascade={cascade}")
    assert namespace.kubectl("get", "rs", "-l", "app=goes", "-o", "name") == ""
    assert namespace.kubectl("get", "rs", "-l", "app=stays", "-o", "name") != ""


def test_a_finalizer_holds_an_object_until_it_is_taken_away(namespace):
    manifest = config_map("held")
    manifest["metadata"]["finalizers"] = ["e2e.coracle.dev/hold"]
    namespace.apply(manifest)
    namespace.kubectl("delete", "configmap/held", "--wait=false")
    assert namespace.value("configmap/held", ".metadata.deletionTimestamp")
    namespace.kubectl("patch", "configmap/held", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    namespace.kubectl("wait", "--for=delete", "configmap/held", "--timeout=30s")


def test_a_namespace_takes_everything_in_it_along(cluster, namespace):
    namespace.apply(config_map("a"), pod("p"))
    cluster.kubectl("delete", "namespace", namespace.name, "--timeout=60s")
    assert "not found" in cluster.refused("get", "namespace", namespace.name)
    cluster.kubectl("create", "namespace", namespace.name)
    assert cluster.kubectl("-n", namespace.name, "get", "pods", "-o", "name") == ""


def test_a_quota_says_with_numbers_what_it_does_not_let_in(namespace):
    namespace.kubectl("create", "quota", "small", "--hard=configmaps=3,requests.cpu=1")
    # One is the root certificate's, which comes after the namespace.
    namespace.kubectl("wait", "--for=create", "configmap/kube-root-ca.crt", "--timeout=30s")
    namespace.apply(config_map("a"), config_map("b"))
    said = namespace.refused("create", "configmap", "c")
    assert "exceeded quota: small, requested: configmaps=1, used: configmaps=3, limited: configmaps=3" in said
    said = namespace.refused("apply", "-f", "-", stdin=yaml.safe_dump(pod("p")))
    assert "must specify requests.cpu for: main" in said
