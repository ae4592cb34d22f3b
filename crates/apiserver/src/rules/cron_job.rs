//! Rules of CronJobs.

use coracle_api::schedule::Cron;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::CronJob;
use serde_json::{Value, json};

use super::{Rules, job, shape, syntax};
use crate::{object, validation::Problems};

pub(crate) const RULES: Rules = Rules {
    shape: shape::<CronJob>,
    default,
    initial_status: Some(|_| json!({})),
    check,
    ..Rules::NONE
};

/// Names of its Jobs have eleven characters more.
const NAME: usize = 52;

fn default(cron_job: &mut Value) {
    let spec = object::section(cron_job, "spec");
    syntax::default_zero(spec, "concurrencyPolicy", "Allow");
    object::default(spec, "suspend", false);
    object::default(spec, "successfulJobsHistoryLimit", 3);
    object::default(spec, "failedJobsHistoryLimit", 1);
    let template = spec.entry("jobTemplate").or_insert_with(|| json!({}));
    job::default_spec(object::section(template, "spec"));
}

fn check(cron_job: &Value, problems: &mut Problems) {
    let name = object::name(cron_job);
    if name.len() > NAME {
        problems.invalid("metadata.name", name, "must be no more than 52 characters");
    }
    check_schedule(cron_job, problems);
    if let Some(zone) = cron_job.pointer("/spec/timeZone").and_then(Value::as_str) {
        check_zone(zone, problems);
    }
    for number in [
        "startingDeadlineSeconds",
        "successfulJobsHistoryLimit",
        "failedJobsHistoryLimit",
    ] {
        let field = format!("spec.{number}");
        syntax::check_not_negative(cron_job, &format!("/spec/{number}"), field, problems);
    }
    let policies = ["Allow", "Forbid", "Replace"];
    let field = "spec.concurrencyPolicy";
    syntax::check_one_of(cron_job, "/spec/concurrencyPolicy", field, &policies, problems);
    let job = cron_job.pointer("/spec/jobTemplate/spec").unwrap_or(&Value::Null);
    let field = "spec.jobTemplate.spec";
    job::check_spec(job, field, problems);
    if let Some(selector) = job.get("selector") {
        let detail = "`selector` will be auto-generated";
        problems.invalid(format!("{field}.selector"), selector.clone(), detail);
    }
    if job.get("manualSelector") == Some(&Value::Bool(true)) {
        problems.unsupported(format!("{field}.manualSelector"), "true", &["nil", "false"]);
    }
}

fn check_schedule(cron_job: &Value, problems: &mut Problems) {
    let (schedule, field) = (object::text(cron_job, "/spec/schedule"), "spec.schedule");
    if schedule.is_empty() {
        problems.required(field, "");
    } else if schedule.contains("TZ") {
        let detail = if syntax::is_set(cron_job, "/spec/timeZone") {
            "cannot use both timeZone field and TZ or CRON_TZ in schedule"
        } else {
            "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
        };
        problems.invalid(field, schedule, detail);
    } else if let Err(error) = Cron::parse_standard(schedule) {
        problems.invalid(field, schedule, &error.problem);
    }
}

fn check_zone(zone: &str, problems: &mut Problems) {
    let field = "spec.timeZone";
    if zone.is_empty() {
        problems.invalid(field, zone, "timeZone must be nil or non-empty string");
    } else if zone.eq_ignore_ascii_case("local") {
        let detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        problems.invalid(field, zone, detail);
    } else if TimeZone::get(zone).is_err() {
        problems.invalid(field, zone, &format!("unknown time zone {zone}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(field: &str, value: Value) -> String {
        let mut cron_job = json!({"metadata": {"name": "c"}, "spec": {
            "schedule": "*/5 * * * *",
            "jobTemplate": {"spec": {"template": {"spec": {
                "restartPolicy": "Never",
                "containers": [{"name": "c", "image": "i:1"}],
            }}}},
        }});
        cron_job["spec"][field] = value;
        default(&mut cron_job);
        assert_eq!(cron_job["spec"]["successfulJobsHistoryLimit"], 3);
        let mut problems = Problems::default();
        check(&cron_job, &mut problems);
        problems.to_string()
    }

    #[test]
    fn schedules_have_five_fields_or_a_name() {
        for good in [
            "* * * * *",
            "@hourly",
            "@every 1h",
            "0 9 * * mon-fri",
            "*/5 * * * *",
        ] {
            assert_eq!(problems("schedule", json!(good)), "[]", "{good}");
        }
        for (bad, expected) in [
            ("", "spec.schedule: Required value"),
            ("* * * *", "it has 4 fields; expected 5"),
            ("61 * * * *", "spec.schedule: Invalid value: \"61 * * * *\": "),
            (
                "TZ=UTC * * * * *",
                "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
            ),
        ] {
            let message = problems("schedule", json!(bad));
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn time_zones_are_those_of_iana() {
        assert_eq!(problems("timeZone", json!("Europe/Berlin")), "[]");
        assert_eq!(
            problems("timeZone", json!("Mars/Base")),
            "spec.timeZone: Invalid value: \"Mars/Base\": unknown time zone Mars/Base"
        );
        assert!(problems("timeZone", json!("Local")).contains("explicit time zone"));
    }
}
