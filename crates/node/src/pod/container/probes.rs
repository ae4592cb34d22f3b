//! Probes of one run of a container, each on its own clock: first whether it has started, then whether it lives and is
//! ready. What they find goes to whoever follows the run; a run that ends takes its probes along.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Container as Wanted, Probe};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

use super::action::{Action, Inside};

/// What probes found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// It has started, as its startup probe says.
    Started,
    /// Its readiness probe has another opinion now.
    Ready(bool),
    /// A probe failed, which is worth telling; its name and what went wrong.
    Unhealthy(Name, String),
    /// It is to be ended and started again: by which probe, and with how much grace if not the Pod's.
    Dead(Name, Option<Duration>),
}

/// Which probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Startup,
    Liveness,
    Readiness,
}

impl Name {
    /// As kubelets write it in events.
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// How often a probe is tried, and how often it must agree with itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rhythm {
    delay: Duration,
    period: Duration,
    timeout: Duration,
    successes: u32,
    failures: u32,
}

impl Rhythm {
    fn of(probe: &Probe) -> Self {
        let number = |number: Option<i32>, absent: u32| {
            let given = number.and_then(|number| u32::try_from(number).ok());
            given.filter(|number| *number > 0).unwrap_or(absent)
        };
        let seconds = |given, absent| Duration::from_secs(number(given, absent).into());
        Self {
            delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            timeout: seconds(probe.timeout_seconds, 1),
            successes: number(probe.success_threshold, 1),
            failures: number(probe.failure_threshold, 3),
        }
    }
}

/// The results of a probe in a row.
#[derive(Debug, Clone, Copy)]
struct Tally {
    rhythm: Rhythm,
    /// How often the last result came in a row, and which it is.
    row: (bool, u32),
    /// What holds now.
    verdict: Option<bool>,
}

impl Tally {
    const fn new(rhythm: Rhythm) -> Self {
        Self {
            rhythm,
            row: (true, 0),
            verdict: None,
        }
    }

    /// Takes a result; says the verdict when it is another one.
    fn count(&mut self, is_success: bool) -> Option<bool> {
        self.row = match self.row {
            (last, times) if last == is_success => (last, times.saturating_add(1)),
            _ => (is_success, 1),
        };
        let needed = if is_success {
            self.rhythm.successes
        } else {
            self.rhythm.failures
        };
        if self.row.1 < needed || self.verdict == Some(is_success) {
            return None;
        }
        self.verdict = Some(is_success);
        self.verdict
    }
}

/// The probes of a run at work. They end when this is dropped.
#[derive(Debug)]
pub(super) struct Probes {
    found: mpsc::Receiver<Finding>,
    _work: JoinSet<()>,
}

impl Probes {
    /// Begins to probe a container that runs. Without a probe it has started, and it is ready once it has.
    pub(super) fn begin(wanted: &Wanted, inside: &Arc<Inside>) -> Self {
        let (tell, found) = mpsc::channel(8);
        let mut work = JoinSet::new();
        let [startup, liveness, readiness] = [
            (Name::Startup, &wanted.startup_probe),
            (Name::Liveness, &wanted.liveness_probe),
            (Name::Readiness, &wanted.readiness_probe),
        ]
        .map(|(name, probe)| probe.clone().map(|probe| Watch::new(name, probe, inside, &tell)));
        work.spawn(async move {
            if let Some(startup) = startup
                && !startup.until_success().await
            {
                return;
            }
            let is_ready_at_once = readiness.is_none();
            let _ = tell.send(Finding::Started).await;
            if is_ready_at_once {
                let _ = tell.send(Finding::Ready(true)).await;
            }
            let watch = |watch: Option<Watch>| -> BoxFuture<'static, ()> {
                match watch {
                    Some(watch) => Box::pin(watch.for_ever()),
                    None => Box::pin(std::future::pending()),
                }
            };
            futures::future::join(watch(liveness), watch(readiness)).await;
        });
        Self { found, _work: work }
    }

    /// The next finding. There is always one more, or this waits.
    pub(super) async fn next(&mut self) -> Finding {
        match self.found.recv().await {
            Some(finding) => finding,
            None => std::future::pending().await,
        }
    }
}

