//! kfp-kubernetes' settings of an executor, as fields of its Pod. Pure.
//!
//! Names may come from the pipeline's inputs and from other tasks; an input without a value leaves the setting
//! out, as in KFP's driver (`backend/src/v2/driver/k8s.go`). What cannot be used fails the task with its name.

use coracle_api::{
    ir::{
        ParameterSource, TaskOutputParameter,
        platform::{KubernetesExecutorConfig, PodMetadata, SecurityContext},
    },
    launch::Failure,
    reason::Reason,
};
use serde_json::{Map, Value, json};

use self::volumes::Volumes;
use super::Resolve;

mod init;
mod placement;
pub(super) mod volumes;

/// What the settings say about the Pod, beside its volumes.
#[derive(Debug, Default)]
pub(super) struct PodSettings {
    pub(super) metadata: PodMetadata,
    pub(super) env: Vec<Value>,
    pub(super) node_selector: Option<Map<String, Value>>,
    pub(super) tolerations: Vec<Value>,
    pub(super) affinity: Option<Value>,
    pub(super) image_pull_secrets: Vec<Value>,
    pub(super) image_pull_policy: Option<String>,
    pub(super) active_deadline_seconds: Option<i64>,
    pub(super) security_context: Option<Value>,
    pub(super) init_containers: Vec<Value>,
}

/// Where values of settings come from.
pub(super) struct Sources<'a> {
    /// Follows inputs of the DAG around the task, and outputs of its tasks.
    pub(super) resolve: Resolve<'a>,
    /// Fills in the placeholders of a constant: what it is for, and the constant.
    pub(super) text: &'a dyn Fn(&str, &str) -> Result<String, Failure>,
}

fn invalid(setting: &str, why: &str) -> Failure {
    Failure {
        reason: Reason::SettingInvalid,
        message: format!("the setting `{setting}` {why}"),
    }
}

/// Reads the settings. Volumes go to `volumes`.
pub(super) fn pod_settings(
    settings: &Map<String, Value>,
    sources: &Sources<'_>,
    volumes: &mut Volumes,
) -> Result<PodSettings, Failure> {
    let config = KubernetesExecutorConfig::read(settings).map_err(|error| Failure {
        reason: Reason::SettingInvalid,
        message: format!("the setting {error}"),
    })?;
    volumes::add(&config, sources, volumes)?;
    let node_selector = placement::node_selector(&config, sources)?;
    let tolerations = placement::tolerations(&config, sources)?;
    let affinity = placement::affinity(&config, sources)?;
    let init_containers = init::containers(&config.init_containers, volumes)?;
    let policy = config.image_pull_policy.as_str();
    if !["", "Always", "Never", "IfNotPresent"].contains(&policy) {
        let why = format!("is `{policy}`; it can be `Always`, `Never` or `IfNotPresent`");
        return Err(invalid("imagePullPolicy", &why));
    }
    if config.active_deadline_seconds < 0 {
        let why = format!("is {}; it cannot be negative", config.active_deadline_seconds);
        return Err(invalid("activeDeadlineSeconds", &why));
    }
    let mut image_pull_secrets = Vec::new();
    for (index, secret) in config.image_pull_secret.iter().enumerate() {
        let setting = format!("imagePullSecret[{index}].secretName");
        let name = sources.name(
            &setting,
            secret.secret_name_parameter.as_ref(),
            &secret.secret_name,
        )?;
        image_pull_secrets.extend(name.map(|name| json!({"name": name})));
    }
    Ok(PodSettings {
        env: env(&config, sources)?,
        node_selector,
        tolerations,
        affinity,
        image_pull_secrets,
        image_pull_policy: (!policy.is_empty()).then(|| policy.to_owned()),
        active_deadline_seconds: Some(config.active_deadline_seconds).filter(|seconds| *seconds > 0),
        security_context: config
            .security_context
            .as_ref()
            .map(security_context)
            .transpose()?,
        init_containers,
        metadata: config.pod_metadata,
    })
}

fn env(config: &KubernetesExecutorConfig, sources: &Sources<'_>) -> Result<Vec<Value>, Failure> {
    let mut env = Vec::new();
    let mut refer = |variable: &str, kind: &str, name: &str, key: &str, optional: Option<bool>| {
        let mut reference = json!({"name": name, "key": key});
        if let Some(optional) = optional {
            reference["optional"] = json!(optional);
        }
        env.push(json!({"name": variable, "valueFrom": {kind: reference}}));
    };
    for (index, secret) in config.secret_as_env.iter().enumerate() {
        let setting = format!("secretAsEnv[{index}].secretName");
        let parameter = secret.secret_name_parameter.as_ref();
        if let Some(name) = sources.name(&setting, parameter, &secret.secret_name)? {
            for pair in &secret.key_to_env {
                refer(
                    &pair.env_var,
                    "secretKeyRef",
                    &name,
                    &pair.secret_key,
                    secret.optional,
                );
            }
        }
    }
    for (index, map) in config.config_map_as_env.iter().enumerate() {
        let setting = format!("configMapAsEnv[{index}].configMapName");
        let parameter = map.config_map_name_parameter.as_ref();
        if let Some(name) = sources.name(&setting, parameter, &map.config_map_name)? {
            for pair in &map.key_to_env {
                refer(
                    &pair.env_var,
                    "configMapKeyRef",
                    &name,
                    &pair.config_map_key,
                    map.optional,
                );
            }
        }
    }
    for field in &config.field_path_as_env {
        env.push(json!({"name": field.name, "valueFrom": {"fieldRef": {"fieldPath": field.field_path}}}));
    }
    Ok(env)
}

