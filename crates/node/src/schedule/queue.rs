//! Pods that wait for a place, the oldest first, and what those that run hold.
//!
//! No Pod starves: what an older Pod waits for is kept for it, so a younger one starts before it only with what
//! the older one has no use for. Memory: a waiting Pod is its key and its amounts, not its object.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;

use super::fit::{self, Amounts, Holder, PODS, Refusal, State};

/// How many waiting Pods are told why they wait. Further ones wait behind these.
const TOLD: usize = 256;
/// How many of those are told again when the numbers change: telling is a write.
const TOLD_AGAIN: usize = 4;

/// A Pod, by its object's identity.
pub(crate) type Uid = String;

/// A Pod that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) uid: Uid,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) wanted: Amounts,
    /// What its condition says already.
    pub(crate) told: Option<Refusal>,
}

impl Waiting {
    fn holder(&self) -> Holder {
        Holder {
            name: format!("{}/{}", self.namespace, self.name),
            amounts: self.wanted.clone(),
        }
    }
}

/// What one look over the queue decides.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// To bind to this machine. They hold what they want from now on.
    pub(crate) bind: Vec<Waiting>,
    /// To tell why they wait.
    pub(crate) tell: Vec<(Waiting, Refusal)>,
}

/// Who waits and who holds.
#[derive(Debug)]
pub(crate) struct Queue {
    capacity: Amounts,
    free: Amounts,
    held: HashMap<Uid, Holder>,
    /// By age; the second number tells Pods of one second apart, in the order they were seen.
    waiting: BTreeMap<(Timestamp, u64), Waiting>,
    places: HashMap<Uid, (Timestamp, u64)>,
    /// Pods that could never run here, and those of them that are not told yet.
    hopeless: HashSet<Uid>,
    untold: Vec<(Waiting, Refusal)>,
    seen: u64,
}

impl Queue {
    pub(crate) fn new(capacity: Amounts) -> Self {
        Self {
            free: capacity.clone(),
            capacity,
            held: HashMap::new(),
            waiting: BTreeMap::new(),
            places: HashMap::new(),
            hopeless: HashSet::new(),
            untold: Vec::new(),
            seen: 0,
        }
    }

    /// A Pod that is bound to no machine yet.
    pub(crate) fn wait(&mut self, pod: Waiting, created: Timestamp) {
        let is_known = self.places.contains_key(&pod.uid) || self.hopeless.contains(&pod.uid);
        if is_known || self.held.contains_key(&pod.uid) {
            return;
        }
        if let Some(refusal) = fit::never(&pod.wanted, &self.capacity) {
            self.hopeless.insert(pod.uid.clone());
            self.untold.push((pod, refusal));
            return;
        }
        self.seen += 1;
        let place = (created, self.seen);
        self.places.insert(pod.uid.clone(), place);
        self.waiting.insert(place, pod);
    }

    /// A Pod that wants another machine.
    pub(crate) fn refuse(&mut self, pod: Waiting, refusal: Refusal) {
        if !self.held.contains_key(&pod.uid) && self.hopeless.insert(pod.uid.clone()) {
            self.untold.push((pod, refusal));
        }
    }

    /// A Pod that is bound to this machine and not over. Nothing changes if that is known.
    pub(crate) fn hold(&mut self, uid: &str, holder: Holder) {
        self.leave(uid);
        if !self.held.contains_key(uid) {
            self.free.subtract(&holder.amounts);
            self.held.insert(uid.to_owned(), holder);
        }
    }

    /// A Pod that is over, or gone. `true` if that freed something or somebody.
    pub(crate) fn release(&mut self, uid: &str) -> bool {
        let waited = self.leave(uid);
        let Some(holder) = self.held.remove(uid) else {
            return waited;
        };
        self.free.add(&holder.amounts);
        true
    }

    fn leave(&mut self, uid: &str) -> bool {
        self.hopeless.remove(uid);
        let place = self.places.remove(uid);
        place.and_then(|place| self.waiting.remove(&place)).is_some()
    }

    /// Every Pod that is known.
    pub(crate) fn uids(&self) -> impl Iterator<Item = &Uid> {
        self.places.keys().chain(self.held.keys()).chain(&self.hopeless)
    }

