//! Sets of completion indexes, written as Kubernetes writes them: `0-2,5`. Pure.

use std::{collections::BTreeSet, fmt};

/// A set of indexes, as ranges in order that do not touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Indexes(Vec<(i32, i32)>);

impl Indexes {
    /// Reads what [`fmt::Display`] writes. What is not below `limit` or makes no sense is left out.
    pub(crate) fn parse(text: &str, limit: i32) -> Self {
        let mut all = Self::default();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Ok(first), Ok(last)) = (first.trim().parse::<i32>(), last.trim().parse::<i32>()) else {
                continue;
            };
            let last = last.min(limit.saturating_sub(1));
            if first >= 0 && first <= last {
                all.add_range(first, last);
            }
        }
        all
    }

    pub(crate) fn has(&self, index: i32) -> bool {
        let place = self.0.partition_point(|(_, last)| *last < index);
        self.0.get(place).is_some_and(|(first, _)| *first <= index)
    }

    pub(crate) fn count(&self) -> i32 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many indexes are in both.
    pub(crate) fn common(&self, other: &Self) -> i32 {
        let overlap = |(first, last): &(i32, i32)| {
            let of = other
                .0
                .iter()
                .map(|(from, to)| (last.min(to) - first.max(from) + 1).max(0));
            of.sum::<i32>()
        };
        self.0.iter().map(overlap).sum()
    }

    pub(crate) fn extend(&mut self, indexes: &BTreeSet<i32>) {
        for index in indexes {
            self.add_range(*index, *index);
        }
    }

    fn add_range(&mut self, first: i32, last: i32) {
        let from = self.0.partition_point(|(_, end)| end.saturating_add(1) < first);
        let to = self
            .0
            .partition_point(|(start, _)| *start <= last.saturating_add(1));
        let (mut first, mut last) = (first, last);
        if from < to {
            first = first.min(self.0[from].0);
            last = last.max(self.0[to - 1].1);
        }
        self.0.splice(from..to, [(first, last)]);
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (first, last)) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str(",")?;
            }
            match last - first {
                0 => write!(f, "{first}")?,
                1 => write!(f, "{first},{last}")?,
                _ => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_read_and_written_as_kubernetes_does() {
        for (text, limit, written, count) in [
            ("", 9, "", 0),
            ("0-2,5", 9, "0-2,5", 4),
            ("0,1,2", 9, "0-2", 3),
            ("3,4", 9, "3,4", 2),
            ("0-100", 9, "0-8", 9),
            ("7,nonsense,9-8", 9, "7", 1),
            ("5,0-3,4", 9, "0-5", 6),
        ] {
            let indexes = Indexes::parse(text, limit);
            assert_eq!(indexes.to_string(), written, "{text}");
            assert_eq!(indexes.count(), count, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn they_are_a_set(some in proptest::collection::vec(0_i32..60, 0..40), more in proptest::collection::btree_set(0_i32..60, 0..40)) {
            let model: BTreeSet<i32> = some.iter().copied().collect();
            let mut indexes = Indexes::default();
            for index in &some {
                indexes.extend(&BTreeSet::from([*index]));
            }
            let mut others = Indexes::default();
            others.extend(&more);
            proptest::prop_assert_eq!(indexes.common(&others), i32::try_from(model.intersection(&more).count()).unwrap());
            proptest::prop_assert_eq!(&Indexes::parse(&indexes.to_string(), 60), &indexes);
            for index in 0..60 {
                proptest::prop_assert_eq!(indexes.has(index), model.contains(&index));
            }
            proptest::prop_assert_eq!(indexes.count(), i32::try_from(model.len()).unwrap());
        }
    }
}
