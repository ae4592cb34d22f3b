//! What to do about a Job. Pure.
//!
//! | a Pod is | then |
//! | --- | --- |
//! | succeeded, and has the finalizer | its uid (or its index) is put into the status, then the finalizer goes |
//! | failed, or deleted before its end | the same, unless the policy ignores it, or its index waits for a successor |
//! | counted by uid, and without finalizer | its uid becomes one more in `succeeded` or `failed` |
//!
//! A verdict is written (`SuccessCriteriaMet`, `FailureTarget`) before the Pods that are left go, and becomes
//! `Complete` or `Failed` when nothing runs and everything is counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::api::{
    batch::v1::{Job, JobSpec, JobStatus, UncountedTerminatedPods},
    core::v1::Pod,
};
use kube::ResourceExt as _;

use super::{
    CONTROLLER, backoff,
    indexes::Indexes,
    is_tracked,
    observe::Observed,
    policy::{self, Failure},
    status, worker,
};
use crate::{event::Note, pods};

/// The most Pods that are made, deleted or counted in one round.
const MOST: usize = 500;

/// What to do about a Job, in this order.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Its new status.
    pub(crate) status: Option<JobStatus>,
    pub(crate) notes: Vec<Note>,
    /// Pods that lose their finalizer: the status counts them, or they do not count.
    pub(crate) release: Vec<Arc<Pod>>,
    /// Pods that lose their finalizer and are deleted: they never count.
    pub(crate) discard: Vec<Arc<Pod>>,
    /// Pods that are deleted and will be counted.
    pub(crate) delete: Vec<Arc<Pod>>,
    pub(crate) create: Vec<Pod>,
    /// It has been over for as long as it was to stay.
    pub(crate) is_expired: bool,
    /// When to look again if nothing changes.
    pub(crate) wake: Option<Timestamp>,
}

impl Plan {
    fn wake_at(&mut self, time: Timestamp) {
        self.wake = Some(self.wake.map_or(time, |other| other.min(time)));
    }
}

pub(crate) fn plan(observed: &Observed, now: Timestamp) -> Plan {
    let job = &*observed.job;
    let Some(spec) = &job.spec else {
        return Plan::default();
    };
    if spec.managed_by.as_deref().is_some_and(|by| by != CONTROLLER) {
        return Plan::default();
    }
    let tracked = || {
        observed
            .pods
            .iter()
            .filter(|pod| is_tracked(pod))
            .cloned()
            .collect()
    };
    if job.metadata.deletion_timestamp.is_some() {
        return Plan {
            release: tracked(),
            ..Plan::default()
        };
    }
    if let Some(over) = status::over(job) {
        let since = over.last_transition_time.as_ref().map_or(now, |time| time.0);
        let stays = spec.ttl_seconds_after_finished;
        let expires = stays.map(|seconds| pods::later(since, i64::from(seconds)));
        return Plan {
            release: tracked(),
            is_expired: expires.is_some_and(|time| time <= now),
            wake: expires.filter(|time| *time > now),
            ..Plan::default()
        };
    }
    Round::new(job, spec, &observed.pods, now).plan()
}

/// How the Job ends.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Verdict {
    has_failed: bool,
    reason: String,
    message: String,
}

impl Verdict {
    fn failed(reason: &str, message: impl Into<String>) -> Self {
        Self {
            has_failed: true,
            reason: reason.to_owned(),
            message: message.into(),
        }
    }

    fn succeeded(reason: &str, message: impl Into<String>) -> Self {
        Self {
            has_failed: false,
            ..Self::failed(reason, message)
        }
    }
}

/// One look at a Job that is not over.
struct Round<'a> {
    job: &'a Job,
    spec: &'a JobSpec,
    pods: &'a [Arc<Pod>],
    now: Timestamp,
    /// The status as it will be.
    status: JobStatus,
    /// Uids that the status counts until their Pods have lost their finalizers.
    succeeded_uids: BTreeSet<String>,
    failed_uids: BTreeSet<String>,
    /// Of a Job with indexes: those that have succeeded and those that have failed.
    succeeded: Indexes,
    failed: Indexes,
    plan: Plan,
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