    /// Looks over the queue: binds what fits, and says what is new about the rest.
    pub(crate) fn plan(&mut self) -> Plan {
        let mut plan = Plan {
            bind: Vec::new(),
            tell: std::mem::take(&mut self.untold),
        };
        let mut spare = self.free.clone();
        let mut ahead: Vec<Holder> = Vec::new();
        let mut bound = Vec::new();
        for (place, pod) in &mut self.waiting {
            if pod.wanted.fit(&spare) {
                spare.subtract(&pod.wanted);
                self.free.subtract(&pod.wanted);
                self.held.insert(pod.uid.clone(), pod.holder());
                bound.push(*place);
                continue;
            }
            if ahead.len() < TOLD_AGAIN || (ahead.len() < TOLD && pod.told.is_none()) {
                let state = State {
                    capacity: &self.capacity,
                    free: &self.free,
                    spare: &spare,
                };
                let refusal = fit::not_now(&pod.wanted, state, self.held.values(), &ahead);
                if pod.told.as_ref() != Some(&refusal) {
                    pod.told = Some(refusal.clone());
                    plan.tell.push((pod.clone(), refusal));
                }
            }
            spare.subtract(&pod.wanted);
            ahead.push(pod.holder());
            if ahead.len() >= TOLD && spare.get(PODS).milli() <= 0 {
                // Everything further behind waits too.
                break;
            }
        }
        for place in bound {
            if let Some(pod) = self.waiting.remove(&place) {
                self.places.remove(&pod.uid);
                plan.bind.push(pod);
            }
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amounts(cpu: &str) -> Amounts {
        [("cpu", cpu), (PODS, "1")]
            .into_iter()
            .map(|(name, amount)| (name.to_owned(), amount.parse().unwrap()))
            .collect()
    }

    fn queue(cpu: &str, pods: &str) -> Queue {
        let mut capacity = amounts(cpu);
        capacity.set(PODS, pods.parse().unwrap());
        Queue::new(capacity)
    }

    fn wait(queue: &mut Queue, name: &str, cpu: &str, second: i64) {
        let pod = Waiting {
            uid: name.to_owned(),
            namespace: "n".to_owned(),
            name: name.to_owned(),
            wanted: amounts(cpu),
            told: None,
        };
        queue.wait(pod, Timestamp::from_second(second).unwrap());
    }

    fn bound(plan: &Plan) -> Vec<&str> {
        plan.bind.iter().map(|pod| pod.name.as_str()).collect()
    }

    fn told(plan: &Plan) -> Vec<(&str, &str)> {
        plan.tell
            .iter()
            .map(|(pod, refusal)| (pod.name.as_str(), refusal.message.as_str()))
            .collect()
    }

    #[test]
    fn older_pods_come_first_and_equals_in_the_order_they_were_seen() {
        let mut queue = queue("2", "10");
        wait(&mut queue, "young", "1", 9);
        wait(&mut queue, "old", "1", 1);
        wait(&mut queue, "twin-b", "1", 5);
        wait(&mut queue, "twin-a", "1", 5);
        assert_eq!(bound(&queue.plan()), ["old", "twin-b"]);
    }

    #[test]
    fn a_large_pod_is_not_overtaken_by_small_ones_that_take_what_it_waits_for() {
        let mut queue = queue("4", "10");
        wait(&mut queue, "running", "3", 1);
        wait(&mut queue, "large", "4", 2);
        wait(&mut queue, "small", "1", 3);
        wait(&mut queue, "free", "0", 4);
        let plan = queue.plan();
        assert_eq!(bound(&plan), ["running", "free"]);
        assert_eq!(
            told(&plan),
            [
                ("large", "needs 4 cpu; 1 of 4 free, held by n/running (3)"),
                (
                    "small",
                    "needs 1 cpu; 1 of 4 free, held by n/running (3), kept for n/large (4)"
                ),
            ]
        );
        assert!(queue.release("running"));
        assert_eq!(bound(&queue.plan()), ["large"]);
        assert!(queue.release("large"));
        assert_eq!(bound(&queue.plan()), ["small"]);
    }

    #[test]
    fn what_never_fits_is_told_at_once_and_blocks_nobody() {
        let mut queue = queue("2", "10");
        wait(&mut queue, "huge", "64", 1);
        wait(&mut queue, "small", "1", 2);
        let plan = queue.plan();
        assert_eq!(told(&plan), [("huge", "needs 64 cpu; this machine has 2")]);
        assert_eq!(bound(&plan), ["small"]);
    }

    #[test]
    fn who_wants_another_machine_is_told_once_and_holds_nothing() {
        let mut queue = queue("2", "10");
        let refusal = || Refusal {
            reason: coracle_api::reason::Reason::NodeSelectorMismatch,
            message: "elsewhere".to_owned(),
        };
        let pod = |uid: &str| Waiting {
            uid: uid.to_owned(),
            namespace: "n".to_owned(),
            name: uid.to_owned(),
            wanted: amounts("2"),
            told: None,
        };
        queue.refuse(pod("a"), refusal());
        queue.refuse(pod("a"), refusal());
        wait(&mut queue, "b", "2", 1);
        let plan = queue.plan();
        assert_eq!(told(&plan), [("a", "elsewhere")]);
        assert_eq!(bound(&plan), ["b"]);
        assert!(!queue.release("a"));
    }

    #[test]
    fn nothing_is_told_twice() {
        let mut queue = queue("1", "10");
        wait(&mut queue, "a", "1", 1);
        wait(&mut queue, "b", "1", 2);
        assert_eq!(told(&queue.plan()).len(), 1);
        assert_eq!(queue.plan(), Plan::default());
    }

    #[test]
    fn a_pod_seen_again_neither_waits_nor_holds_twice() {
        let mut queue = queue("2", "10");
        wait(&mut queue, "a", "2", 1);
        wait(&mut queue, "a", "2", 1);
        assert_eq!(bound(&queue.plan()), ["a"]);
        wait(&mut queue, "a", "2", 1);
        let holder = Holder {
            name: "n/a".to_owned(),
            amounts: amounts("2"),
        };
        queue.hold("a", holder);
        assert!(queue.release("a"));
        assert_eq!(queue.free, queue.capacity);
        assert!(!queue.release("a"));
    }

    #[test]
    fn what_never_fits_is_told_however_long_the_queue_is() {
        let mut queue = queue("1", "1");
        for index in 0..1000 {
            wait(&mut queue, &format!("p{index}"), "1", index);
        }
        queue.plan();
        wait(&mut queue, "huge", "2", 5000);
        assert_eq!(told(&queue.plan()), [("huge", "needs 2 cpu; this machine has 1")]);
        wait(&mut queue, "huge", "2", 5000);
        assert_eq!(queue.plan(), Plan::default());
    }

    #[test]
    fn a_long_queue_is_not_read_to_its_end_when_no_place_is_left() {
        let mut queue = queue("1000", "2");
        for index in 0..1000 {
            wait(&mut queue, &format!("p{index}"), "1", index);
        }
        let plan = queue.plan();
        assert_eq!(bound(&plan), ["p0", "p1"]);
        assert_eq!(plan.tell.len(), TOLD);
    }
}
