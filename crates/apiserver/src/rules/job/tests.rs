//! Tables of what Jobs are given and what is refused of them.

use super::*;

fn job() -> Value {
    let mut job = json!({
        "metadata": {"name": "j", "uid": "u"},
        "spec": {"template": {
            "metadata": {"labels": {"app": "x"}},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i:1"}]},
        }},
    });
    default(&mut job);
    job
}

fn problems(change: impl Fn(&mut Value)) -> String {
    let mut job = job();
    change(&mut job);
    let mut problems = Problems::default();
    check(&job, &mut problems);
    problems.to_string()
}

fn changed(old: &Value, change: impl Fn(&mut Value)) -> String {
    let mut new = old.clone();
    change(&mut new);
    let mut problems = Problems::default();
    check_change(old, &new, &mut problems);
    problems.to_string()
}

#[test]
fn a_job_is_filled_in_and_finds_its_pods_by_its_uid() {
    let job = job();
    let spec = &job["spec"];
    for (field, value) in [
        ("completions", json!(1)),
        ("parallelism", json!(1)),
        ("backoffLimit", json!(6)),
        ("completionMode", json!("NonIndexed")),
        ("suspend", json!(false)),
        ("podReplacementPolicy", json!("TerminatingOrFailed")),
        ("selector", json!({"matchLabels": {UID: "u"}})),
    ] {
        assert_eq!(spec[field], value, "{field}");
    }
    assert_eq!(
        spec["template"]["metadata"]["labels"],
        json!({"app": "x", UID: "u", OLD_UID: "u", NAME: "j", OLD_NAME: "j"})
    );
    assert_eq!(job["metadata"]["labels"], json!({"app": "x"}));
    assert_eq!(problems(|_| {}), "[]");
    let mut again = job.clone();
    default(&mut again);
    assert_eq!(again, job);
}

#[test]
fn what_cannot_work_is_refused() {
    let policy = json!({"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [0]}}]});
    for (pointer, field, value, expected) in [
        (
            "/spec/template/spec",
            "restartPolicy",
            json!("Always"),
            "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
        ),
        (
            "/spec",
            "completionMode",
            json!("Sorted"),
            "spec.completionMode: Unsupported value: \"Sorted\": supported values: \"Indexed\", \"NonIndexed\"",
        ),
        (
            "/spec",
            "backoffLimit",
            json!(-1),
            "spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            "/spec",
            "selector",
            json!({"matchLabels": {"app": "x"}}),
            "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"x\"}}: `selector` not auto-generated",
        ),
        (
            "/spec",
            "podFailurePolicy",
            policy,
            "spec.podFailurePolicy.rules[0].onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator",
        ),
        (
            "/spec",
            "successPolicy",
            json!({"rules": []}),
            "spec.successPolicy: Invalid value: {\"rules\":[]}: requires indexed completion mode",
        ),
        (
            "/spec",
            "maxFailedIndexes",
            json!(1),
            "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
        ),
    ] {
        let message = problems(|job| job.pointer_mut(pointer).unwrap()[field] = value.clone());
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn of_a_job_parallelism_and_suspension_may_change() {
    let job = job();
    assert_eq!(changed(&job, |job| job["spec"]["parallelism"] = json!(3)), "[]");
    assert_eq!(changed(&job, |job| job["spec"]["suspend"] = json!(true)), "[]");
    assert_eq!(
        changed(&job, |job| job["spec"]["completions"] = json!(3)),
        "spec.completions: Invalid value: 3: field is immutable"
    );
    let image = |job: &mut Value| job["spec"]["template"]["spec"]["containers"][0]["image"] = json!("j");
    assert!(changed(&job, image).ends_with("field is immutable"));
    let place = |job: &mut Value| job["spec"]["template"]["spec"]["nodeSelector"] = json!({"a": "b"});
    assert!(changed(&job, place).ends_with("field is immutable"));
    let mut suspended = job;
    suspended["spec"]["suspend"] = json!(true);
    assert_eq!(changed(&suspended, place), "[]");
    assert!(changed(&suspended, image).ends_with("field is immutable"));
    suspended["spec"]["completionMode"] = json!("Indexed");
    let both = |job: &mut Value| {
        job["spec"]["completions"] = json!(3);
        job["spec"]["parallelism"] = json!(3);
    };
    assert_eq!(changed(&suspended, both), "[]");
}
