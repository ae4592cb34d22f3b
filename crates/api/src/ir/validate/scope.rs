//! One task: whether everything it names is there, and of a type that fits.

use super::{Problem, check_literals, listing, outputs::is_loop};
use crate::ir::{
    ArtifactSource, ComponentSpec, DagSpec, InputParameterSpec, ParameterSource, ParameterType, PipelineSpec,
    TaskSpec, condition,
};

/// A task and what it can see.
pub(super) struct Scope<'a> {
    pub(super) spec: &'a PipelineSpec,
    pub(super) holder: &'a ComponentSpec,
    pub(super) dag: &'a DagSpec,
    pub(super) path: String,
}

impl Scope<'_> {
    pub(super) fn check(&self, task: &TaskSpec) -> Result<(), Problem> {
        let name = &task.component_ref.name;
        let Some(component) = self.spec.components.get(name) else {
            let message = format!(
                "there is no component `{name}`; components are {}",
                listing(self.spec.components.keys())
            );
            return Err(self.problem("componentRef.name", message));
        };
        for upstream in &task.dependent_tasks {
            if !self.dag.tasks.contains_key(upstream) {
                let message = format!(
                    "there is no task `{upstream}` here; tasks are {}",
                    listing(self.dag.tasks.keys())
                );
                return Err(self.problem("dependentTasks", message));
            }
        }
        if !task.trigger_policy.condition.is_empty() {
            condition::check(&task.trigger_policy.condition)
                .map_err(|error| self.problem("triggerPolicy.condition", error.to_string()))?;
        }
        for (input, source) in &task.inputs.parameters {
            // The SDK binds values that only resources or the image quote, undeclared.
            let undeclared = InputParameterSpec::default();
            let declared = component
                .input_definitions
                .parameters
                .get(input)
                .unwrap_or(&undeclared);
            self.check_parameter(input, source, declared)?;
        }
        for (input, source) in &task.inputs.artifacts {
            let Some(declared) = component.input_definitions.artifacts.get(input) else {
                let known = listing(component.input_definitions.artifacts.keys());
                let message = format!("component `{name}` has no input artifact `{input}`; it takes {known}");
                return Err(self.problem(&format!("inputs.artifacts.{input}"), message));
            };
            self.check_artifact(input, source)?;
            let looped = source
                .task_output_artifact
                .as_ref()
                .filter(|output| self.is_loop(&output.producer_task));
            if let Some(output) = looped.filter(|_| !declared.is_artifact_list) {
                let message = format!(
                    "`{}` is a loop and makes a list of artifacts, and this input takes one",
                    output.producer_task
                );
                return Err(self.problem(&format!("inputs.artifacts.{input}"), message));
            }
        }
        self.check_repeats(task, component)?;
        self.check_nothing_is_missing(task, component)
    }

    fn check_nothing_is_missing(&self, task: &TaskSpec, component: &ComponentSpec) -> Result<(), Problem> {
        let iterated: Vec<&str> = [
            task.parameter_iterator
                .as_ref()
                .map(|iterator| &iterator.item_input),
            task.artifact_iterator
                .as_ref()
                .map(|iterator| &iterator.item_input),
        ]
        .into_iter()
        .flatten()
        .map(String::as_str)
        .collect();
        for (input, declared) in &component.input_definitions.parameters {
            let supplied = task.inputs.parameters.contains_key(input) || iterated.contains(&input.as_str());
            // A TaskConfig is made by the engine, never passed.
            let engine_made = declared.parameter_type == ParameterType::TaskConfig;
            if !supplied && !declared.is_optional && declared.default_value.is_none() && !engine_made {
                let message = format!(
                    "missing: the component needs a value of type {}",
                    declared.parameter_type
                );
                return Err(self.problem(&format!("inputs.parameters.{input}"), message));
            }
        }
        for (input, declared) in &component.input_definitions.artifacts {
            let supplied = task.inputs.artifacts.contains_key(input) || iterated.contains(&input.as_str());
            if !supplied && !declared.is_optional {
                return Err(self.problem(
                    &format!("inputs.artifacts.{input}"),
                    "missing: the component needs an artifact",
                ));
            }
        }
        Ok(())
    }

    fn check_parameter(
        &self,
        input: &str,
        source: &ParameterSource,
        declared: &InputParameterSpec,
    ) -> Result<(), Problem> {
        let field = format!("inputs.parameters.{input}");
        let ParameterSource {
            task_output_parameter,
            runtime_value,
            component_input_parameter,
            task_final_status,
            parameter_expression_selector,
        } = source;
        let sources = usize::from(task_output_parameter.is_some())
            + usize::from(runtime_value.is_some())
            + usize::from(component_input_parameter.is_some())
            + usize::from(task_final_status.is_some());
        if !parameter_expression_selector.is_empty() {
            condition::check(parameter_expression_selector).map_err(|error| {
                self.problem(&format!("{field}.parameterExpressionSelector"), error.to_string())
            })?;
        }
        if sources != 1 {
            return Err(self.problem(
                &field,
                format!("expected one source for the value, found {sources}"),
            ));
        }
        if let Some(output) = task_output_parameter {
            let component = self.producer(
                &output.producer_task,
                &format!("{field}.taskOutputParameter.producerTask"),
            )?;
            let outputs = &component.output_definitions.parameters;
            if !outputs.contains_key(&output.output_parameter_key) {
                let (task, key) = (&output.producer_task, &output.output_parameter_key);
                let message = format!(
                    "task `{task}` has no output parameter `{key}`; it has {}",
                    listing(outputs.keys())
                );
                return Err(self.problem(
                    &format!("{field}.taskOutputParameter.outputParameterKey"),
                    message,
                ));
            }
            let made = outputs
                .get(&output.output_parameter_key)
                .map(|made| made.parameter_type);
            let made = if self.is_loop(&output.producer_task) {
                Some(ParameterType::List)
            } else {
                made
            };
            self.check_types(&field, source, made, declared)?;
        }
        if let Some(status) = task_final_status {
            self.producer(
                &status.producer_task,
                &format!("{field}.taskFinalStatus.producerTask"),
            )?;
        }
        if let Some(name) = component_input_parameter
            && !self.holder.input_definitions.parameters.contains_key(name)
        {
            let known = listing(self.holder.input_definitions.parameters.keys());
            let message =
                format!("the component around this task has no input parameter `{name}`; it takes {known}");
            return Err(self.problem(&format!("{field}.componentInputParameter"), message));
        }
        if let Some(name) = component_input_parameter {
            let given = self.holder.input_definitions.parameters.get(name);
            self.check_types(&field, source, given.map(|given| given.parameter_type), declared)?;
        }
        if let Some(value) = runtime_value.as_ref().and_then(|value| value.constant.as_ref())
            && parameter_expression_selector.is_empty()
            && !value.as_str().is_some_and(|text| text.contains("{{$"))
            && !value.is_null()
        {
            let at = format!("{field}.runtimeValue.constant");
            let value = declared
                .parameter_type
                .coerce(value.clone())
                .map_err(|e| self.problem(&at, e.to_string()))?;
            check_literals(declared, &value).map_err(|message| self.problem(&at, message))?;
        }
        Ok(())
    }

    /// A value of `from` must be able to become one of the declared type.
    fn check_types(
        &self,
        field: &str,
        source: &ParameterSource,
        from: Option<ParameterType>,
        declared: &InputParameterSpec,
    ) -> Result<(), Problem> {
        let to = declared.parameter_type;
        match from {
            Some(from) if source.parameter_expression_selector.is_empty() && !from.may_become(to) => {
                Err(self.problem(
                    field,
                    format!("expected {to}, and the value passed here is of type {from}"),
                ))
            }
            _ => Ok(()),
        }
    }

    fn is_loop(&self, task: &str) -> bool {
        self.dag.tasks.get(task).is_some_and(is_loop)
    }

    fn check_artifact(&self, input: &str, source: &ArtifactSource) -> Result<(), Problem> {
        let field = format!("inputs.artifacts.{input}");
        match (&source.task_output_artifact, &source.component_input_artifact) {
            (Some(output), None) => {
                let component = self.producer(
                    &output.producer_task,
                    &format!("{field}.taskOutputArtifact.producerTask"),
                )?;
                let outputs = &component.output_definitions.artifacts;
                if outputs.contains_key(&output.output_artifact_key) {
                    return Ok(());
                }
                let (task, key) = (&output.producer_task, &output.output_artifact_key);
                let message = format!(
                    "task `{task}` has no output artifact `{key}`; it has {}",
                    listing(outputs.keys())
                );
                Err(self.problem(&format!("{field}.taskOutputArtifact.outputArtifactKey"), message))
            }
            (None, Some(name)) if self.holder.input_definitions.artifacts.contains_key(name) => Ok(()),
            (None, Some(name)) => {
                let known = listing(self.holder.input_definitions.artifacts.keys());
                let message = format!(
                    "the component around this task has no input artifact `{name}`; it takes {known}"
                );
                Err(self.problem(&format!("{field}.componentInputArtifact"), message))
            }
            (Some(_), Some(_)) | (None, None) => Err(self.problem(
                &field,
                "expected `taskOutputArtifact` or `componentInputArtifact`",
            )),
        }
    }

    fn producer(&self, task: &str, field: &str) -> Result<&ComponentSpec, Problem> {
        let found = self
            .dag
            .tasks
            .get(task)
            .and_then(|task| self.spec.component_of(task));
        found.ok_or_else(|| {
            let known = listing(self.dag.tasks.keys());
            self.problem(
                field,
                format!("there is no task `{task}` here; tasks are {known}"),
            )
        })
    }

    pub(super) fn problem(&self, field: &str, message: impl Into<String>) -> Problem {
        Problem::at(format!("{}.{field}", self.path), message)
    }
}
