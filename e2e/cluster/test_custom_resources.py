"""Custom resources: served as soon as they are defined, checked, defaulted, shown."""

import time

import pytest
import yaml
from manifests import WIDGETS


@pytest.fixture(scope="module")
def widgets(cluster):
    """The definition of widgets."""
    cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(WIDGETS))
    cluster.kubectl("wait", "--for=condition=Established", "crd/widgets.e2e.coracle.dev", "--timeout=30s")
    yield
    cluster.kubectl("delete", "crd", "widgets.e2e.coracle.dev", "--timeout=60s")


def widget(name: str, **spec) -> dict:
    return {"apiVersion": "e2e.coracle.dev/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec}


@pytest.mark.usefixtures("widgets")
class TestWidgets:
    """What a defined kind does."""

    def test_one_is_made_defaulted_and_shown_in_its_columns(self, namespace):
        assert "widget.e2e.coracle.dev/a created" in namespace.apply(widget("a", size=3))
        assert namespace.get("widget", "a")["spec"] == {"size": 3, "colour": "red"}
        head, row = namespace.kubectl("get", "wd").splitlines()
        assert (head.split(), row.split()) == (["NAME", "SIZE"], ["a", "3"])
        assert namespace.kubectl("get", "widgets", "-o", "wide").splitlines()[1].split() == ["a", "3", "red"]

    @pytest.mark.parametrize(
        ("spec", "complaint"),
        [
            ({}, "spec.size: Required value"),
            ({"size": "large"}, 'Invalid value: "string": spec.size in body must be of type integer'),
            ({"size": 0}, "Invalid value: 0: spec.size in body should be greater than or equal to 1"),
            ({"size": 50, "colour": "invisible"}, "only small widgets are invisible"),
        ],
    )  # fmt: skip
    def test_what_is_wrong_is_said_with_its_place(self, namespace, spec, complaint):
        manifest = yaml.safe_dump(widget("bad", **spec))
        assert complaint in namespace.refused("create", "--validate=false", "-f", "-", stdin=manifest)
        assert namespace.kubectl("get", "widgets", "-o", "name") == ""

    def test_an_unknown_field_is_refused_by_strict_and_dropped_by_others(self, namespace):
        manifest = yaml.safe_dump(widget("a", size=1, taste="sweet"))
        said = namespace.refused("create", "--validate=strict", "-f", "-", stdin=manifest)
        assert 'unknown field "spec.taste"' in said
        namespace.kubectl("create", "--validate=false", "-f", "-", stdin=manifest)
        assert "taste" not in namespace.get("widget", "a")["spec"]

    def test_a_change_that_a_rule_forbids_is_refused(self, namespace):
        namespace.apply(widget("a", size=1, colour="blue"))
        said = namespace.refused("apply", "-f", "-", stdin=yaml.safe_dump(widget("a", size=1, colour="red")))
        assert "colour is immutable" in said

    def test_status_and_scale_are_written_apart(self, namespace):
        namespace.apply(widget("a", size=1))
        change = '{"status":{"phase":"Done","size":9}}'
        namespace.kubectl("patch", "widget/a", "--type=merge", "--subresource=status", "-p", change)
        namespace.kubectl("scale", "widget/a", "--replicas=7")
        found = namespace.get("widget", "a")
        assert (found["spec"]["size"], found["status"]) == (7, {"phase": "Done", "size": 9})
        assert found["metadata"]["generation"] == 2

    def test_they_are_selected_by_a_field(self, namespace):
        namespace.apply(widget("a", size=1, colour="blue"), widget("b", size=1))
        assert (
            namespace.kubectl("get", "widgets", "--field-selector", "spec.colour=blue", "-o", "name").split()
            == ["widget.e2e.coracle.dev/a"]
        )  # fmt: skip

    def test_explain_knows_them(self, namespace):
        # A client may have cached what there was before.
        deadline = time.monotonic() + 20
        said = namespace.run("explain", "widget.spec.size")
        while said.returncode != 0 and time.monotonic() < deadline:
            time.sleep(0.5)
            said = namespace.run("explain", "widget.spec.size")
        assert "How large it is." in said.stdout, said.stderr

    def test_a_strategic_patch_is_refused_in_words(self, namespace):
        namespace.apply(widget("a", size=1))
        said = namespace.refused("patch", "widget/a", "--type=strategic", "-p", '{"spec":{"size":2}}')
        assert "strategic" in said.lower() or "unsupported" in said.lower()

    def test_server_side_apply_merges_them(self, namespace):
        for manager, spec in [("one", {"size": 1}), ("two", {"colour": "green"})]:
            manifest = yaml.safe_dump(widget("a", **spec))
            ended = namespace.run(
                "apply", "--server-side", f"--field-manager={manager}", "--validate=false", "-f", "-",
                stdin=manifest,
            )  # fmt: skip
            if manager == "one":
                assert ended.returncode == 0, ended.stderr
            else:
                # `colour` came with the default, which nobody owns; it is immutable all the same.
                assert "immutable" in ended.stderr


def test_a_definition_that_is_wrong_says_where(cluster):
    bad = yaml.safe_load(yaml.safe_dump(WIDGETS))
    bad["metadata"]["name"] = "gadgets.e2e.coracle.dev"
    said = cluster.refused("create", "-f", "-", stdin=yaml.safe_dump(bad))
    assert 'metadata.name: Invalid value: "gadgets.e2e.coracle.dev"' in said