fn count<T>(items: &[T]) -> i32 {
    i32::try_from(items.len()).unwrap_or(i32::MAX)
}

/// Zero is left out, as in Kubernetes.
fn some(number: i32) -> Option<i32> {
    (number != 0).then_some(number)
}

impl<'a> Round<'a> {
    fn new(job: &'a Job, spec: &'a JobSpec, pods: &'a [Arc<Pod>], now: Timestamp) -> Self {
        let status = job.status.clone().unwrap_or_default();
        let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
        let mut round = Self {
            job,
            spec,
            pods,
            now,
            succeeded_uids: uncounted.succeeded.into_iter().flatten().collect(),
            failed_uids: uncounted.failed.into_iter().flatten().collect(),
            succeeded: Indexes::default(),
            failed: Indexes::default(),
            status,
            plan: Plan::default(),
        };
        round.settle();
        round.read_indexes();
        round
    }

    fn plan(mut self) -> Plan {
        if self.status.start_time.is_none() && !self.is_suspended() {
            self.status.start_time = Some(pods::time(self.now));
        }
        let verdict = self.written_verdict().or_else(|| self.verdict());
        match &verdict {
            Some(verdict) => {
                let kind = if verdict.has_failed {
                    "FailureTarget"
                } else {
                    "SuccessCriteriaMet"
                };
                status::set(
                    &mut self.status,
                    kind,
                    true,
                    &verdict.reason,
                    &verdict.message,
                    self.now,
                );
                self.plan.delete = self.active();
                self.plan.delete.truncate(MOST);
            }
            None => self.manage(),
        }
        self.count_ended(verdict.as_ref());
        self.write_numbers();
        if let Some(verdict) = verdict {
            self.finish(&verdict);
        }
        let Self {
            job,
            status,
            mut plan,
            ..
        } = self;
        plan.status = (job.status.as_ref() != Some(&status)).then_some(status);
        plan
    }

    fn is_suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    fn is_indexed(&self) -> bool {
        self.spec.completion_mode.as_deref() == Some("Indexed")
    }

    fn completions(&self) -> i32 {
        self.spec.completions.unwrap_or(1)
    }

    fn limit_per_index(&self) -> Option<i32> {
        self.spec.backoff_limit_per_index.filter(|_| self.is_indexed())
    }

    /// Whether a Pod that is being deleted is replaced only when it has ended.
    fn waits_for_end(&self) -> bool {
        match self.spec.pod_replacement_policy.as_deref() {
            Some(policy) => policy == "Failed",
            None => self.spec.pod_failure_policy.is_some(),
        }
    }

    fn counts_as_failed(&self, pod: &Pod) -> bool {
        pods::has_failed(pod) || (pods::is_leaving(pod) && !self.waits_for_end() && !pods::has_succeeded(pod))
    }

    fn is_uncounted(&self, pod: &Pod) -> bool {
        self.succeeded_uids.contains(uid(pod)) || self.failed_uids.contains(uid(pod))
    }

    /// The Pod's index, when the Job has it.
    fn index(&self, pod: &Pod) -> Option<i32> {
        worker::index(pod).filter(|index| *index < self.completions())
    }

    /// Whether a Pod can count at all: one of an index that the Job does not have cannot.
    fn is_valid(&self, pod: &Pod) -> bool {
        !self.is_indexed() || self.index(pod).is_some()
    }

