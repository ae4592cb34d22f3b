//! What a Job's policies say of an ended Pod, and of the indexes that succeeded. Pure.

use k8s_openapi::api::{
    batch::v1::{JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule},
    core::v1::{ContainerStatus, Pod},
};
use kube::ResourceExt as _;

use super::indexes::Indexes;
use crate::pods;

/// What a Pod's failure means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It counts against the limit.
    Counts,
    /// It is as if it had not been.
    Ignored,
    /// Its index has failed.
    FailsIndex,
    /// The Job has failed; why.
    FailsJob(String),
}

/// What the failure of the Pod means.
pub(crate) fn failure(spec: &JobSpec, pod: &Pod) -> Failure {
    let rules = spec.pod_failure_policy.as_ref().map(|policy| &policy.rules);
    for (index, rule) in rules.into_iter().flatten().enumerate() {
        let Some(what) = matched(rule, pod) else { continue };
        return match rule.action.as_str() {
            "Ignore" => Failure::Ignored,
            "FailIndex" => Failure::FailsIndex,
            "FailJob" => Failure::FailsJob(format!("{what} matching FailJob rule at index {index}")),
            _ => Failure::Counts,
        };
    }
    Failure::Counts
}

/// What of the Pod the rule matches.
fn matched(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let name = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
    if let Some(codes) = &rule.on_exit_codes {
        let (container, code) = pods::container_statuses(pod).find_map(|status| {
            exit_code(status)
                .filter(|code| has_code(codes, status, *code))
                .map(|code| (status, code))
        })?;
        let container = &container.name;
        return Some(format!(
            "Container {container} for pod {name} failed with exit code {code}"
        ));
    }
    let wanted = rule.on_pod_conditions.as_deref().unwrap_or_default();
    let condition = wanted.iter().find(|wanted| {
        let there = pods::condition(pod, &wanted.type_);
        there.is_some_and(|there| there.status == wanted.status)
    })?;
    Some(format!("Pod {name} has condition {}", condition.type_))
}

fn exit_code(status: &ContainerStatus) -> Option<i32> {
    let ended = status.state.as_ref()?.terminated.as_ref()?;
    Some(ended.exit_code).filter(|code| *code != 0)
}

fn has_code(codes: &PodFailurePolicyOnExitCodesRequirement, status: &ContainerStatus, code: i32) -> bool {
    let is_meant = codes
        .container_name
        .as_ref()
        .is_none_or(|name| *name == status.name);
    is_meant && codes.values.contains(&code) == (codes.operator == "In")
}

/// Why the indexes that succeeded are enough, if they are.
pub(crate) fn success(spec: &JobSpec, succeeded: &Indexes, completions: i32) -> Option<String> {
    let rules = spec.success_policy.as_ref().map(|policy| &policy.rules);
    for (index, rule) in rules.into_iter().flatten().enumerate() {
        let is_met = match (&rule.succeeded_indexes, rule.succeeded_count) {
            (Some(indexes), count) => {
                let wanted = Indexes::parse(indexes, completions);
                wanted.common(succeeded) >= count.unwrap_or_else(|| wanted.count())
            }
            (None, Some(count)) => succeeded.count() >= count,
            (None, None) => false,
        };
        if is_met {
            return Some(format!("Matched rules at index {index}"));
        }
    }
    None
}
