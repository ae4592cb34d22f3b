//! KFP's messages in their JSON form (`backend/api/v2beta1/*.proto` of kubeflow/pipelines).
//!
//! One struct per message, for both directions, as in the proto: a field that a client may not
//! set is accepted and ignored. Names are snake_case on the way out; camelCase is taken as well
//! on the way in. What has no value is left out. But for `warnings`, fields that KFP has not are
//! never added here: they are in [`super::tasks`] and [`super::artifacts`].

mod experiment;
mod pipeline;
mod recurring;
mod run;

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;
use utoipa::ToSchema;

pub(super) use self::{
    experiment::Experiment,
    pipeline::{Pipeline, PipelineVersion, Url},
    recurring::{CronSchedule, Mode, PeriodicSchedule, RecurringRun, RecurringRunStatus, Trigger},
    run::{PipelineVersionReference, Run, RunDetails, RuntimeConfig, RuntimeStatus},
};

/// A moment, written as protobuf's JSON does: RFC 3339 in UTC with 0, 3 or 6 decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToSchema)]
#[schema(value_type = String, format = DateTime, example = "2026-01-31T12:00:00Z")]
pub(super) struct Time(pub Timestamp);

impl Time {
    /// What KFP shows as the end of something that has not ended.
    pub(super) const UNSET: Self = Self(Timestamp::UNIX_EPOCH);
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.subsec_microsecond() + 1000 * self.0.subsec_millisecond();
        match micros {
            0 => write!(f, "{:.0}", self.0),
            _ if micros % 1000 == 0 => write!(f, "{:.3}", self.0),
            _ => write!(f, "{:.6}", self.0),
        }
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse()
            .map(Self)
            .map_err(|_| de::Error::custom(format!("`{text}` is no time such as 2026-01-31T12:00:00Z")))
    }
}

/// A 64-bit integer: protobuf's JSON writes it as text, and takes both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToSchema)]
#[schema(value_type = String, format = Int64, example = "1")]
pub(super) struct Int64(pub i64);

impl Serialize for Int64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Int64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(i64),
            Text(String),
        }
        match Written::deserialize(deserializer) {
            Ok(Written::Number(number)) => Ok(Self(number)),
            Ok(Written::Text(text)) => text
                .parse()
                .map(Self)
                .map_err(|_| de::Error::custom(format!("`{text}` is not a whole number"))),
            Err(_) => Err(de::Error::custom("expected a whole number")),
        }
    }
}

/// For fields that are the server's to set: whatever a client sends is passed over.
fn ignored<'de, D: Deserializer<'de>, T>(deserializer: D) -> Result<Option<T>, D::Error> {
    de::IgnoredAny::deserialize(deserializer).map(|_| None)
}

/// The text, unless it is empty: unset and empty are the same in proto3.
pub(super) fn text(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

/// The list, unless it is empty.
pub(super) fn list<T>(items: Vec<T>) -> Option<Vec<T>> {
    (!items.is_empty()).then_some(items)
}

/// The map, unless it is empty.
pub(super) fn map<V>(items: BTreeMap<String, V>) -> Option<BTreeMap<String, V>> {
    (!items.is_empty()).then_some(items)
}

/// The answer to a request that has nothing to say: `{}`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Empty {}

/// `google.rpc.Status`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Status {
    /// A gRPC code.
    pub code: i32,
    /// What happened.
    pub message: String,
    /// More about it: `google.rpc.ErrorInfo` with the stable reason and what to do about it.
    #[schema(value_type = Vec<Object>)]
    pub details: Vec<Value>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_have_as_many_decimals_as_they_need() {
        let check = |input: &str, expect: &str| {
            let time = Time(input.parse().expect("a time"));
            assert_eq!(
                serde_json::to_value(time).expect("text"),
                json!(expect),
                "{input}"
            );
        };
        check("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z");
        check("2026-01-31T12:00:00.5Z", "2026-01-31T12:00:00.500Z");
        check("2026-01-31T12:00:00.000001Z", "2026-01-31T12:00:00.000001Z");
        check("2026-01-31T13:00:00.25+01:00", "2026-01-31T12:00:00.250Z");
        assert_eq!(Time::UNSET.to_string(), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn what_has_no_value_is_left_out() {
        assert_eq!(serde_json::to_value(Run::default()).expect("json"), json!({}));
        assert_eq!(
            serde_json::to_value(Pipeline::default()).expect("json"),
            json!({})
        );
    }

    #[test]
    fn fields_that_the_server_sets_are_passed_over() {
        let run: Run = serde_json::from_value(json!({
            "run_id": 7, "state": "NONSENSE", "created_at": "never", "run_details": {"task_details": [1]},
            "error": {"code": 1}, "state_history": null,
        }))
        .expect("a run");
        assert_eq!(serde_json::to_value(run).expect("json"), json!({}));
    }

    #[test]
    fn unknown_fields_are_refused_at_every_level() {
        for body in [
            json!({"displayname": "x"}),
            json!({"runtime_config": {"params": {}}}),
            json!({"pipeline_version_reference": {"version": "x"}}),
        ] {
            assert!(serde_json::from_value::<Run>(body.clone()).is_err(), "{body}");
        }
    }

    #[test]
    fn both_spellings_of_a_field_are_taken() {
        for body in [
            json!({"display_name": "x", "runtime_config": {"pipeline_root": "/r"}}),
            json!({"displayName": "x", "runtimeConfig": {"pipelineRoot": "/r"}}),
        ] {
            let run: Run = serde_json::from_value(body).expect("a run");
            assert_eq!(run.display_name.as_deref(), Some("x"));
            assert_eq!(
                run.runtime_config
                    .and_then(|config| config.pipeline_root)
                    .as_deref(),
                Some("/r")
            );
        }
    }
}