    /// Pods that are yet to be counted.
    fn fresh(&self) -> impl Iterator<Item = &'a Pod> {
        let fresh = |pod: &&Arc<Pod>| is_tracked(pod) && !self.is_uncounted(pod) && self.is_valid(pod);
        self.pods.iter().filter(fresh).map(|pod| &**pod)
    }

    fn active(&self) -> Vec<Arc<Pod>> {
        self.pods
            .iter()
            .filter(|pod| pods::is_active(pod))
            .cloned()
            .collect()
    }

    fn terminating(&self) -> i32 {
        let leaving = |pod: &&Arc<Pod>| pods::is_leaving(pod) && !pods::has_ended(pod);
        count(&self.pods.iter().filter(leaving).collect::<Vec<_>>())
    }

    /// Counts for good those whose finalizer is off.
    fn settle(&mut self) {
        let held: BTreeSet<&str> = self
            .pods
            .iter()
            .filter(|pod| is_tracked(pod))
            .map(|pod| uid(pod))
            .collect();
        let is_held = |uid: &String| held.contains(uid.as_str());
        let before = (self.succeeded_uids.len(), self.failed_uids.len());
        self.succeeded_uids.retain(is_held);
        self.failed_uids.retain(is_held);
        let more = |before: usize, now: usize| i32::try_from(before - now).unwrap_or(i32::MAX);
        let succeeded = self.status.succeeded.unwrap_or(0) + more(before.0, self.succeeded_uids.len());
        let failed = self.status.failed.unwrap_or(0) + more(before.1, self.failed_uids.len());
        (self.status.succeeded, self.status.failed) = (some(succeeded), some(failed));
    }

    fn read_indexes(&mut self) {
        if !self.is_indexed() {
            return;
        }
        let parse =
            |text: &Option<String>| Indexes::parse(text.as_deref().unwrap_or_default(), self.completions());
        let mut succeeded = parse(&self.status.completed_indexes);
        let mut failed = parse(&self.status.failed_indexes);
        let ended = self.fresh().filter(|pod| pods::has_succeeded(pod));
        succeeded.extend(&ended.filter_map(|pod| self.index(pod)).collect());
        if let Some(limit) = self.limit_per_index() {
            let fails = |pod: &&Arc<Pod>| {
                is_tracked(pod)
                    && self.counts_as_failed(pod)
                    && match policy::failure(self.spec, pod) {
                        Failure::FailsIndex => true,
                        _ => self.failures_with(pod).0 > limit,
                    }
            };
            let ended = self.pods.iter().filter(fails);
            failed.extend(&ended.filter_map(|pod| self.index(pod)).collect());
        }
        (self.succeeded, self.failed) = (succeeded, failed);
    }

    /// Failures of the Pod's index, its own among them: those that count, and those that do not.
    fn failures_with(&self, pod: &Pod) -> (i32, i32) {
        let (counted, ignored) = worker::failures(pod);
        match policy::failure(self.spec, pod) {
            Failure::Ignored => (counted, ignored + 1),
            _ => (counted + 1, ignored),
        }
    }

    fn succeeded(&self) -> i32 {
        if self.is_indexed() {
            return self.succeeded.count();
        }
        let fresh = self.fresh().filter(|pod| pods::has_succeeded(pod)).count();
        let fresh = i32::try_from(fresh + self.succeeded_uids.len()).unwrap_or(i32::MAX);
        self.status.succeeded.unwrap_or(0).saturating_add(fresh)
    }

    fn failed(&self) -> i32 {
        let counts =
            |pod: &&Pod| self.counts_as_failed(pod) && policy::failure(self.spec, pod) != Failure::Ignored;
        let fresh = self.fresh().filter(counts).count();
        let fresh = i32::try_from(fresh + self.failed_uids.len()).unwrap_or(i32::MAX);
        self.status.failed.unwrap_or(0).saturating_add(fresh)
    }

    /// The verdict that an earlier round wrote.
    fn written_verdict(&self) -> Option<Verdict> {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        if let Some(met) = status::holds(&self.status, "SuccessCriteriaMet") {
            return Some(Verdict::succeeded(&text(&met.reason), text(&met.message)));
        }
        let target = status::holds(&self.status, "FailureTarget")?;
        Some(Verdict::failed(&text(&target.reason), text(&target.message)))
    }

    fn verdict(&mut self) -> Option<Verdict> {
        for pod in self.pods.iter().filter(|pod| self.counts_as_failed(pod)) {
            if let Failure::FailsJob(why) = policy::failure(self.spec, pod) {
                return Some(Verdict::failed("PodFailurePolicy", why));
            }
        }
        let unlimited = self.limit_per_index().is_some();
        let default = if unlimited { i32::MAX } else { 6 };
        let limit = self.spec.backoff_limit.unwrap_or(default);
        if self.failed() > limit || self.restarts_exceed(limit) {
            let why = "Job has reached the specified backoff limit";
            return Some(Verdict::failed("BackoffLimitExceeded", why));
        }
        if let (Some(seconds), Some(start), false) = (
            self.spec.active_deadline_seconds,
            &self.status.start_time,
            self.is_suspended(),
        ) {
            let deadline = pods::later(start.0, seconds);
            if deadline <= self.now {
                let why = "Job was active longer than specified deadline";
                return Some(Verdict::failed("DeadlineExceeded", why));
            }
            self.plan.wake_at(deadline);
        }
        if self.is_indexed() {
            if self
                .spec
                .max_failed_indexes
                .is_some_and(|most| self.failed.count() > most)
            {
                let why = "Job has exceeded the specified maximal number of failed indexes";
                return Some(Verdict::failed("MaxFailedIndexesExceeded", why));
            }
            if !self.failed.is_empty()
                && self.failed.count().saturating_add(self.succeeded.count()) >= self.completions()
            {
                return Some(Verdict::failed("FailedIndexes", "Job has failed indexes"));
            }
            if let Some(why) = policy::success(self.spec, &self.succeeded, self.completions()) {
                return Some(Verdict::succeeded("SuccessPolicy", why));
            }
        }
        let is_enough = match self.spec.completions {
            Some(completions) => self.succeeded() >= completions,
            // Any Pod that succeeds says that the work is done; the others end by themselves.
            None => self.succeeded() > 0,
        };
        (is_enough && self.active().is_empty())
            .then(|| Verdict::succeeded("CompletionsReached", "Reached expected number of succeeded pods"))
    }

    /// Whether containers that are started again in their Pods have failed too often.
    fn restarts_exceed(&self, limit: i32) -> bool {
        let template = self.spec.template.spec.as_ref();
        if template.and_then(|spec| spec.restart_policy.as_deref()) != Some("OnFailure") {
            return false;
        }
        let running = self
            .pods
            .iter()
            .filter(|pod| matches!(pods::phase(pod), "Running" | "Pending"));
        let restarts: i32 = running.map(|pod| pods::restarts(pod)).sum();
        if limit == 0 {
            restarts > 0
        } else {
            restarts >= limit
        }
    }

    /// Makes the Pods that are missing and removes those that are too many.
    fn manage(&mut self) {
        let active = self.active();
        if self.is_suspended() {
            self.plan.discard = active.into_iter().take(MOST).collect();
            if status::set(
                &mut self.status,
                "Suspended",
                true,
                "JobSuspended",
                "Job suspended",
                self.now,
            ) {
                self.plan.notes.push(Note::normal("Suspended", "Job suspended"));
            }
            return;
        }
        if status::set(
            &mut self.status,
            "Suspended",
            false,
            "JobResumed",
            "Job resumed",
            self.now,
        ) {
            self.plan.notes.push(Note::normal("Resumed", "Job resumed"));
            self.status.start_time = Some(pods::time(self.now));
        }
        let parallelism = self.spec.parallelism.unwrap_or(1);
        let wanted = match self.spec.completions {
            Some(completions) => (completions - self.succeeded()).min(parallelism).max(0),
            None if self.succeeded() > 0 => count(&active),
            None => parallelism,
        };
        self.plan.discard = self.superfluous(&active, wanted);
        if !self.plan.discard.is_empty() {
            return;
        }
        let leaving = if self.waits_for_end() {
            self.terminating()
        } else {
            0
        };
        let missing = usize::try_from(wanted - leaving - count(&active))
            .unwrap_or(0)
            .min(MOST);
        if missing == 0 {
            return;
        }
        if self.limit_per_index().is_none() {
            let succeeded = self
                .pods
                .iter()
                .filter(|pod| pods::has_succeeded(pod))
                .map(|pod| &**pod);
            let counts = |pod: &&Arc<Pod>| {
                self.counts_as_failed(pod)
                    && (!pods::is_leaving(pod) || is_tracked(pod) || self.is_uncounted(pod))
            };
            let failed = self.pods.iter().filter(counts).map(|pod| &**pod);
            if let Some(next) = backoff::next(succeeded, failed).filter(|next| *next > self.now) {
                return self.plan.wake_at(next);
            }
        }
        let purposes = self.purposes(&active, missing);
        self.create(&purposes);
    }

    /// Active Pods of indexes that have one already or that the Job does not have, and more if that leaves too many.
    fn superfluous(&self, active: &[Arc<Pod>], wanted: i32) -> Vec<Arc<Pod>> {
        let excess = usize::try_from(count(active) - wanted).unwrap_or(0);
        let mut ordered: Vec<&Arc<Pod>> = active.iter().collect();
        ordered.sort_by_cached_key(|pod| pods::removal_rank(pod, 0));
        let mut remove: Vec<Arc<Pod>> = Vec::new();
        if self.is_indexed() {
            let mut taken = BTreeSet::new();
            // The one that is last to be removed keeps its index.
            let mut keep = Vec::new();
            for pod in ordered.into_iter().rev() {
                match self.index(pod) {
                    Some(index) if taken.insert(index) => keep.push(pod),
                    _ => remove.push(Arc::clone(pod)),
                }
            }
            keep.reverse();
            ordered = keep;
        }
        let more = excess.saturating_sub(remove.len());
        remove.extend(ordered.into_iter().take(more).cloned());
        remove.truncate(MOST);
        remove
    }

    /// The failed Pod of each index that waits for its successor: it keeps its finalizer, for it knows how often the
    /// index has failed.
    fn awaiting(&self) -> BTreeMap<i32, &'a Pod> {
        let mut awaiting: BTreeMap<i32, &'a Pod> = BTreeMap::new();
        if self.limit_per_index().is_none() {
            return awaiting;
        }
        let active: BTreeSet<i32> = self.active().iter().filter_map(|pod| self.index(pod)).collect();
        for pod in self.fresh().filter(|pod| self.counts_as_failed(pod)) {
            let Some(index) = self.index(pod) else { continue };
            if self.succeeded.has(index) || self.failed.has(index) || active.contains(&index) {
                continue;
            }
            let rank = |pod: &Pod| (worker::failures(pod), backoff::ended_at(pod));
            let known = awaiting.entry(index).or_insert(pod);
            if rank(pod) > rank(known) {
                *known = pod;
            }
        }
        awaiting
    }

    /// What the next Pods are made for.
    fn purposes(&mut self, active: &[Arc<Pod>], missing: usize) -> Vec<worker::Purpose> {
        if !self.is_indexed() {
            let one = worker::Purpose {
                index: None,
                failures: None,
            };
            return vec![one; missing];
        }
        let awaiting = self.awaiting();
        let waits_for_end = self.waits_for_end();
        let leaving = self
            .pods
            .iter()
            .filter(|pod| waits_for_end && pods::is_leaving(pod) && !pods::has_ended(pod));
        let taken: BTreeSet<i32> = active
            .iter()
            .chain(leaving)
            .filter_map(|pod| self.index(pod))
            .collect();
        let is_pending =
            |index: &i32| !self.succeeded.has(*index) && !self.failed.has(*index) && !taken.contains(index);
        let pending: Vec<i32> = (0..self.completions()).filter(is_pending).collect();
        let per_index = self.limit_per_index().is_some();
        let mut purposes = Vec::new();
        for index in pending {
            if purposes.len() == missing {
                break;
            }
            let failures = match awaiting.get(&index) {
                Some(failed) => {
                    let (counted, ignored) = self.failures_with(failed);
                    let next = backoff::after(counted.saturating_add(ignored), backoff::ended_at(failed));
                    if next > self.now {
                        self.plan.wake_at(next);
                        continue;
                    }
                    (counted, ignored)
                }
                None => (0, 0),
            };
            purposes.push(worker::Purpose {
                index: Some(index),
                failures: per_index.then_some(failures),
            });
        }
        purposes
    }

    fn create(&mut self, purposes: &[worker::Purpose]) {
        let taken: BTreeSet<String> = self.pods.iter().map(|pod| pod.name_any()).collect();
        // The first number that no Pod has: whoever plans again before a Pod is known means the same Pod.
        let mut next: BTreeMap<Option<i32>, i64> = BTreeMap::new();
        for purpose in purposes {
            let number = next.entry(purpose.index).or_default();
            let name = loop {
                let name = worker::name(self.job, &self.status, purpose.index, *number);
                *number += 1;
                if !taken.contains(&name) {
                    break name;
                }
            };
            self.plan.create.push(worker::worker(self.job, name, *purpose));
        }
    }

    /// Counts what has ended, and takes the finalizers off what is counted or need not be.
    fn count_ended(&mut self, verdict: Option<&Verdict>) {
        let has_failed = verdict.is_some_and(|verdict| verdict.has_failed);
        let awaiting: BTreeSet<&str> = match verdict {
            Some(_) => BTreeSet::new(),
            None => self.awaiting().into_values().map(uid).collect(),
        };
        let discarded: BTreeSet<&str> = self.plan.discard.iter().map(|pod| uid(pod)).collect();
        let (mut succeeded, mut failed, mut release) = (Vec::new(), Vec::new(), Vec::new());
        let room = MOST.saturating_sub(self.succeeded_uids.len() + self.failed_uids.len());
        for pod in self
            .pods
            .iter()
            .filter(|pod| is_tracked(pod) && !discarded.contains(uid(pod)))
        {
            if self.is_uncounted(pod) {
                release.push(Arc::clone(pod));
                continue;
            }
            if succeeded.len() + failed.len() >= room {
                break;
            }
            if pods::has_succeeded(pod) {
                if !self.is_indexed() {
                    succeeded.push(uid(pod).to_owned());
                }
            } else if self.counts_as_failed(pod) || (has_failed && pods::is_leaving(pod)) {
                if awaiting.contains(uid(pod)) {
                    continue;
                }
                if self.is_valid(pod) && policy::failure(self.spec, pod) != Failure::Ignored {
                    failed.push(uid(pod).to_owned());
                }
            } else if verdict.is_none() || !pods::is_leaving(pod) {
                continue;
            }
            release.push(Arc::clone(pod));
        }
        self.succeeded_uids.extend(succeeded);
        self.failed_uids.extend(failed);
        self.plan.release = release;
    }

    fn write_numbers(&mut self) {
        let active = self.active();
        let ready: Vec<_> = active.iter().filter(|pod| pods::is_ready(pod)).collect();
        self.status.active = some(count(&active));
        self.status.ready = Some(count(&ready));
        self.status.terminating = Some(self.terminating());
        if self.is_indexed() {
            self.status.succeeded = some(self.succeeded.count());
            self.status.completed_indexes = Some(self.succeeded.to_string()).filter(|text| !text.is_empty());
            self.status.failed_indexes = self.limit_per_index().map(|_| self.failed.to_string());
        }
        let listed = |uids: &BTreeSet<String>| {
            Some(uids.iter().cloned().collect::<Vec<_>>()).filter(|uids| !uids.is_empty())
        };
        self.status.uncounted_terminated_pods = Some(UncountedTerminatedPods {
            succeeded: listed(&self.succeeded_uids),
            failed: listed(&self.failed_uids),
        });
    }

    /// Ends the Job when nothing of it runs and everything is counted.
    fn finish(&mut self, verdict: &Verdict) {
        let is_counted = self.succeeded_uids.is_empty() && self.failed_uids.is_empty();
        if !is_counted || self.status.active.is_some() || self.terminating() > 0 {
            return;
        }
        let kind = if verdict.has_failed { "Failed" } else { "Complete" };
        status::set(
            &mut self.status,
            kind,
            true,
            &verdict.reason,
            &verdict.message,
            self.now,
        );
        if verdict.has_failed {
            self.plan
                .notes
                .push(Note::warning(&verdict.reason, verdict.message.as_str()));
        } else {
            self.status.completion_time = Some(pods::time(self.now));
            self.plan.notes.push(Note::normal("Completed", "Job completed"));
        }
    }
}
