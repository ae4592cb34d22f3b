//! Settings of a task that its component takes over: it hands them to something it starts (`dsl.TaskConfig`). Pure.
//!
//! As in KFP's driver: a component that names no setting has all of them on its Pod; what it names is on its Pod
//! only if it says so.

use coracle_api::ir::{ComponentSpec, ParameterType, TaskConfigField as Field};
use serde_json::{Map, Value, json};

use super::kubernetes::{PodSettings, volumes::Volumes};

/// Which settings go where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Passthroughs<'a>(&'a ComponentSpec);

impl<'a> Passthroughs<'a> {
    pub(super) const fn of(component: &'a ComponentSpec) -> Self {
        Self(component)
    }

    /// Whether it holds for the task's own Pod.
    pub(super) fn on_pod(self, field: Field) -> bool {
        let mut named = self
            .0
            .task_config_passthroughs
            .iter()
            .rev()
            .filter(|one| one.field == field);
        named.next().is_none_or(|one| one.apply_to_task)
    }

    fn is_handed_on(self, field: Field) -> bool {
        self.0
            .task_config_passthroughs
            .iter()
            .any(|one| one.field == field)
    }

    /// The inputs that take the settings.
    pub(super) fn inputs(self) -> impl Iterator<Item = &'a String> {
        let inputs = &self.0.input_definitions.parameters;
        inputs
            .iter()
            .filter(|(_, input)| input.parameter_type == ParameterType::TaskConfig)
            .map(|(name, _)| name)
    }

    /// The value of those inputs: what is not handed on, or not set, is null.
    pub(super) fn value(
        self,
        settings: &PodSettings,
        env: &[Value],
        resources: &Value,
        volumes: &Volumes,
    ) -> Value {
        let list = |field: Field, items: Vec<Value>| {
            let is_there = self.is_handed_on(field) && !items.is_empty();
            is_there.then_some(items).map_or(Value::Null, Value::Array)
        };
        let one = |field: Field, value: Option<Value>| {
            value.filter(|_| self.is_handed_on(field)).unwrap_or(Value::Null)
        };
        let (carried, mounts) = volumes.carried();
        let resources = if self.is_handed_on(Field::Resources) {
            let lists = resources.as_object().into_iter().flatten();
            let filled = lists.filter(|(_, list)| list.as_object().is_some_and(|list| !list.is_empty()));
            filled.map(|(name, list)| (name.clone(), list.clone())).collect()
        } else {
            Map::new()
        };
        json!({
            "affinity": one(Field::KubernetesAffinity, settings.affinity.clone()),
            "tolerations": list(Field::KubernetesTolerations, settings.tolerations.clone()),
            "nodeSelector": one(Field::KubernetesNodeSelector, settings.node_selector.clone().map(Value::Object)),
            "env": list(Field::Env, env.to_vec()),
            "volumes": list(Field::KubernetesVolumes, carried),
            "volumeMounts": list(Field::KubernetesVolumes, mounts),
            "resources": resources,
        })
    }
}
