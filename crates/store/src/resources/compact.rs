//! Dropping the beginning of the log, so that it does not grow without bound.

use std::{collections::VecDeque, sync::Arc};

use super::{
    Error, Resources, Result,
    state::{Change, Shared},
};
use crate::database::{self, Database, to_the_end};

/// Rows dropped at once. Others write in between.
const PIECE: i64 = 500;
/// The log is shortened when it has more revisions than this, or more text.
const MAX_REVISIONS: u64 = 50_000;
const MAX_BYTES: usize = 128 << 20;
/// A part of the log that is dropped as a whole.
const SEGMENT_REVISIONS: u64 = 1000;
const SEGMENT_BYTES: usize = 4 << 20;

impl Resources {
    /// Drops what the log holds below a revision, and returns how many changes that were. Lists
    /// and new watches from before `below - 1` then fail with [`super::Error::Compacted`]. A
    /// revision beyond the latest stands for all that the log holds.
    ///
    /// The log is also shortened by itself when it becomes large.
    ///
    /// # Errors
    ///
    /// When the database fails. What was not dropped is dropped the next time.
    pub async fn compact(&self, below: u64) -> Result<u64> {
        let (shared, database) = (Arc::clone(&self.shared), Arc::clone(&self.database));
        to_the_end(compact(shared, database, below)).await
    }
}

async fn compact(shared: Arc<Shared>, database: Arc<Database>, below: u64) -> Result<u64> {
    let mut writer = database.writer().await?;
    let (latest, oldest) = {
        let state = shared.state.read();
        (state.latest(), state.oldest())
    };
    let compacted = below.saturating_sub(1).min(latest);
    if compacted <= oldest {
        return Ok(0);
    }
    // First nobody may count on it, then it goes.
    sqlx::query("UPDATE resource_revision SET compacted = $1 WHERE id = 1")
        .bind(compacted.cast_signed())
        .execute(&mut *writer)
        .await?;
    shared.state.write().forget_before(compacted);
    drop(writer);
    let mut dropped = 0;
    loop {
        let mut writer = database.writer().await?;
        let last: Option<i64> = sqlx::query_scalar(
            "SELECT revision FROM resource_log WHERE revision <= $1 ORDER BY revision LIMIT 1 OFFSET $2",
        )
        .bind(compacted.cast_signed())
        .bind(PIECE)
        .fetch_optional(&mut *writer)
        .await?;
        dropped += sqlx::query("DELETE FROM resource_log WHERE revision <= $1")
            .bind(last.unwrap_or_else(|| compacted.cast_signed()))
            .execute(&mut *writer)
            .await?
            .rows_affected();
        if last.is_none() {
            return Ok(dropped);
        }
    }
}

/// How large the log is, about, and when that is too large.
#[derive(Debug)]
pub(super) struct Growth {
    segments: VecDeque<Segment>,
    revisions: u64,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Segment {
    last: u64,
    revisions: u64,
    bytes: usize,
}

impl Growth {
    /// Of a log that holds the revisions after `oldest` up to `latest`.
    pub(super) fn new(oldest: u64, latest: u64) -> Self {
        let found = Segment {
            last: latest,
            revisions: latest.saturating_sub(oldest),
            bytes: 0,
        };
        Self {
            revisions: found.revisions,
            bytes: found.bytes,
            segments: VecDeque::from([found]),
        }
    }

    /// Counts changes that were appended, and begins to shorten the log when it is too large.
    pub(super) fn note(&mut self, shared: &Arc<Shared>, database: &Arc<Database>, changes: &[Change]) {
        for Change { event, .. } in changes {
            self.add(event.object.revision, event.size());
        }
        let oldest = shared.state.read().oldest();
        if let Some(below) = self.excess(oldest) {
            let work = compact(Arc::clone(shared), Arc::clone(database), below);
            tokio::spawn(async {
                match work.await {
                    // The server is stopping: the rest is dropped another time.
                    Ok(_) | Err(Error::Database(database::Error::Closed)) => {}
                    Err(error) => {
                        let error: &dyn std::error::Error = &error;
                        tracing::warn!(error, "cannot shorten the log of revisions");
                    }
                }
            });
        }
    }

    fn add(&mut self, revision: u64, bytes: usize) {
        let is_full = self
            .segments
            .back()
            .is_none_or(|segment| segment.revisions >= SEGMENT_REVISIONS || segment.bytes >= SEGMENT_BYTES);
        if is_full {
            self.segments.push_back(Segment::default());
        }
        if let Some(segment) = self.segments.back_mut() {
            segment.last = revision;
            segment.revisions += 1;
            segment.bytes += bytes;
        }
        self.revisions += 1;
        self.bytes += bytes;
    }

    /// The revision below which the log is to be dropped, if it is too large: a quarter more than
    /// is needed, so that it is not dropped one by one. It counts as dropped then.
    fn excess(&mut self, oldest: u64) -> Option<u64> {
        while self.segments.len() > 1 && self.segments.front().is_some_and(|first| first.last <= oldest) {
            self.drop_first();
        }
        if self.revisions <= MAX_REVISIONS && self.bytes <= MAX_BYTES {
            return None;
        }
        let mut below = None;
        while self.segments.len() > 1
            && (self.revisions > MAX_REVISIONS / 4 * 3 || self.bytes > MAX_BYTES / 4 * 3)
        {
            below = self.drop_first().map(|last| last + 1);
        }
        below
    }

    fn drop_first(&mut self) -> Option<u64> {
        let first = self.segments.pop_front()?;
        self.revisions -= first.revisions;
        self.bytes -= first.bytes;
        Some(first.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_of_many_revisions_is_shortened_by_a_quarter() {
        let mut growth = Growth::new(0, 0);
        for revision in 1..=MAX_REVISIONS {
            growth.add(revision, 100);
            assert_eq!(growth.excess(0), None);
        }
        growth.add(MAX_REVISIONS + 1, 100);
        let below = growth.excess(0).unwrap();
        let kept = MAX_REVISIONS + 1 - (below - 1);
        assert!((MAX_REVISIONS / 4 * 3 - SEGMENT_REVISIONS..=MAX_REVISIONS / 4 * 3).contains(&kept));
        assert_eq!(growth.revisions, kept);
    }

    #[test]
    fn a_log_of_much_text_is_shortened_and_its_end_stays() {
        let mut growth = Growth::new(0, 0);
        growth.add(1, 10);
        growth.add(2, MAX_BYTES);
        assert_eq!(growth.excess(0), None, "the end of it stays");
        growth.add(3, 10);
        assert_eq!(growth.excess(0), Some(3));
        assert_eq!((growth.revisions, growth.bytes), (1, 10));
    }

    #[test]
    fn what_somebody_else_dropped_does_not_count() {
        let mut growth = Growth::new(0, 40_000);
        for revision in 40_001..=60_000 {
            growth.add(revision, 1);
            assert_eq!(growth.excess(40_000), None);
        }
        assert_eq!(growth.revisions, 20_000);
    }
}
