//! Labels and annotations that Coracle puts on Kubernetes objects, and reads back.

/// Label on a task's Pod: the run's id. KFP's own name for it.
pub const RUN_ID: &str = "pipeline/runid";
/// Label on a task's Pod: the task's id.
pub const TASK_ID: &str = "coracle.dev/task-id";
/// Label on a task's Pod: the attempt's number, from 1.
pub const ATTEMPT: &str = "coracle.dev/attempt";
/// Label on a task's Pod: the task's name in its pipeline.
pub const TASK_NAME: &str = "coracle.dev/task-name";
/// Label on a task's Pod on a cluster: the server that it is of. On a server's own node it has none.
pub const SERVER: &str = "coracle.dev/server";
/// Annotation on a Pod: the Python packages its container installs first, as the JSON of
/// [`crate::ir::preamble::Requirements`]. A node may prepare an environment that holds them.
pub const PYTHON_REQUIREMENTS: &str = "coracle.dev/python-requirements";
/// Annotation on a Pod: how a node of this machine runs it, `process` or `container`, whatever the server's own choice.
pub const RUNTIME: &str = "coracle.dev/runtime";
/// Environment variable that the node sets when it prepared exactly the environment that
/// [`PYTHON_REQUIREMENTS`] asks for: the launcher then leaves the pip preamble out.
pub const REQUIREMENTS_MET_ENV: &str = "CORACLE_PYTHON_REQUIREMENTS_MET";
/// Annotation on a Pod: the name of its container whose launcher can hand its command to a Python process that has
/// imported the KFP executor already.
pub const PYTHON_WORKER: &str = "coracle.dev/python-worker";
/// Environment variable that is set in such a container if its standard input leads to that process.
pub const PYTHON_WORKER_ENV: &str = "CORACLE_PYTHON_WORKER";
/// Environment variable with the server's URL, for the launcher.
pub const SERVER_ENV: &str = "CORACLE_LAUNCH_SERVER";
/// Environment variable with the launcher's token: it admits to one attempt of one task.
pub const TOKEN_ENV: &str = "CORACLE_LAUNCH_TOKEN";
