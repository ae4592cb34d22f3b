//! What is wrong with the policies by which a Job fails and succeeds.

use serde_json::Value;

use crate::{object, rules::syntax, validation::Problems};

const RULES: usize = 20;
const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];

/// Problems with `podFailurePolicy` of the spec that `field` names.
pub(super) fn check_failure(policy: &Value, spec: &Value, field: &str, problems: &mut Problems) {
    let restart = object::text(spec, "/template/spec/restartPolicy");
    if restart != "Never" {
        let detail = "only \"Never\" is supported when podFailurePolicy is specified";
        problems.invalid(format!("{field}.template.spec.restartPolicy"), restart, detail);
    }
    let rules = object::list(policy, "/rules");
    let field = format!("{field}.podFailurePolicy.rules");
    if rules.len() > RULES {
        problems.too_many(field, rules.len(), RULES);
        return;
    }
    for (index, rule) in rules.iter().enumerate() {
        check_rule(rule, spec, &format!("{field}[{index}]"), problems);
    }
}

fn check_rule(rule: &Value, spec: &Value, field: &str, problems: &mut Problems) {
    let action = object::text(rule, "/action");
    if action.is_empty() {
        let detail = format!("valid values: {ACTIONS:?}");
        problems.required(format!("{field}.action"), &detail);
    } else if !ACTIONS.contains(&action) {
        problems.unsupported(format!("{field}.action"), action, &ACTIONS);
    } else if action == "FailIndex" && spec.get("backoffLimitPerIndex").is_none() {
        let detail = "requires the backoffLimitPerIndex to be set";
        problems.invalid(format!("{field}.action"), action, detail);
    }
    let codes = rule.get("onExitCodes");
    let conditions = object::list(rule, "/onPodConditions");
    if let Some(codes) = codes {
        check_codes(codes, spec, &format!("{field}.onExitCodes"), problems);
    }
    for (index, condition) in conditions.iter().enumerate() {
        let field = format!("{field}.onPodConditions[{index}]");
        if object::text(condition, "/type").is_empty() {
            problems.required(format!("{field}.type"), "");
        }
        let status = format!("{field}.status");
        syntax::check_one_of(
            condition,
            "/status",
            status,
            &["False", "True", "Unknown"],
            problems,
        );
    }
    match (codes.is_some(), !conditions.is_empty()) {
        (true, true) => {
            let detail = "specifying both OnExitCodes and OnPodConditions is not supported";
            problems.invalid(field, rule.clone(), detail);
        }
        (false, false) => {
            let detail = "specifying one of OnExitCodes and OnPodConditions is required";
            problems.invalid(field, rule.clone(), detail);
        }
        _ => {}
    }
}

fn check_codes(codes: &Value, spec: &Value, field: &str, problems: &mut Problems) {
    let operator = object::text(codes, "/operator");
    if operator.is_empty() {
        problems.required(format!("{field}.operator"), "valid values: [\"In\", \"NotIn\"]");
    } else if !["In", "NotIn"].contains(&operator) {
        problems.unsupported(format!("{field}.operator"), operator, &["In", "NotIn"]);
    }
    if let Some(name) = codes.get("containerName").and_then(Value::as_str) {
        let mut containers = object::list(spec, "/template/spec/containers")
            .iter()
            .chain(object::list(spec, "/template/spec/initContainers"));
        if !containers.any(|container| object::text(container, "/name") == name) {
            let detail = "must be one of the container or initContainer names in the pod template";
            problems.invalid(format!("{field}.containerName"), name, detail);
        }
    }
    let field = format!("{field}.values");
    let values = object::list(codes, "/values").iter().filter_map(Value::as_i64);
    let values = values.collect::<Vec<_>>();
    if values.is_empty() {
        problems.invalid(field, Value::Array(Vec::new()), "at least one value is required");
        return;
    }
    if values.len() > 255 {
        problems.too_many(field, values.len(), 255);
        return;
    }
    for (index, value) in values.iter().enumerate() {
        if operator == "In" && *value == 0 {
            problems.invalid(
                format!("{field}[{index}]"),
                *value,
                "must not be 0 for the In operator",
            );
        }
        if values[..index].contains(value) {
            problems.duplicate_value(format!("{field}[{index}]"), *value);
        }
    }
    if !values.is_sorted() {
        problems.invalid(field, values, "must be ordered");
    }
}

/// Problems with `successPolicy` of a Job.
pub(super) fn check_success(policy: &Value, spec: &Value, field: &str, problems: &mut Problems) {
    if object::text(spec, "/completionMode") != "Indexed" {
        problems.invalid(field, policy.clone(), "requires indexed completion mode");
        return;
    }
    let rules = object::list(policy, "/rules");
    let field = format!("{field}.rules");
    if rules.is_empty() {
        let detail = "at least one rules must be specified when the successPolicy is specified";
        problems.required(field, detail);
        return;
    }
    if rules.len() > RULES {
        problems.too_many(field, rules.len(), RULES);
        return;
    }
    let completions = object::number(spec, "/completions");
    for (index, rule) in rules.iter().enumerate() {
        let field = format!("{field}[{index}]");
        let indexes = rule.get("succeededIndexes").and_then(Value::as_str);
        let count = rule.get("succeededCount").and_then(Value::as_i64);
        if indexes.is_none() && count.is_none() {
            let detail = "at least one of succeededCount or succeededIndexes must be specified";
            problems.required(field, detail);
            continue;
        }
        let mut of = completions;
        if let Some(text) = indexes {
            let name = format!("{field}.succeededIndexes");
            match count_indexes(text, completions) {
                Ok(there) => of = there,
                Err(problem) => {
                    let detail = format!("error parsing succeededIndexes: {problem}");
                    problems.invalid(name, text, &detail);
                    continue;
                }
            }
        }
        if let Some(count) = count {
            let name = format!("{field}.succeededCount");
            if count < 0 {
                problems.invalid(name, count, syntax::NEGATIVE);
            } else if count > of {
                let detail = if indexes.is_some() {
                    format!(
                        "must be less than or equal to {of} (the number of indexes in the specified succeededIndexes field)"
                    )
                } else {
                    format!("must be less than or equal to {of} (the number of specified completions)")
                };
                problems.invalid(name, count, &detail);
            }
        }
    }
}

/// How many indexes `1,3-5` names.
fn count_indexes(text: &str, completions: i64) -> Result<i64, String> {
    let (mut count, mut last) = (0, -1);
    for part in text.split(',') {
        let number = |text: &str| {
            text.parse::<i64>()
                .map_err(|_| format!("cannot convert string to integer for index: \"{text}\""))
        };
        let (from, to) = match part.split_once('-') {
            Some((from, to)) => (number(from)?, number(to)?),
            None => (number(part)?, number(part)?),
        };
        if from <= last || to < from {
            return Err(format!("non-increasing order, previous: {last}, current: {from}"));
        }
        if to >= completions {
            return Err(format!("too large index: \"{to}\""));
        }
        count += to - from + 1;
        last = to;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_counted() {
        assert_eq!(count_indexes("0,2-4", 5), Ok(4));
        for bad in ["", "a", "3-1", "2,2", "5"] {
            assert!(count_indexes(bad, 5).is_err(), "{bad}");
        }
    }
}
