//! Which fields the messages of a pipeline have: those of `api/v2alpha1/pipeline_spec.proto` and
//! `kubernetes_platform/proto/kubernetes_executor_config.proto` of kubeflow/pipelines, whether
//! Coracle gives them a meaning or not. A field that is none of them is most likely a mistake.

mod table;

use serde_json::{Map, Value};

/// More than this many are only counted.
const MOST: usize = 50;

/// The fields of a message, as protobuf's JSON writes them.
struct Message {
    /// Fields that are no messages, or whose content is free.
    plain: &'static [&'static str],
    nested: &'static [(&'static str, Shape)],
}

/// What a field holds.
#[derive(Clone, Copy)]
enum Shape {
    One(&'static Message),
    List(&'static Message),
    /// By names that are free.
    Map(&'static Message),
}

/// One sentence for each field that nobody knows, with its place.
pub(super) fn unknown(pipeline: &Value, platform: Option<&Value>) -> Vec<String> {
    let mut found = Found {
        is_snake_case_read: false,
        warnings: Vec::new(),
        more: 0,
    };
    found.message(&table::PIPELINE, pipeline, "");
    // kfp writes this part in both spellings.
    found.is_snake_case_read = true;
    if let Some(platform) = platform {
        found.message(&table::PLATFORM, platform, "");
    }
    let mut warnings = found.warnings;
    if found.more > 0 {
        warnings.push(format!("{} more fields are not known", found.more));
    }
    warnings
}

struct Found {
    is_snake_case_read: bool,
    warnings: Vec<String>,
    more: usize,
}

impl Found {
    /// Messages do not hold themselves, so this ends at a small depth whatever the document.
    fn message(&mut self, message: &Message, value: &Value, path: &str) {
        let Some(object) = value.as_object() else {
            return;
        };
        for (written, value) in object {
            let camel = camel_case(written);
            let name = if self.is_snake_case_read {
                camel.as_str()
            } else {
                written
            };
            let path = if path.is_empty() {
                written.clone()
            } else {
                format!("{path}.{written}")
            };
            if let Some((_, shape)) = message.nested.iter().find(|(field, _)| *field == name) {
                self.field(*shape, value, &path);
            } else if !message.plain.contains(&name) {
                self.add(message, &path, &camel);
            }
        }
    }

    fn field(&mut self, shape: Shape, value: &Value, path: &str) {
        match shape {
            Shape::One(message) => self.message(message, value, path),
            Shape::List(message) => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    self.message(message, item, &format!("{path}[{index}]"));
                }
            }
            Shape::Map(message) => {
                for (name, item) in value.as_object().into_iter().flat_map(Map::iter) {
                    self.message(message, item, &format!("{path}.{name}"));
                }
            }
        }
    }

    fn add(&mut self, message: &Message, path: &str, camel: &str) {
        if self.warnings.len() == MOST {
            self.more += 1;
            return;
        }
        let nested = message.nested.iter().map(|(field, _)| *field);
        let meant = message
            .plain
            .iter()
            .copied()
            .chain(nested)
            .find(|field| field.eq_ignore_ascii_case(camel));
        self.warnings.push(match meant {
            Some(field) => format!("`{path}`: unknown field, ignored; did you mean `{field}`?"),
            None => format!("`{path}`: unknown field, ignored"),
        });
    }
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_that_nobody_knows_are_named_by_their_place() {
        let check =
            |pipeline: Value, expect: &[&str]| assert_eq!(unknown(&pipeline, None), expect, "{pipeline}");
        check(json!({}), &[]);
        check(
            json!({"pipelineInfo": {"name": "x"}, "colour": 1}),
            &["`colour`: unknown field, ignored"],
        );
        check(
            json!({"root": {"dag": {"tasks": {"say": {"retry_policy": {}, "inputs": {"parameters": {"a": {"runtimeValue": {"constant": {"free": 1}}}}}}}}}}),
            &["`root.dag.tasks.say.retry_policy`: unknown field, ignored; did you mean `retryPolicy`?"],
        );
        check(
            json!({"deploymentSpec": {"executors": {"e": {"container": {"lifecycle": {"preCacheCheck": {"command": []}}, "env": [{"name": "A"}, {"nam": "B"}]}}}}}),
            &["`deploymentSpec.executors.e.container.env[1].nam`: unknown field, ignored"],
        );
    }

    #[test]
    fn the_platform_part_is_read_in_both_spellings() {
        let executor = json!({"pvc_mount": [{"mountPath": "/x", "mount_path": "/y", "mode": 1}], "initContainers": [{}]});
        let platform = json!({"platforms": {"kubernetes": {"deploymentSpec": {"executors": {"e": executor}}, "pipeline_config": {"ttl": 1}}}});
        assert_eq!(
            unknown(&json!({}), Some(&platform)),
            [
                "`platforms.kubernetes.deploymentSpec.executors.e.pvc_mount[0].mode`: unknown field, ignored",
                "`platforms.kubernetes.pipeline_config.ttl`: unknown field, ignored",
            ]
        );
    }

    #[test]
    fn a_document_of_unknown_fields_gives_a_short_list() {
        let many: Map<String, Value> = (0..1000).map(|index| (format!("f{index}"), json!(1))).collect();
        let warnings = unknown(&many.into(), None);
        assert_eq!(warnings.len(), MOST + 1);
        assert_eq!(warnings[MOST], "950 more fields are not known");
    }
}
