//! What is to be looked at, and when. A thing is looked at by one at a time, and once more when it changed meanwhile.
//! It decides nothing about how long to wait, and has no clock.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::cache::Key;

/// Who looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Controller {
    Job,
    CronJob,
    ReplicaSet,
    Deployment,
    StatefulSet,
    Endpoints,
    Namespace,
    Volume,
    Quota,
    Budget,
    /// Pods that a Job which is gone left its finalizer on.
    OrphanPod,
}

/// Something to look at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Task {
    pub(crate) controller: Controller,
    pub(crate) key: Key,
}

/// How looking ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All is as it should be, until a change or this time.
    Settled(Option<Timestamp>),
    /// To be tried again then.
    Failed(Instant),
}

/// What is to be looked at.
#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    pub(crate) changed: Notify,
}

#[derive(Default)]
struct State {
    ready: VecDeque<Task>,
    waiting: HashSet<Task>,
    running: HashSet<Task>,
    wakes: Timers<Timestamp>,
    retries: Timers<Instant>,
    failures: HashMap<Task, u32>,
}

/// One time for each thing.
struct Timers<T> {
    by_time: BTreeSet<(T, Task)>,
    by_task: HashMap<Task, T>,
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self {
            by_time: BTreeSet::new(),
            by_task: HashMap::new(),
        }
    }
}

impl<T: Ord + Copy> Timers<T> {
    fn set(&mut self, task: &Task, time: Option<T>) {
        if let Some(old) = self.by_task.remove(task) {
            self.by_time.remove(&(old, task.clone()));
        }
        if let Some(time) = time {
            self.by_task.insert(task.clone(), time);
            self.by_time.insert((time, task.clone()));
        }
    }

    fn due(&mut self, now: T) -> Vec<Task> {
        let mut due = Vec::new();
        while let Some((time, task)) = self.by_time.first().cloned() {
            if time > now {
                break;
            }
            self.set(&task, None);
            due.push(task);
        }
        due
    }

    fn next(&self) -> Option<T> {
        self.by_time.first().map(|(time, _)| *time)
    }
}

impl State {
    fn add(&mut self, task: Task) {
        if self.waiting.insert(task.clone()) && !self.running.contains(&task) {
            self.ready.push_back(task);
        }
    }
}

impl Queue {
    /// Has it looked at soon.
    pub(crate) fn add(&self, task: Task) {
        self.state.lock().add(task);
        self.changed.notify_one();
    }

    pub(crate) fn has_ready(&self) -> bool {
        !self.state.lock().ready.is_empty()
    }

    /// What to look at now. Whoever takes it says [`Queue::done`].
    pub(crate) fn take(&self) -> Option<Task> {
        let mut state = self.state.lock();
        let task = state.ready.pop_front()?;
        state.waiting.remove(&task);
        state.retries.set(&task, None);
        state.running.insert(task.clone());
        Some(task)
    }

    pub(crate) fn done(&self, task: Task, outcome: Outcome) {
        let mut state = self.state.lock();
        state.running.remove(&task);
        match outcome {
            Outcome::Settled(wake) => {
                state.failures.remove(&task);
                state.wakes.set(&task, wake);
            }
            Outcome::Failed(retry) => {
                *state.failures.entry(task.clone()).or_default() += 1;
                state.retries.set(&task, Some(retry));
            }
        }
        if state.waiting.contains(&task) {
            state.ready.push_back(task);
        }
    }

    /// How often in a row looking failed.
    pub(crate) fn failures(&self, task: &Task) -> u32 {
        self.state.lock().failures.get(task).copied().unwrap_or(0)
    }

    /// Adds what is due, and returns when the next is.
    pub(crate) fn wake(&self, now: Timestamp) -> Option<Timestamp> {
        let mut state = self.state.lock();
        for task in state.wakes.due(now) {
            state.add(task);
        }
        state.wakes.next()
    }

    /// Adds what is to be tried again, and returns when the next is.
    pub(crate) fn retry(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state.lock();
        for task in state.retries.due(now) {
            state.add(task);
        }
        state.retries.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(name: &str) -> Task {
        Task {
            controller: Controller::Job,
            key: Key::new("ns", name),
        }
    }

    #[test]
    fn a_thing_is_looked_at_by_one_at_a_time_and_once_more_when_it_changed() {
        let queue = Queue::default();
        queue.add(task("a"));
        queue.add(task("a"));
        let taken = queue.take().expect("one");
        assert_eq!(queue.take(), None, "once for both");
        queue.add(task("a"));
        assert_eq!(queue.take(), None, "it is being looked at");
        queue.done(taken, Outcome::Settled(None));
        assert_eq!(queue.take(), Some(task("a")));
        assert_eq!(queue.take(), None);
    }

    #[test]
    fn the_last_wake_counts() {
        let queue = Queue::default();
        let at = |second| Timestamp::from_second(second).expect("in range");
        for wake in [Some(at(10)), Some(at(20))] {
            queue.add(task("a"));
            let taken = queue.take().expect("one");
            queue.done(taken, Outcome::Settled(wake));
        }
        assert_eq!(queue.wake(at(10)), Some(at(20)));
        assert_eq!(queue.take(), None);
        assert_eq!(queue.wake(at(20)), None);
        assert_eq!(queue.take(), Some(task("a")));
    }

    #[test]
    fn failures_are_counted_until_it_works() {
        let queue = Queue::default();
        let now = Instant::now();
        for failures in 1..3 {
            queue.add(task("a"));
            let taken = queue.take().expect("one");
            queue.done(taken, Outcome::Failed(now));
            assert_eq!(queue.failures(&task("a")), failures);
        }
        assert_eq!(queue.retry(now), None);
        let taken = queue.take().expect("one");
        queue.done(taken, Outcome::Settled(None));
        assert_eq!(queue.failures(&task("a")), 0);
    }
}
