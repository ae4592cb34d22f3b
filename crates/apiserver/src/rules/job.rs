//! Rules of Jobs: kubernetes' `pkg/apis/batch`.

mod policy;

use k8s_openapi::api::batch::v1::Job;
use serde_json::{Map, Value, json};

use super::{Rules, each, pod, shape, syntax, workload};
use crate::{
    object,
    validation::{self, Problems},
};

pub(crate) const RULES: Rules = Rules {
    shape: shape::<Job>,
    default,
    initial_status: Some(|_| json!({})),
    check,
    check_change,
    ..Rules::NONE
};

const UID: &str = "batch.kubernetes.io/controller-uid";
const NAME: &str = "batch.kubernetes.io/job-name";
/// The same under the names that they had before.
const OLD_UID: &str = "controller-uid";
const OLD_NAME: &str = "job-name";

fn is_manual(job: &Value) -> bool {
    job.pointer("/spec/manualSelector") == Some(&Value::Bool(true))
}

fn default(job: &mut Value) {
    let (uid, name) = (object::uid(job).to_owned(), object::name(job).to_owned());
    let is_manual = is_manual(job);
    let spec = object::section(job, "spec");
    default_spec(spec);
    let is_indexed = spec.get("backoffLimitPerIndex").is_some();
    match (spec.contains_key("completions"), spec.contains_key("parallelism")) {
        (false, false) => {
            spec.insert("completions".to_owned(), 1.into());
            spec.insert("parallelism".to_owned(), 1.into());
        }
        (true, false) => {
            spec.insert("parallelism".to_owned(), 1.into());
        }
        (_, true) => {}
    }
    object::default(spec, "backoffLimit", if is_indexed { i32::MAX } else { 6 });
    syntax::default_zero(spec, "completionMode", "NonIndexed");
    object::default(spec, "suspend", false);
    object::default(spec, "manualSelector", false);
    let policy = if spec.contains_key("podFailurePolicy") {
        "Failed"
    } else {
        "TerminatingOrFailed"
    };
    object::default(spec, "podReplacementPolicy", policy);
    let labels = spec
        .get("template")
        .and_then(|template| template.pointer("/metadata/labels"))
        .filter(|labels| labels.as_object().is_some_and(|labels| !labels.is_empty()))
        .cloned();
    if !is_manual && !uid.is_empty() && !name.is_empty() {
        object::default(spec, "selector", json!({"matchLabels": {UID: uid}}));
        let template = object::as_map(spec.entry("template").or_insert_with(|| json!({})));
        let metadata = object::as_map(template.entry("metadata").or_insert_with(|| json!({})));
        let labels = object::as_map(metadata.entry("labels").or_insert_with(|| json!({})));
        for (label, value) in [(UID, &uid), (OLD_UID, &uid), (NAME, &name), (OLD_NAME, &name)] {
            object::default(labels, label, value.as_str());
        }
    }
    // A Job without labels has those that its template came with.
    if let Some(labels) = labels {
        let metadata = object::metadata(job);
        let has_own = metadata
            .get("labels")
            .and_then(Value::as_object)
            .is_some_and(|own| !own.is_empty());
        if !has_own {
            metadata.insert("labels".to_owned(), labels);
        }
    }
}

/// What Jobs and the templates of Jobs have filled in alike.
pub(super) fn default_spec(spec: &mut Map<String, Value>) {
    pod::default_template(spec.entry("template").or_insert_with(|| json!({})));
    let mut policy = spec.get_mut("podFailurePolicy").map(Value::take);
    if let Some(policy) = &mut policy {
        each(policy, "/rules", |rule| {
            each(rule, "/onPodConditions", |condition| {
                syntax::default_zero(object::as_map(condition), "status", "True");
            });
        });
    }
    if let Some(policy) = policy {
        spec.insert("podFailurePolicy".to_owned(), policy);
    }
}

fn check(job: &Value, problems: &mut Problems) {
    let spec = job.get("spec").unwrap_or(&Value::Null);
    check_spec(spec, "spec", problems);
    check_indexed_name(job, problems);
    let labels = job.pointer("/spec/template/metadata/labels");
    let Some(selector) = job.pointer("/spec/selector") else {
        problems.required("spec.selector", "");
        return;
    };
    workload::check_label_selector(selector, "spec.selector", problems);
    if !is_manual(job) {
        let expected = [
            (UID, object::uid(job)),
            (OLD_UID, object::uid(job)),
            (NAME, object::name(job)),
            (OLD_NAME, object::name(job)),
        ];
        for (label, value) in expected {
            let is = labels
                .and_then(|labels| labels.get(label))
                .and_then(Value::as_str);
            if is != Some(value) {
                let labels = labels.cloned().unwrap_or_default();
                let field = "spec.template.metadata.labels";
                problems.invalid(field, labels, &format!("must be '{value}'"));
            }
        }
        let generated = expected.iter().map(|(label, value)| (*label, *value));
        let generated = generated.map(|(label, value)| (label.to_owned(), value.into()));
        let generated = Value::Object(generated.collect());
        if !workload::selects(selector, Some(&generated)) {
            problems.invalid("spec.selector", selector.clone(), "`selector` not auto-generated");
        }
    }
    if !workload::selects(selector, labels) {
        let labels = labels.cloned().unwrap_or_default();
        let detail = "`selector` does not match template `labels`";
        problems.invalid("spec.template.metadata.labels", labels, detail);
    }
}

