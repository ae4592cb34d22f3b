//! A Pod's status from what its containers do: the shape that kubelets write.
//!
//! Pure. Times of conditions change only when the condition does, so equal facts give an equal status.

use coracle_api::reason::Reason;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
        ContainerStatus, HostIP, PodCondition, PodIP, PodStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::termination::Termination;

/// What kubelets call a container that was not started yet.
pub(crate) const CONTAINER_CREATING: &str = "ContainerCreating";
/// The same for a container behind init containers.
pub(crate) const POD_INITIALIZING: &str = "PodInitializing";

/// What one container does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// It does not run, and may run later.
    Waiting { reason: String, message: Option<String> },
    /// It runs.
    Running { started_at: Timestamp },
    /// It is over.
    Terminated(Termination),
}

/// One container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) image: String,
    /// Where its programs come from on this machine.
    pub(crate) image_id: String,
    pub(crate) container_id: Option<String>,
    pub(crate) restarts: i32,
    pub(crate) state: State,
    /// It runs beside the others, from before they start until they have ended.
    pub(crate) is_sidecar: bool,
    /// The end before the last start.
    pub(crate) last: Option<Termination>,
}

/// Whether containers are started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    pub(crate) fn parse(text: Option<&str>) -> Self {
        match text {
            Some("Never") => Self::Never,
            Some("OnFailure") => Self::OnFailure,
            _ => Self::Always,
        }
    }

    /// Whether a container that ended like this starts again. Init containers that succeed never do.
    pub(crate) fn restarts(self, exit_code: i32, is_init: bool) -> bool {
        match self {
            Self::Always => !is_init || exit_code != 0,
            Self::OnFailure => exit_code != 0,
            Self::Never => false,
        }
    }
}

/// Everything a status is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) init: Vec<Container>,
    pub(crate) containers: Vec<Container>,
    pub(crate) restart_policy: RestartPolicy,
    pub(crate) address: String,
    pub(crate) started_at: Timestamp,
    /// Why the Pod as a whole was ended, e.g. its deadline: name and sentence.
    pub(crate) ended: Option<(String, String)>,
    /// It is being deleted: nothing starts again.
    pub(crate) is_stopping: bool,
}

/// The status to write. `previous` is what stands there, for the times in it.
pub(crate) fn status(observed: &Observed, previous: Option<&PodStatus>, now: Timestamp) -> PodStatus {
    let phase = phase(observed);
    let is_over = phase == "Succeeded" || phase == "Failed";
    let all_ready = observed
        .containers
        .iter()
        .all(|container| matches!(container.state, State::Running { .. }));
    let over_reason = match phase {
        "Succeeded" => Some("PodCompleted"),
        "Failed" => Some("PodFailed"),
        _ => None,
    };
    let initialized = observed
        .init
        .iter()
        .all(|container| container.is_sidecar || has_succeeded(container));
    let not_ready = (!all_ready).then(|| over_reason.unwrap_or("ContainersNotReady"));
    let conditions = [
        ("PodScheduled", true, None),
        (
            "Initialized",
            initialized,
            if initialized {
                over_reason.filter(|_| phase == "Succeeded")
            } else {
                Some("ContainersNotInitialized")
            },
        ),
        ("ContainersReady", all_ready, not_ready),
        ("Ready", all_ready, not_ready),
    ];
    let (reason, message) = match &observed.ended {
        Some((reason, message)) if is_over => (Some(reason.clone()), Some(message.clone())),
        _ => (None, None),
    };
    PodStatus {
        phase: Some(phase.to_owned()),
        reason,
        message,
        conditions: Some(
            conditions
                .into_iter()
                .map(|(kind, holds, reason)| condition(kind, holds, reason, previous, now))
                .collect(),
        ),
        container_statuses: Some(observed.containers.iter().map(container_status).collect()),
        init_container_statuses: (!observed.init.is_empty())
            .then(|| observed.init.iter().map(init_container_status).collect()),
        host_ip: Some(observed.address.clone()),
        host_ips: Some(vec![HostIP {
            ip: observed.address.clone(),
        }]),
        pod_ip: Some(observed.address.clone()),
        pod_ips: Some(vec![PodIP {
            ip: observed.address.clone(),
        }]),
        qos_class: previous.and_then(|previous| previous.qos_class.clone()),
        start_time: Some(Time(observed.started_at)),
        ..PodStatus::default()
    }
}

