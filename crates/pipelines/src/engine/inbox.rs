//! What a run has yet to hear. Not a queue: what is told again takes the place of what was told before, so
//! that this grows with a run's Pods and not with what happens to them, and nobody ever waits to tell.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use coracle_api::id::TaskId;
use tokio::sync::Notify;

use crate::run::observe::PodView;

/// An attempt at a task.
pub(super) type AttemptKey = (TaskId, u32);

/// Everything that a run has yet to hear.
#[derive(Debug, Default, PartialEq)]
pub(super) struct News {
    /// The run's rows are gone.
    pub(super) is_deleted: bool,
    /// The engine stops.
    pub(super) is_stopping: bool,
    /// Somebody asked the run to stop.
    pub(super) is_termination_requested: bool,
    /// Something may not have been told: the rows are to be read again.
    pub(super) is_incomplete: bool,
    /// The attempts whose launchers reported; the reports are in the store.
    pub(super) reported: BTreeSet<AttemptKey>,
    /// What Pods were seen to be, one after the other.
    pub(super) pods: BTreeMap<AttemptKey, Vec<PodView>>,
    /// These are all the Pods there are, as listed last.
    pub(super) listed: Option<HashSet<AttemptKey>>,
}

impl News {
    /// A Pod looks like this now. Each kind of view is kept once, as it was last seen, so that none of
    /// them is missed (that it ran, what it waited for); nothing comes after its end.
    pub(super) fn see(&mut self, attempt: AttemptKey, view: PodView) {
        // Nothing follows from it.
        if view == PodView::Pending {
            return;
        }
        let seen = self.pods.entry(attempt).or_default();
        if let Some(PodView::Ended(_)) = seen.last() {
            return;
        }
        let kind = std::mem::discriminant(&view);
        match seen.iter_mut().find(|seen| std::mem::discriminant(*seen) == kind) {
            Some(seen) => *seen = view,
            None => seen.push(view),
        }
    }
}

/// Where a run's own task finds its news.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    news: Mutex<News>,
    is_new: Notify,
}

impl Inbox {
    /// Adds to the news, and wakes the run.
    pub(super) fn tell(&self, add: impl FnOnce(&mut News)) {
        add(&mut self.news());
        self.is_new.notify_one();
    }

    /// All there is.
    pub(super) fn take(&self) -> News {
        std::mem::take(&mut self.news())
    }

    /// Nothing that is done with it leaves it half done.
    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is something to take, or was since the last time.
    pub(super) async fn wait(&self) {
        self.is_new.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use coracle_api::{id::RunId, launch::Failure, reason::Reason};

    use super::*;
    use crate::run::observe::PodEnd;

    fn waiting(message: &str) -> PodView {
        PodView::Waiting(Failure {
            reason: Reason::InsufficientResources,
            message: message.to_owned(),
        })
    }

    #[test]
    fn what_is_told_again_and_again_takes_no_more_room() {
        let attempt = (TaskId::at(RunId::new(), "root.a"), 1);
        let mut news = News::default();
        for number in 0..1000 {
            news.see(attempt, waiting(&number.to_string()));
            news.see(attempt, PodView::Pending);
            news.reported.insert(attempt);
        }
        news.see(attempt, PodView::Running(None));
        let end = PodView::Ended(PodEnd {
            failure: None,
            exit_code: Some(0),
        });
        news.see(attempt, end.clone());
        news.see(attempt, PodView::Ended(PodEnd::gone()));
        assert_eq!(news.pods[&attempt], [waiting("999"), PodView::Running(None), end]);
        assert_eq!(news.reported.len(), 1);
    }

    #[tokio::test]
    async fn what_is_told_while_nobody_waits_is_found() {
        let inbox = Inbox::default();
        inbox.tell(|news| news.is_incomplete = true);
        inbox.tell(|news| news.is_termination_requested = true);
        inbox.wait().await;
        let news = inbox.take();
        assert!(news.is_incomplete && news.is_termination_requested, "{news:?}");
        assert_eq!(inbox.take(), News::default());
    }
}
