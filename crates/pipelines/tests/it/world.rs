//! A run being planned, with a hand that plays launchers, Pods and users.

use std::collections::BTreeMap;

use coracle_api::{
    id::{ExperimentId, RunId, TaskId},
    ir::document,
    launch::{Failure, ProducedArtifact, Report, RuntimeArtifact, Spec},
    reason::Reason,
    state::{RuntimeState, StorageState},
};
use coracle_pipelines::{
    run::{
        observe::{PodEnd, PodView},
        pipeline::Pipeline,
        plan::{self, Event, Plan},
        state::State,
    },
    task::container::{Cache, Settings},
};
use coracle_store::records::{Attempt, Run, Task};
use jiff::Timestamp;
use serde_json::{Value, json};

/// A run being planned.
pub(crate) struct World {
    pipeline: Pipeline,
    settings: Settings,
    /// What the engine knows.
    pub(crate) state: State,
    /// Every plan so far, as one.
    pub(crate) done: Plan,
    /// What launchers fetch.
    launches: BTreeMap<(TaskId, u32), String>,
    now: Timestamp,
    tokens: u32,
}

impl World {
    /// A run of `pipeline`, taken up.
    pub(crate) fn of(pipeline: &Value, parameters: Value) -> Self {
        let document = document::from_value(pipeline).unwrap_or_else(|problem| panic!("{problem}"));
        let pipeline = Pipeline::new(document);
        let now = Timestamp::UNIX_EPOCH;
        let run = Run {
            id: "0198c0de-0000-7000-8000-000000000001".parse::<RunId>().unwrap(),
            experiment_id: ExperimentId::new(),
            namespace: "default".into(),
            display_name: "a run".into(),
            description: String::new(),
            storage_state: StorageState::Available,
            pipeline_id: None,
            pipeline_version_id: None,
            document_digest: String::new(),
            parameters: parameters.as_object().unwrap().clone(),
            pipeline_root: String::new(),
            service_account: String::new(),
            state: RuntimeState::Pending,
            error: None,
            state_history: Vec::new(),
            termination_requested: false,
            retry_requested: false,
            recurring_run_id: None,
            created_at: now,
            scheduled_at: now,
            finished_at: None,
        };
        let state = State::load(&pipeline, run, Vec::new(), Vec::new(), Vec::new()).unwrap();
        let settings = Settings {
            artifact_root: "/artifacts".into(),
            launcher: "/bin/coracle".into(),
            server_url: "http://127.0.0.1:1".into(),
            cluster: None,
            cache: Some(Cache::default()),
        };
        let mut world = Self {
            pipeline,
            settings,
            state,
            done: Plan::default(),
            launches: BTreeMap::new(),
            now,
            tokens: 0,
        };
        world.happens(Event::Resumed);
        world
    }

    /// Plans over an event; returns what this one led to.
    pub(crate) fn happens(&mut self, event: Event) -> Plan {
        self.now += jiff::SignedDuration::from_millis(1);
        let Self {
            pipeline,
            settings,
            state,
            now,
            tokens,
            ..
        } = self;
        let mut token = || {
            *tokens += 1;
            format!("token-{tokens}")
        };
        let plan = plan::step(pipeline, settings, state, event, &mut token, *now);
        let specs = plan.commit.specs.iter();
        let launches = specs.map(|spec| ((spec.task_id, spec.number), spec.launch.clone()));
        self.launches.extend(launches);
        self.done.extend(plan.clone());
        plan
    }

    /// Time passes, and the engine looks.
    pub(crate) fn after(&mut self, seconds: i64) -> Plan {
        self.now += jiff::SignedDuration::from_secs(seconds);
        self.happens(Event::TimeCame)
    }

    /// Somebody sets the clock, and the engine notices or, when it does not run, does not.
    pub(crate) fn clock_is_set(&mut self, seconds: i64, is_noticed: bool) {
        let by = jiff::SignedDuration::from_secs(seconds);
        self.now += by;
        if is_noticed {
            self.happens(Event::ClockSet { by });
        }
    }

    /// The run was ended, and somebody asks it to go on.
    pub(crate) fn retry(&mut self) -> Plan {
        assert!(self.state.run.state.is_terminal(), "{}", self.state.run.state);
        self.state.run.retry_requested = true;
        self.happens(Event::Resumed)
    }

    /// How many attempts a task has had.
    pub(crate) fn attempts(&self, path: &str) -> usize {
        self.state.nodes[&self.id(path)].attempts.len()
    }

    /// Builds the state again from the rows written so far, as after a restart.
    pub(crate) fn restarts(&mut self) -> Plan {
        let mut tasks: BTreeMap<TaskId, Task> = BTreeMap::new();
        tasks.extend(self.done.commit.tasks.iter().map(|task| (task.id, task.clone())));
        let mut attempts: BTreeMap<(TaskId, u32), Attempt> = BTreeMap::new();
        attempts.extend(
            self.done
                .commit
                .attempts
                .iter()
                .map(|row| ((row.task_id, row.number), row.clone())),
        );
        let mut run = self.state.run.clone();
        if let Some(status) = &self.done.commit.run {
            run.state = status.state;
            run.finished_at = status.finished_at;
            run.state_history.clone_from(&status.state_history);
        }
        self.state = State::load(
            &self.pipeline,
            run,
            tasks.into_values().collect(),
            attempts.into_values().collect(),
            self.done.commit.artifacts.clone(),
        )
        .unwrap();
        self.happens(Event::Resumed)
    }