/// The Pods of an Indexed Job are named after it and their index.
fn check_indexed_name(job: &Value, problems: &mut Problems) {
    if object::text(job, "/spec/completionMode") != "Indexed" {
        return;
    }
    let last = (object::number(job, "/spec/completions") - 1).max(0);
    let host = format!("{}-{last}", object::name(job));
    if !validation::is_label(&host) {
        let detail = format!(
            "will not able to create pod with invalid DNS label: {}: {host}",
            validation::LABEL
        );
        problems.invalid("metadata.name", object::name(job), &detail);
    }
}

/// Problems with the spec of a Job, or of the template of one.
pub(super) fn check_spec(spec: &Value, field: &str, problems: &mut Problems) {
    for number in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        let name = format!("{field}.{number}");
        syntax::check_not_negative(spec, &format!("/{number}"), name, problems);
    }
    let mode = object::text(spec, "/completionMode");
    let at = |name: &str| format!("{field}.{name}");
    let is_indexed = mode == "Indexed";
    if !["", "Indexed", "NonIndexed"].contains(&mode) {
        problems.unsupported(at("completionMode"), mode, &["Indexed", "NonIndexed"]);
    }
    if is_indexed {
        if !syntax::is_set(spec, "/completions") {
            problems.required(at("completions"), "when completion mode is Indexed");
        }
        let parallelism = object::number(spec, "/parallelism");
        if parallelism > 100_000 {
            let detail = "must be less than or equal to 100000 when completion mode is Indexed";
            problems.invalid(at("parallelism"), parallelism, detail);
        }
    } else {
        for name in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if let Some(value) = spec.get(name) {
                problems.invalid(at(name), value.clone(), "requires indexed completion mode");
            }
        }
    }
    if spec.get("maxFailedIndexes").is_some() && spec.get("backoffLimitPerIndex").is_none() {
        let detail = "when maxFailedIndexes is specified";
        problems.required(at("backoffLimitPerIndex"), detail);
    }
    let template = spec.get("template").unwrap_or(&Value::Null);
    pod::check_template(template, &at("template"), &[], problems);
    let name = at("template.spec.restartPolicy");
    match object::text(template, "/spec/restartPolicy") {
        "OnFailure" | "Never" => {}
        "Always" | "" => problems.required(name, "valid values: \"OnFailure\", \"Never\""),
        other => problems.unsupported(name, other, &["OnFailure", "Never"]),
    }
    let replacements = ["Failed", "TerminatingOrFailed"];
    let name = at("podReplacementPolicy");
    if let Some(failure) = spec.get("podFailurePolicy") {
        policy::check_failure(failure, spec, field, problems);
        let replacement = object::text(spec, "/podReplacementPolicy");
        if !["", "Failed"].contains(&replacement) {
            problems.unsupported(name, replacement, &replacements[..1]);
        }
    } else {
        syntax::check_one_of(spec, "/podReplacementPolicy", name, &replacements, problems);
    }
    if let Some(success) = spec.get("successPolicy") {
        policy::check_success(success, spec, &at("successPolicy"), problems);
    }
}

fn check_change(old: &Value, new: &Value, problems: &mut Problems) {
    check_completions(old, new, problems);
    for field in [
        "spec.selector",
        "spec.completionMode",
        "spec.podFailurePolicy",
        "spec.backoffLimitPerIndex",
        "spec.managedBy",
        "spec.successPolicy",
    ] {
        syntax::check_unchanged(old, new, field, problems);
    }
    // As long as it has not begun, where it runs may change.
    let may_move = old.pointer("/spec/suspend") == Some(&Value::Bool(true))
        && object::text(old, "/status/startTime").is_empty();
    let fixed = |job: &Value| {
        let mut template = job.pointer("/spec/template").cloned().unwrap_or_default();
        if may_move {
            let metadata = object::section(&mut template, "metadata");
            object::put(metadata, "labels", None);
            object::put(metadata, "annotations", None);
            for free in ["affinity", "nodeSelector", "tolerations", "schedulingGates"] {
                object::put(object::section(&mut template, "spec"), free, None);
            }
        }
        template
    };
    if fixed(old) != fixed(new) {
        let template = new.pointer("/spec/template").cloned().unwrap_or_default();
        problems.invalid("spec.template", template, syntax::IMMUTABLE);
    }
}

/// An Indexed Job grows and shrinks together with its parallelism.
fn check_completions(old: &Value, new: &Value, problems: &mut Problems) {
    let (was, is) = (old.pointer("/spec/completions"), new.pointer("/spec/completions"));
    if was == is {
        return;
    }
    let field = "spec.completions";
    let value = is.cloned().unwrap_or_default();
    if object::text(new, "/spec/completionMode") != "Indexed" {
        problems.invalid(field, value, syntax::IMMUTABLE);
    } else if is.is_none() || is != new.pointer("/spec/parallelism") {
        let detail = "can only be modified in tandem with spec.parallelism";
        problems.invalid(field, value, detail);
    }
}

#[cfg(test)]
mod tests;
