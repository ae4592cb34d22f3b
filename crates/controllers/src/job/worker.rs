//! The Pods that a Job makes. Pure: the name of one is a function of its Job, its index and its number.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    batch::v1::{Job, JobStatus},
    core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod},
};
use kube::ResourceExt as _;

use super::{FINALIZER, INDEX};
use crate::{pods, template};

/// How often the index of a Pod has failed before it.
pub(crate) const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// How often it has failed in a way that does not count.
pub(crate) const IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
/// The variable that holds the index.
const VARIABLE: &str = "JOB_COMPLETION_INDEX";

/// What a Pod is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Purpose {
    pub(crate) index: Option<i32>,
    /// Failures of its index that count, and those that do not; where they are counted for each index.
    pub(crate) failures: Option<(i32, i32)>,
}

/// The index that the Pod was made for.
pub(crate) fn index(pod: &Pod) -> Option<i32> {
    let text = pods::annotation(pod, INDEX).or_else(|| pods::label(pod, INDEX))?;
    text.parse().ok().filter(|index| *index >= 0)
}

/// Failures of the Pod's index before it that count, and those that do not.
pub(crate) fn failures(pod: &Pod) -> (i32, i32) {
    let number = |name| {
        pods::annotation(pod, name)
            .and_then(|text| text.parse().ok())
            .unwrap_or(0)
    };
    (number(FAILURES), number(IGNORED_FAILURES))
}

/// The name of the Job's Pod of this number.
pub(crate) fn name(job: &Job, status: &JobStatus, index: Option<i32>, number: i64) -> String {
    let own = job.name_any();
    let uid = job.uid().unwrap_or_default();
    // A Job that was resumed makes other names than before.
    let started = status.start_time.as_ref();
    let started = started.map(|time| time.0.to_string()).unwrap_or_default();
    let number = number.to_string();
    let index = index.map(|index| index.to_string());
    let prefix = match &index {
        Some(index) => {
            let ending = format!("-{index}-");
            format!(
                "{}{ending}",
                template::cut(&own, 58_usize.saturating_sub(ending.len()))
            )
        }
        None => format!("{own}-"),
    };
    template::name(
        &prefix,
        &[&uid, &started, index.as_deref().unwrap_or_default(), &number],
    )
}

/// The Job's Pod of this name.
pub(crate) fn worker(job: &Job, name: String, purpose: Purpose) -> Pod {
    let template = job
        .spec
        .as_ref()
        .map(|spec| spec.template.clone())
        .unwrap_or_default();
    let mut pod = template::pod(&template, job, name);
    let (own, uid) = (job.name_any(), job.uid().unwrap_or_default());
    let metadata = &mut pod.metadata;
    let labels = metadata.labels.get_or_insert_with(BTreeMap::new);
    for (label, value) in [
        ("batch.kubernetes.io/controller-uid", &uid),
        ("controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &own),
        ("job-name", &own),
    ] {
        let is_manual = job
            .spec
            .as_ref()
            .is_some_and(|spec| spec.manual_selector == Some(true));
        if !is_manual {
            labels.entry(label.to_owned()).or_insert_with(|| value.clone());
        }
    }
    let finalizers = metadata.finalizers.get_or_insert_with(Vec::new);
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    if let Some(index) = purpose.index {
        let index = index.to_string();
        labels.insert(INDEX.to_owned(), index.clone());
        let annotations = metadata.annotations.get_or_insert_with(BTreeMap::new);
        annotations.insert(INDEX.to_owned(), index.clone());
        if let Some((counted, ignored)) = purpose.failures {
            annotations.insert(FAILURES.to_owned(), counted.to_string());
            if ignored > 0 {
                annotations.insert(IGNORED_FAILURES.to_owned(), ignored.to_string());
            }
        }
        if let Some(spec) = &mut pod.spec {
            spec.hostname = Some(format!("{own}-{index}"));
            let init = spec.init_containers.iter_mut().flatten();
            init.chain(&mut spec.containers).for_each(tell_index);
        }
    }
    pod
}

fn tell_index(container: &mut Container) {
    let variables = container.env.get_or_insert_with(Vec::new);
    if variables.iter().any(|variable| variable.name == VARIABLE) {
        return;
    }
    variables.push(EnvVar {
        name: VARIABLE.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: None,
                field_path: format!("metadata.annotations['{INDEX}']"),
            }),
            ..EnvVarSource::default()
        }),
    });
}