    /// A task's row.
    pub(crate) fn task(&self, path: &str) -> &Task {
        let id = self.id(path);
        let mut rows = self.done.commit.tasks.iter().rev();
        rows.find(|row| row.id == id)
            .unwrap_or_else(|| panic!("no task {path}"))
    }

    pub(crate) fn id(&self, path: &str) -> TaskId {
        TaskId::at(self.state.run.id, path)
    }

    /// The attempts under way, by path.
    pub(crate) fn at_work(&self) -> Vec<&str> {
        let nodes = self
            .state
            .nodes
            .values()
            .filter(|node| node.current_attempt().is_some());
        let mut paths: Vec<_> = nodes.map(|node| node.task.path.as_str()).collect();
        paths.sort_unstable();
        paths
    }

    /// State by path, as `path=STATE`, reason in brackets.
    pub(crate) fn states(&self) -> Vec<String> {
        let mut states: Vec<_> = self
            .state
            .nodes
            .values()
            .map(|node| match &node.task.error {
                None => format!("{}={}", node.task.path, node.task.state),
                Some(failure) => format!("{}={} ({})", node.task.path, node.task.state, failure.reason),
            })
            .collect();
        states.sort_unstable();
        states
    }

    /// What the launcher of a task's newest attempt is given.
    pub(crate) fn launch(&self, path: &str) -> Spec {
        serde_json::from_str(&self.launches[&(self.id(path), self.number(path))]).unwrap()
    }

    /// The launcher reports success with these parameters and one artifact per name.
    pub(crate) fn succeeds(&mut self, path: &str, parameters: Value, artifacts: &[&str]) -> Plan {
        let outputs = self.launch(path).executor_input.outputs.artifacts;
        let made = |name: &&str| {
            let artifact: RuntimeArtifact = outputs[*name].artifacts[0].clone();
            (
                (*name).to_owned(),
                vec![ProducedArtifact {
                    artifact,
                    digest: None,
                    size: Some(3),
                }],
            )
        };
        let report = Report {
            parameters: parameters
                .as_object()
                .cloned()
                .unwrap_or_default()
                .into_iter()
                .collect(),
            artifacts: artifacts.iter().map(made).collect(),
            failure: None,
            exit_code: Some(0),
        };
        self.reports(path, report)
    }

    /// The launcher reports success with a list of artifacts.
    pub(crate) fn makes_list(&mut self, path: &str, name: &str, count: usize) -> Plan {
        let first = self.launch(path).executor_input.outputs.artifacts[name].artifacts[0].clone();
        let made = (0..count).map(|number| ProducedArtifact {
            artifact: RuntimeArtifact {
                uri: format!("{}-{number}", first.uri),
                ..first.clone()
            },
            digest: None,
            size: Some(3),
        });
        let report = Report {
            parameters: Default::default(),
            artifacts: [(name.to_owned(), made.collect())].into_iter().collect(),
            failure: None,
            exit_code: Some(0),
        };
        self.reports(path, report)
    }

    /// The launcher reports a failure, and the Pod ends.
    pub(crate) fn fails(&mut self, path: &str) -> Plan {
        let failure = Failure {
            reason: Reason::CommandFailed,
            message: "exit code 1: boom".into(),
        };
        let report = Report {
            parameters: Default::default(),
            artifacts: Default::default(),
            failure: Some(failure),
            exit_code: Some(1),
        };
        self.reports(path, report);
        self.pod(
            path,
            PodView::Ended(PodEnd {
                failure: None,
                exit_code: Some(1),
            }),
        )
    }

    pub(crate) fn reports(&mut self, path: &str, report: Report) -> Plan {
        let task = self.id(path);
        let number = self.number(path);
        self.happens(Event::Reported { task, number, report })
    }

    pub(crate) fn pod(&mut self, path: &str, view: PodView) -> Plan {
        let (task, number) = (self.id(path), self.number(path));
        self.happens(Event::Pod { task, number, view })
    }

    fn number(&self, path: &str) -> u32 {
        self.state.nodes[&self.id(path)].attempts.last().unwrap().number
    }
}

/// A container component `name` with these definitions.
pub(crate) fn component(inputs: Value, outputs: Value) -> Value {
    json!({"executorLabel": "exec", "inputDefinitions": inputs, "outputDefinitions": outputs})
}

/// A pipeline of this root DAG and these components; every leaf runs one shell command.
pub(crate) fn pipeline(root: Value, components: Value) -> Value {
    json!({
        "pipelineInfo": {"name": "test"},
        "schemaVersion": "2.1.0",
        "root": root,
        "components": components,
        "deploymentSpec": {"executors": {
            "exec": {"container": {"image": "alpine", "command": ["true"]}},
            "import": {"importer": {
                "artifactUri": {"runtimeParameter": "uri"},
                "typeSchema": {"schemaTitle": "system.Dataset", "schemaVersion": "0.0.1"},
                "metadata": {"from": "{{$.inputs.parameters['uri']}}"}
            }}
        }}
    })
}