/// As kubelet's `getPhase`.
fn phase(observed: &Observed) -> &'static str {
    let restarts = |container: &Container, is_init: bool| match &container.state {
        State::Terminated(end) => {
            !observed.is_stopping
                && observed.ended.is_none()
                && observed.restart_policy.restarts(end.exit_code, is_init)
        }
        State::Waiting { .. } | State::Running { .. } => false,
    };
    // Sidecars end when the others have: their end says nothing.
    let mut init = observed.init.iter().filter(|container| !container.is_sidecar);
    let init_failed = init.clone().any(|container| {
        matches!(&container.state, State::Terminated(end) if end.exit_code != 0) && !restarts(container, true)
    });
    let is = |wanted: fn(&State) -> bool| observed.containers.iter().filter(|c| wanted(&c.state)).count();
    let waiting = is(|state| matches!(state, State::Waiting { .. }));
    let waiting_again = observed
        .containers
        .iter()
        .filter(|container| matches!(container.state, State::Waiting { .. }) && container.last.is_some())
        .count();
    let running = is(|state| matches!(state, State::Running { .. }));
    if init_failed {
        "Failed"
    } else if !init.all(has_succeeded) || waiting > waiting_again {
        let is_ending = observed.is_stopping || observed.ended.is_some();
        if is_ending && running == 0 && !observed.init.iter().any(is_running) {
            "Failed"
        } else {
            "Pending"
        }
    } else if running + waiting_again > 0
        || observed
            .containers
            .iter()
            .any(|container| restarts(container, false))
    {
        "Running"
    } else if observed.ended.is_none() && observed.containers.iter().all(has_succeeded) {
        "Succeeded"
    } else {
        "Failed"
    }
}

fn is_running(container: &Container) -> bool {
    matches!(container.state, State::Running { .. })
}

fn has_succeeded(container: &Container) -> bool {
    matches!(&container.state, State::Terminated(end) if end.exit_code == 0)
}

fn condition(
    kind: &str,
    holds: bool,
    reason: Option<&str>,
    previous: Option<&PodStatus>,
    now: Timestamp,
) -> PodCondition {
    let status = if holds { "True" } else { "False" };
    let since = previous
        .and_then(|previous| previous.conditions.as_ref())
        .and_then(|conditions| conditions.iter().find(|condition| condition.type_ == kind))
        .filter(|condition| condition.status == status)
        .and_then(|condition| condition.last_transition_time.clone());
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.map(ToOwned::to_owned),
        last_transition_time: Some(since.unwrap_or(Time(now))),
        ..PodCondition::default()
    }
}

fn container_status(container: &Container) -> ContainerStatus {
    let is_running = is_running(container);
    ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone(),
        image_id: container.image_id.clone(),
        container_id: container.container_id.clone(),
        ready: is_running,
        started: Some(is_running),
        restart_count: container.restarts,
        state: Some(state(container, &container.state)),
        last_state: container.last.as_ref().map(|end| terminated(container, end)),
        ..ContainerStatus::default()
    }
}

fn init_container_status(container: &Container) -> ContainerStatus {
    ContainerStatus {
        ready: has_succeeded(container),
        ..container_status(container)
    }
}

fn state(container: &Container, state: &State) -> ContainerState {
    match state {
        State::Waiting { reason, message } => ContainerState {
            waiting: Some(ContainerStateWaiting {
                reason: Some(reason.clone()),
                message: message.clone(),
            }),
            ..ContainerState::default()
        },
        State::Running { started_at } => ContainerState {
            running: Some(ContainerStateRunning {
                started_at: Some(Time(*started_at)),
            }),
            ..ContainerState::default()
        },
        State::Terminated(end) => terminated(container, end),
    }
}

fn terminated(container: &Container, end: &Termination) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: end.exit_code,
            signal: end.signal,
            reason: Some(end.reason.clone()),
            message: end.message.clone(),
            started_at: end.started_at.map(Time),
            finished_at: Some(Time(end.finished_at)),
            container_id: container.container_id.clone(),
        }),
        ..ContainerState::default()
    }
}

