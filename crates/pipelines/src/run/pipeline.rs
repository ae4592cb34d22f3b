//! The part of a run that never changes: its pipeline, with the waiting relations worked out.

use std::collections::{BTreeSet, HashMap};

use coracle_api::ir::{
    ComponentSpec, DagSpec, PipelineSpec, TaskSpec, document::Document, platform::PipelineConfig,
};
use serde::Deserialize;
use serde_json::Value;

/// The component name that stands for the root.
pub const ROOT: &str = "";

/// A validated pipeline, ready to be planned over.
#[derive(Debug)]
pub struct Pipeline {
    spec: PipelineSpec,
    platform: Option<Value>,
    config: PipelineConfig,
    graphs: HashMap<String, Graph>,
}

/// Who waits for whom inside one DAG.
#[derive(Debug, Default)]
pub struct Graph {
    upstream: HashMap<String, BTreeSet<String>>,
    downstream: HashMap<String, BTreeSet<String>>,
}

impl Graph {
    fn of(dag: &DagSpec) -> Self {
        let mut graph = Self::default();
        for (name, task) in &dag.tasks {
            for upstream in task.upstream() {
                graph
                    .upstream
                    .entry(name.clone())
                    .or_default()
                    .insert(upstream.to_owned());
                graph
                    .downstream
                    .entry(upstream.to_owned())
                    .or_default()
                    .insert(name.clone());
            }
        }
        graph
    }

    /// The tasks that `task` waits for.
    pub fn upstream(&self, task: &str) -> impl Iterator<Item = &str> {
        self.upstream.get(task).into_iter().flatten().map(String::as_str)
    }

    /// The tasks that wait for `task`.
    pub fn downstream(&self, task: &str) -> impl Iterator<Item = &str> {
        self.downstream
            .get(task)
            .into_iter()
            .flatten()
            .map(String::as_str)
    }
}

impl Pipeline {
    /// Works out the waiting relations of every DAG.
    #[must_use]
    pub fn new(document: Document) -> Self {
        let Document { spec, platform, .. } = document;
        let config = config_of(platform.as_ref());
        let components = spec
            .components
            .iter()
            .map(|(name, component)| (name.clone(), component));
        let graphs = std::iter::once((ROOT.to_owned(), &spec.root))
            .chain(components)
            .filter_map(|(name, component)| Some((name, Graph::of(component.dag.as_ref()?))))
            .collect();
        Self {
            spec,
            platform,
            config,
            graphs,
        }
    }

    /// The pipeline itself.
    #[must_use]
    pub const fn spec(&self) -> &PipelineSpec {
        &self.spec
    }

    /// What the platform part says about the whole pipeline.
    #[must_use]
    pub const fn config(&self) -> &PipelineConfig {
        &self.config
    }

    /// A component by name; [`ROOT`] is the root.
    #[must_use]
    pub fn component(&self, name: &str) -> Option<&ComponentSpec> {
        if name == ROOT {
            Some(&self.spec.root)
        } else {
            self.spec.components.get(name)
        }
    }

    /// The DAG of a component.
    #[must_use]
    pub fn dag(&self, component: &str) -> Option<&DagSpec> {
        self.component(component)?.dag.as_ref()
    }

    /// A task of a component's DAG.
    #[must_use]
    pub fn task(&self, component: &str, name: &str) -> Option<&TaskSpec> {
        self.dag(component)?.tasks.get(name)
    }

    /// Who waits for whom inside a component's DAG.
    #[must_use]
    pub fn graph(&self, component: &str) -> Option<&Graph> {
        self.graphs.get(component)
    }

    /// The Kubernetes part of an executor's configuration, when it has one that says anything.
    #[must_use]
    pub fn kubernetes_config(&self, executor_label: &str) -> Option<&serde_json::Map<String, Value>> {
        let kubernetes = self.platform.as_ref()?.get("platforms")?.get("kubernetes")?;
        let executors = kubernetes
            .get("deploymentSpec")
            .or_else(|| kubernetes.get("deployment_spec"))?
            .get("executors")?;
        executors
            .get(executor_label)?
            .as_object()
            .filter(|config| !config.is_empty())
    }
}

/// What cannot be read was refused when the pipeline came.
fn config_of(platform: Option<&Value>) -> PipelineConfig {
    let kubernetes = platform.and_then(|platform| platform.get("platforms")?.get("kubernetes"));
    let config = kubernetes.and_then(|kubernetes| {
        kubernetes
            .get("pipelineConfig")
            .or_else(|| kubernetes.get("pipeline_config"))
    });
    config
        .and_then(|config| PipelineConfig::deserialize(config).ok())
        .unwrap_or_default()
}
