//! Whose turn it is. Runs that are at work hold memory, and so only so many are; what is beyond that
//! waits in its row and in the order in which it was made, and its row says so.

use std::collections::BTreeSet;

use coracle_api::{id::RunId, launch::Failure, reason::Reason};

/// The runs that wait for their turn.
pub(super) struct Turns {
    most: usize,
    // An id is drawn when its run is made: their order is that of the runs.
    waiting: BTreeSet<RunId>,
}

impl Turns {
    pub(super) const fn new(most: usize) -> Self {
        Self {
            most,
            waiting: BTreeSet::new(),
        }
    }

    /// Whether one more may begin beside so many at work. If not, it waits.
    pub(super) fn ask(&mut self, run: RunId, at_work: usize) -> Turn {
        if at_work < self.most {
            self.waiting.remove(&run);
            return Turn::Now;
        }
        if self.waiting.insert(run) {
            Turn::Later(self.reason())
        } else {
            Turn::Known
        }
    }

    /// The next to begin beside so many at work.
    pub(super) fn next(&mut self, at_work: usize) -> Option<RunId> {
        if at_work < self.most {
            self.waiting.pop_first()
        } else {
            None
        }
    }

    /// Takes it out of the queue. Says whether it was there.
    pub(super) fn leave(&mut self, run: RunId) -> bool {
        self.waiting.remove(&run)
    }

    fn reason(&self) -> Failure {
        let message = format!(
            "as many runs are at work as this server lets run at once ({}, --max-runs). This one begins when one of them \
             has ended and those made before it have begun",
            self.most
        );
        Failure {
            reason: Reason::RunLimitReached,
            message,
        }
    }
}

/// What becomes of a run that is to begin.
#[derive(Debug, PartialEq)]
pub(super) enum Turn {
    /// It begins.
    Now,
    /// It waits from now on, and this is to be said of it.
    Later(Failure),
    /// It waits already.
    Known,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_begin_in_the_order_in_which_they_were_made() {
        let mut turns = Turns::new(1);
        let [first, second, third, fourth] = [(); 4].map(|()| RunId::new());
        assert_eq!(turns.ask(first, 0), Turn::Now);
        for run in [third, fourth, second] {
            assert!(matches!(turns.ask(run, 1), Turn::Later(_)));
            assert_eq!(turns.ask(run, 1), Turn::Known);
        }
        assert_eq!(turns.next(1), None);
        assert!(turns.leave(third), "somebody stopped or deleted it");
        assert!(!turns.leave(third));
        assert_eq!(turns.next(0), Some(second));
        assert_eq!(turns.next(1), None);
        assert_eq!(turns.next(0), Some(fourth));
        assert_eq!(turns.next(0), None);
    }
}
