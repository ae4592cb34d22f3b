//! Values that are too large for rows. Most tasks only hand them on; whoever has to look inside
//! says which, and goes on when they have been read.

use std::collections::HashMap;

use coracle_api::launch::{Failure, SpilledValue};
use serde_json::Value;

/// Why something cannot be decided.
#[derive(Debug, Clone, PartialEq)]
pub enum Unready {
    /// It never can.
    Failed(Failure),
    /// These values have to be read first.
    Needs(Vec<SpilledValue>),
}

impl From<Failure> for Unready {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// The large values that have been read, by URI.
#[derive(Debug, Clone, Copy)]
pub struct Values<'a>(Option<&'a HashMap<String, Value>>);

impl<'a> Values<'a> {
    /// These.
    #[must_use]
    pub const fn new(read: &'a HashMap<String, Value>) -> Self {
        Self(Some(read))
    }

    /// None have been read.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    /// The value itself, be it here or elsewhere.
    ///
    /// # Errors
    /// [`Unready::Needs`] when it has not been read.
    pub fn get<'v>(&self, value: &'v Value) -> Result<&'v Value, Unready>
    where
        'a: 'v,
    {
        let Some(spilled) = SpilledValue::of(value) else {
            return Ok(value);
        };
        let read = self.0.and_then(|read| read.get(&spilled.uri));
        read.ok_or_else(|| Unready::Needs(vec![spilled]))
    }
}
