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

use super::{context::ADDRESS, termination::Termination};

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
    /// It runs, and its startup probe, if it has one, succeeded.
    pub(crate) has_started: bool,
    /// It has started, and its readiness probe, if it has one, says that it is ready.
    pub(crate) is_ready: bool,
    /// The end before the last start.
    pub(crate) last: Option<Termination>,
}

impl Container {
    /// Whether it waits, for this reason.
    pub(crate) fn is_waiting_for(&self, wanted: &str) -> bool {
        matches!(&self.state, State::Waiting { reason, .. } if reason == wanted)
    }
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
    /// The Pod's.
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
    let unready = |container: &&Container| !(is_running(container) && container.is_ready);
    let sidecars = observed.init.iter().filter(|container| container.is_sidecar);
    let unready = names(sidecars.chain(&observed.containers).filter(unready));
    let all_ready = unready.is_empty();
    let over_reason = match phase {
        "Succeeded" => Some("PodCompleted"),
        "Failed" => Some("PodFailed"),
        _ => None,
    };
    let incomplete = names(observed.init.iter().filter(|container| {
        if container.is_sidecar {
            !is_over && !container.has_started && !has_ended(container)
        } else {
            !has_succeeded(container)
        }
    }));
    let ready = match (all_ready, over_reason) {
        (true, _) => Verdict::holds(),
        (false, Some(reason)) => Verdict::fails(reason, String::new()),
        (false, None) => Verdict::fails(
            "ContainersNotReady",
            format!("containers with unready status: [{}]", unready.join(" ")),
        ),
    };
    let initialized = match incomplete.as_slice() {
        [] if phase == "Succeeded" => Verdict {
            reason: "PodCompleted",
            ..Verdict::holds()
        },
        [] => Verdict::holds(),
        names => Verdict::fails(
            "ContainersNotInitialized",
            format!("containers with incomplete status: [{}]", names.join(" ")),
        ),
    };
    let mut all = observed.init.iter().chain(&observed.containers);
    let has_place = Verdict {
        holds: !is_over && all.any(|container| container.container_id.is_some()),
        ..Verdict::holds()
    };
    let conditions = [
        ("PodReadyToStartContainers", has_place),
        ("Initialized", initialized),
        ("Ready", ready.clone()),
        ("ContainersReady", ready),
        ("PodScheduled", Verdict::holds()),
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
                .map(|(kind, verdict)| condition(kind, verdict, previous, now))
                .collect(),
        ),
        container_statuses: Some(observed.containers.iter().map(container_status).collect()),
        init_container_statuses: (!observed.init.is_empty())
            .then(|| observed.init.iter().map(init_container_status).collect()),
        host_ip: Some(ADDRESS.to_owned()),
        host_ips: Some(vec![HostIP {
            ip: ADDRESS.to_owned(),
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

/// As kubelet's `getPhase`; and, as its `mergePodStatus` has it, nothing has ended while a container runs: a sidecar is
/// told to end when the others have, and may have last words.
fn phase(observed: &Observed) -> &'static str {
    match outcome(observed) {
        "Succeeded" | "Failed" if observed.init.iter().any(is_running) => {
            let has_begun = observed.containers.iter().any(has_ended);
            if has_begun { "Running" } else { "Pending" }
        }
        phase => phase,
    }
}

/// The phase without a look at what still runs before the containers.
fn outcome(observed: &Observed) -> &'static str {
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
        if is_ending && running == 0 {
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

fn has_ended(container: &Container) -> bool {
    matches!(container.state, State::Terminated(_))
}

fn names<'a>(containers: impl Iterator<Item = &'a Container>) -> Vec<&'a str> {
    containers.map(|container| container.name.as_str()).collect()
}

/// Whether a condition holds, and why not.
#[derive(Debug, Clone)]
struct Verdict {
    holds: bool,
    /// Empty for none.
    reason: &'static str,
    /// Empty for none.
    message: String,
}

impl Verdict {
    const fn holds() -> Self {
        Self {
            holds: true,
            reason: "",
            message: String::new(),
        }
    }

    const fn fails(reason: &'static str, message: String) -> Self {
        Self {
            holds: false,
            reason,
            message,
        }
    }
}

fn condition(kind: &str, verdict: Verdict, previous: Option<&PodStatus>, now: Timestamp) -> PodCondition {
    let status = if verdict.holds { "True" } else { "False" };
    let since = previous
        .and_then(|previous| previous.conditions.as_ref())
        .and_then(|conditions| conditions.iter().find(|condition| condition.type_ == kind))
        .filter(|condition| condition.status == status)
        .and_then(|condition| condition.last_transition_time.clone());
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: (!verdict.reason.is_empty()).then(|| verdict.reason.to_owned()),
        message: Some(verdict.message).filter(|message| !message.is_empty()),
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
        ready: is_running && container.is_ready,
        started: Some(is_running && container.has_started),
        restart_count: container.restarts,
        state: Some(state(container, &container.state)),
        last_state: container.last.as_ref().map(|end| terminated(container, end)),
        ..ContainerStatus::default()
    }
}

fn init_container_status(container: &Container) -> ContainerStatus {
    let status = container_status(container);
    if container.is_sidecar {
        return status;
    }
    ContainerStatus {
        ready: has_succeeded(container),
        ..status
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
            has_started: state == "run",
            is_ready: state == "run",
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
            .filter(|condition| condition.status == "True" && condition.type_ != "PodReadyToStartContainers")
            .map(|condition| condition.type_.as_str())
            .collect();
        let found = format!("{}: {}", status.phase.unwrap_or_default(), held.join(" "));
        assert_eq!(found, expected, "{init} | {containers}");
    }

    #[test]
    fn phases_and_conditions_are_those_of_kubelets() {
        use RestartPolicy::{Always, Never, OnFailure};
        let ready = "Initialized Ready ContainersReady PodScheduled";
        check(Never, "", "wait", "Pending: Initialized PodScheduled");
        check(Never, "", "run", &format!("Running: {ready}"));
        check(Never, "", "run run", &format!("Running: {ready}"));
        check(Never, "", "run 0", "Running: Initialized PodScheduled");
        check(Never, "", "run 1", "Running: Initialized PodScheduled");
        check(Never, "", "run wait", "Pending: Initialized PodScheduled");
        check(Never, "", "0", "Succeeded: Initialized PodScheduled");
        check(Never, "", "0 0", "Succeeded: Initialized PodScheduled");
        check(Never, "", "0 2", "Failed: Initialized PodScheduled");
        check(Never, "run", "wait", "Pending: PodScheduled");
        check(Never, "0 run", "wait", "Pending: PodScheduled");
        check(Never, "0", "wait", "Pending: Initialized PodScheduled");
        check(Never, "0", "run", &format!("Running: {ready}"));
        check(Never, "1", "wait", "Failed: PodScheduled");
        check(OnFailure, "1", "wait", "Pending: PodScheduled");
        check(OnFailure, "", "1", "Running: Initialized PodScheduled");
        check(OnFailure, "", "wait<1", "Running: Initialized PodScheduled");
        check(OnFailure, "", "0", "Succeeded: Initialized PodScheduled");
        check(Always, "", "0", "Running: Initialized PodScheduled");
    }

    #[test]
    fn a_container_that_is_not_ready_keeps_its_pod_from_being_ready() {
        let mut unready = observed(RestartPolicy::Always, "run", "run run");
        unready.init[0].is_sidecar = true;
        unready.containers[1].is_ready = false;
        unready.containers[1].name = "slow".to_owned();
        let found = status(&unready, None, Timestamp::UNIX_EPOCH);
        let of = |kind: &str| {
            let all = found.conditions.iter().flatten();
            all.clone()
                .find(|condition| condition.type_ == kind)
                .cloned()
                .unwrap()
        };
        assert_eq!(found.phase.as_deref(), Some("Running"));
        assert_eq!(of("Initialized").status, "True");
        assert_eq!(of("Ready").status, "False");
        assert_eq!(of("Ready").reason.as_deref(), Some("ContainersNotReady"));
        assert_eq!(
            of("ContainersReady").message.as_deref(),
            Some("containers with unready status: [slow]")
        );
        unready.init[0].has_started = false;
        let found = status(&unready, None, Timestamp::UNIX_EPOCH);
        let initialized = &found.conditions.unwrap()[1];
        assert_eq!(
            initialized.message.as_deref(),
            Some("containers with incomplete status: [c]")
        );
    }

    #[test]
    fn a_sidecars_end_is_awaited_and_says_nothing() {
        for (sidecar, containers, expected) in [
            ("wait", "wait", "Pending"),
            ("run", "run", "Running"),
            ("run", "0", "Running"),
            ("run", "1", "Running"),
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
            ("PodReadyToStartContainers", first),
            ("Initialized", first),
            ("Ready", second),
            ("ContainersReady", second),
            ("PodScheduled", first),
        ];
        assert_eq!(times, expected.map(|(kind, time)| (kind.to_owned(), time)));
    }
}