/// The condition of a Pod that no machine has taken.
pub(crate) fn unscheduled(reason: Reason, message: &str, now: Timestamp) -> PodCondition {
    PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some(reason.to_string()),
        message: Some(message.to_owned()),
        last_transition_time: Some(Time(now)),
        ..PodCondition::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(text: &str) -> Container {
        let (state, last) = text
            .split_once('<')
            .map_or((text, None), |(state, last)| (state, Some(last)));
        let end = |code: &str| Termination {
            exit_code: code.parse().unwrap(),
            signal: None,
            reason: String::new(),
            message: None,
            started_at: None,
            finished_at: Timestamp::UNIX_EPOCH,
        };
        Container {
            name: "c".to_owned(),
            image: "i".to_owned(),
            image_id: String::new(),
            container_id: None,
            restarts: 0,
            is_sidecar: false,
            state: match state {
                "wait" => State::Waiting {
                    reason: CONTAINER_CREATING.to_owned(),
                    message: None,
                },
                "run" => State::Running {
                    started_at: Timestamp::UNIX_EPOCH,
                },
                code => State::Terminated(end(code)),
            },
            last: last.map(end),
        }
    }

    fn observed(policy: RestartPolicy, init: &str, containers: &str) -> Observed {
        let all = |text: &str| text.split_ascii_whitespace().map(container).collect();
        Observed {
            init: all(init),
            containers: all(containers),
            restart_policy: policy,
            address: "127.0.0.1".to_owned(),
            started_at: Timestamp::UNIX_EPOCH,
            ended: None,
            is_stopping: false,
        }
    }

    fn check(policy: RestartPolicy, init: &str, containers: &str, expected: &str) {
        let observed = observed(policy, init, containers);
        let status = status(&observed, None, Timestamp::UNIX_EPOCH);
        let held: Vec<&str> = status
            .conditions
            .iter()
            .flatten()
            .filter(|condition| condition.status == "True")
            .map(|condition| condition.type_.as_str())
            .collect();
        let found = format!("{}: {}", status.phase.unwrap_or_default(), held.join(" "));
        assert_eq!(found, expected, "{init} | {containers}");
    }

    #[test]
    fn phases_and_conditions_are_those_of_kubelets() {
        use RestartPolicy::{Always, Never, OnFailure};
        let ready = "PodScheduled Initialized ContainersReady Ready";
        check(Never, "", "wait", "Pending: PodScheduled Initialized");
        check(Never, "", "run", &format!("Running: {ready}"));
        check(Never, "", "run run", &format!("Running: {ready}"));
        check(Never, "", "run 0", "Running: PodScheduled Initialized");
        check(Never, "", "run 1", "Running: PodScheduled Initialized");
        check(Never, "", "run wait", "Pending: PodScheduled Initialized");
        check(Never, "", "0", "Succeeded: PodScheduled Initialized");
        check(Never, "", "0 0", "Succeeded: PodScheduled Initialized");
        check(Never, "", "0 2", "Failed: PodScheduled Initialized");
        check(Never, "run", "wait", "Pending: PodScheduled");
        check(Never, "0 run", "wait", "Pending: PodScheduled");
        check(Never, "0", "wait", "Pending: PodScheduled Initialized");
        check(Never, "0", "run", &format!("Running: {ready}"));
        check(Never, "1", "wait", "Failed: PodScheduled");
        check(OnFailure, "1", "wait", "Pending: PodScheduled");
        check(OnFailure, "", "1", "Running: PodScheduled Initialized");
        check(OnFailure, "", "wait<1", "Running: PodScheduled Initialized");
        check(OnFailure, "", "0", "Succeeded: PodScheduled Initialized");
        check(Always, "", "0", "Running: PodScheduled Initialized");
    }

    #[test]
    fn a_sidecars_end_is_not_the_pods() {
        for (sidecar, containers, expected) in [
            ("wait", "wait", "Pending"),
            ("run", "run", "Running"),
            ("run", "0", "Succeeded"),
            ("143", "0", "Succeeded"),
            ("143", "1", "Failed"),
        ] {
            let mut observed = observed(RestartPolicy::Never, sidecar, containers);
            observed.init[0].is_sidecar = true;
            assert_eq!(phase(&observed), expected, "{sidecar} | {containers}");
        }
    }

    #[test]
    fn a_pod_that_is_stopped_ends_whatever_its_policy() {
        let mut stopped = observed(RestartPolicy::Always, "", "143");
        stopped.is_stopping = true;
        assert_eq!(phase(&stopped), "Failed");
        let mut waiting = observed(RestartPolicy::Never, "", "wait");
        waiting.is_stopping = true;
        assert_eq!(phase(&waiting), "Failed");
        let mut early = observed(RestartPolicy::Never, "", "wait");
        early.ended = Some(("DeadlineExceeded".to_owned(), "before it began".to_owned()));
        let found = status(&early, None, Timestamp::UNIX_EPOCH);
        assert_eq!(
            (found.phase.as_deref(), found.reason.as_deref()),
            (Some("Failed"), Some("DeadlineExceeded"))
        );
        let mut late = observed(RestartPolicy::Never, "", "0");
        late.ended = Some(("DeadlineExceeded".to_owned(), "too long".to_owned()));
        assert_eq!(phase(&late), "Failed");
        let status = status(&late, None, Timestamp::UNIX_EPOCH);
        assert_eq!(status.reason.as_deref(), Some("DeadlineExceeded"));
    }

    #[test]
    fn a_condition_keeps_its_time_until_it_changes() {
        let (first, second) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(9).unwrap());
        let before = status(&observed(RestartPolicy::Never, "", "wait"), None, first);
        let after = status(&observed(RestartPolicy::Never, "", "run"), Some(&before), second);
        let times: Vec<(String, Timestamp)> = after
            .conditions
            .unwrap()
            .into_iter()
            .map(|condition| (condition.type_, condition.last_transition_time.unwrap().0))
            .collect();
        let expected = [
            ("PodScheduled", first),
            ("Initialized", first),
            ("ContainersReady", second),
            ("Ready", second),
        ];
        assert_eq!(times, expected.map(|(kind, time)| (kind.to_owned(), time)));
    }
}