fn security_context(wanted: &SecurityContext) -> Result<Value, Failure> {
    let mut context = Map::new();
    let mut number = |name: &str, value: Option<i64>| match value {
        Some(value) if u32::try_from(value).is_err() => {
            let why = format!("is {value}, which is no user or group");
            Err(invalid(&format!("securityContext.{name}"), &why))
        }
        Some(value) => {
            context.insert(name.to_owned(), json!(value));
            Ok(())
        }
        None => Ok(()),
    };
    number("runAsUser", wanted.run_as_user)?;
    number("runAsGroup", wanted.run_as_group)?;
    if wanted.run_as_user == Some(0) && wanted.run_as_non_root == Some(true) {
        let why = "is 0 (root), and `runAsNonRoot` is true";
        return Err(invalid("securityContext.runAsUser", why));
    }
    if let Some(non_root) = wanted.run_as_non_root {
        context.insert("runAsNonRoot".to_owned(), json!(non_root));
    }
    context.insert("capabilities".to_owned(), json!({"drop": ["ALL"]}));
    Ok(Value::Object(context))
}

impl Sources<'_> {
    /// A name from its parameter, else its older form; none when the parameter is an input without a value.
    fn name(
        &self,
        setting: &str,
        parameter: Option<&ParameterSource>,
        older: &str,
    ) -> Result<Option<String>, Failure> {
        let value = match parameter {
            Some(parameter) => self.value(&format!("{setting}Parameter"), parameter)?,
            None => Some(json!((self.text)(setting, older)?)),
        };
        match value {
            None => Ok(None),
            Some(Value::String(name)) if name.is_empty() => Err(invalid(setting, "is empty")),
            Some(Value::String(name)) => Ok(Some(name)),
            Some(other) => Err(invalid(setting, &format!("must be text, and is {other}"))),
        }
    }

    /// A JSON value; text is read as JSON.
    fn json(&self, setting: &str, source: &ParameterSource) -> Result<Option<Value>, Failure> {
        match self.value(setting, source)? {
            Some(Value::String(text)) => serde_json::from_str(&text)
                .map_err(|error| invalid(setting, &format!("is text that is no JSON: {error}"))),
            other => Ok(other),
        }
    }

    /// The value of a source; none for an input without a value.
    fn value(&self, setting: &str, source: &ParameterSource) -> Result<Option<Value>, Failure> {
        if let Some(constant) = &source.runtime_value {
            return match &constant.constant {
                Some(Value::String(text)) => {
                    let text = self.channels(setting, text)?;
                    (self.text)(setting, &text).map(|text| Some(json!(text)))
                }
                other => Ok(other.clone().filter(|value| !value.is_null())),
            };
        }
        let found = (self.resolve.0)(source).or_else(|| (self.resolve.0)(&through_a_channel(source)?));
        if let (None, Some(output)) = (&found, &source.task_output_parameter) {
            let TaskOutputParameter {
                producer_task,
                output_parameter_key,
            } = output;
            let why = format!(
                "takes the output `{output_parameter_key}` of `{producer_task}`, which has no value here"
            );
            return Err(invalid(setting, &why));
        }
        if found.is_none() && source.component_input_parameter.is_none() {
            return Err(invalid(setting, "says nowhere where its value comes from"));
        }
        Ok(found.filter(|value| !value.is_null()))
    }

    /// The SDK leaves references in f-strings as they are: `{{channel:task=;name=x;type=String;}}`.
    fn channels(&self, setting: &str, text: &str) -> Result<String, Failure> {
        const START: &str = "{{channel:";
        let mut rest = text;
        let mut filled = String::with_capacity(text.len());
        while let Some((before, after)) = rest.split_once(START) {
            let Some((fields, tail)) = after.split_once("}}") else {
                break;
            };
            let field = |name: &str| {
                let value = fields.split(';').find_map(|field| field.strip_prefix(name));
                value
                    .and_then(|value| value.strip_prefix('='))
                    .unwrap_or_default()
            };
            let source = channel(field("task"), field("name"));
            let value = self.value(setting, &source)?.ok_or_else(|| {
                invalid(
                    setting,
                    &format!("quotes `{}`, which has no value", field("name")),
                )
            })?;
            filled.push_str(before);
            filled.push_str(&match value {
                Value::String(text) => text,
                other => other.to_string(),
            });
            rest = tail;
        }
        filled.push_str(rest);
        Ok(filled)
    }
}

fn input(name: String) -> ParameterSource {
    ParameterSource {
        component_input_parameter: Some(name),
        ..ParameterSource::default()
    }
}

fn channel(task: &str, name: &str) -> ParameterSource {
    if task.is_empty() {
        return input(name.to_owned());
    }
    ParameterSource {
        task_output_parameter: Some(TaskOutputParameter {
            producer_task: task.to_owned(),
            output_parameter_key: name.to_owned(),
        }),
        ..ParameterSource::default()
    }
}

/// The same from inside a loop or condition, to which older compilers hand the value under another name.
fn through_a_channel(source: &ParameterSource) -> Option<ParameterSource> {
    let name = match (&source.component_input_parameter, &source.task_output_parameter) {
        (Some(name), _) => format!("pipelinechannel--{name}"),
        (None, Some(output)) => {
            format!(
                "pipelinechannel--{}-{}",
                output.producer_task, output.output_parameter_key
            )
        }
        (None, None) => return None,
    };
    Some(input(name))
}

#[cfg(test)]
mod tests;