/// One probe of one container.
struct Watch {
    name: Name,
    action: Result<Action, String>,
    rhythm: Rhythm,
    grace: Option<Duration>,
    inside: Arc<Inside>,
    tell: mpsc::Sender<Finding>,
}

impl Watch {
    fn new(name: Name, probe: Probe, inside: &Arc<Inside>, tell: &mpsc::Sender<Finding>) -> Self {
        let rhythm = Rhythm::of(&probe);
        let grace = probe
            .termination_grace_period_seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map(Duration::from_secs);
        Self {
            name,
            rhythm,
            grace,
            action: Action::of_probe(probe),
            inside: Arc::clone(inside),
            tell: tell.clone(),
        }
    }

    async fn try_once(&self) -> Result<(), String> {
        let action = self.action.as_ref().map_err(Clone::clone)?;
        let tried = tokio::time::timeout(self.rhythm.timeout, action.perform(&self.inside)).await;
        tried.unwrap_or_else(|_| Err(format!("no answer within {} s", self.rhythm.timeout.as_secs())))
    }

    /// Tries until the verdict is another one.
    async fn turn(&self, tally: &mut Tally, clock: &mut tokio::time::Interval) -> bool {
        loop {
            clock.tick().await;
            let result = self.try_once().await;
            let verdict = tally.count(result.is_ok());
            // Once for a row of failures: the same again is no news.
            if let Err(message) = result
                && (tally.row.1 == 1 || verdict.is_some())
            {
                let _ = self.tell.send(Finding::Unhealthy(self.name, message)).await;
            }
            if let Some(verdict) = verdict {
                return verdict;
            }
        }
    }

    fn clock(&self) -> tokio::time::Interval {
        let mut clock = tokio::time::interval_at(Instant::now() + self.rhythm.delay, self.rhythm.period);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        clock
    }

    /// Whether the container got to start.
    async fn until_success(self) -> bool {
        let has_started = self.turn(&mut Tally::new(self.rhythm), &mut self.clock()).await;
        if !has_started {
            let _ = self.tell.send(Finding::Dead(self.name, self.grace)).await;
        }
        has_started
    }

    async fn for_ever(self) {
        let (mut tally, mut clock) = (Tally::new(self.rhythm), self.clock());
        loop {
            let verdict = self.turn(&mut tally, &mut clock).await;
            let finding = match (self.name, verdict) {
                (Name::Readiness, is_ready) => Finding::Ready(is_ready),
                (_, true) => continue,
                (name, false) => Finding::Dead(name, self.grace),
            };
            let is_dead = matches!(finding, Finding::Dead(..));
            if self.tell.send(finding).await.is_err() || is_dead {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(probe: &Probe, results: &str) -> Vec<Option<bool>> {
        let mut tally = Tally::new(Rhythm::of(probe));
        results.chars().map(|result| tally.count(result == '+')).collect()
    }

    #[test]
    fn a_verdict_takes_as_many_results_in_a_row_as_it_says() {
        let probe = Probe {
            success_threshold: Some(2),
            ..Probe::default()
        };
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(verdicts(&probe, "++"), [None, yes]);
        assert_eq!(
            verdicts(&probe, "--+---"),
            [None, None, None, None, None, no],
            "a success in between begins the row anew"
        );
        assert_eq!(
            verdicts(&probe, "++++---+++"),
            [None, yes, None, None, None, None, no, None, yes, None]
        );
        assert_eq!(verdicts(&Probe::default(), "+-+"), [yes, None, None]);
    }

    #[test]
    fn what_a_probe_leaves_out_is_what_kubernetes_says() {
        let seconds = Duration::from_secs;
        let rhythm = Rhythm::of(&Probe {
            initial_delay_seconds: Some(3),
            period_seconds: Some(0),
            ..Probe::default()
        });
        let expected = Rhythm {
            delay: seconds(3),
            period: seconds(10),
            timeout: seconds(1),
            successes: 1,
            failures: 3,
        };
        assert_eq!(rhythm, expected);
    }
}
