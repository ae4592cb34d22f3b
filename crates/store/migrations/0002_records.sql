-- Platform records. Ids are lower-case hyphenated UUIDs, times are microseconds since 1970 in UTC,
-- structured values are JSON. Wide columns come last, so that scans over the others stay narrow.

CREATE TABLE experiments (
    id TEXT NOT NULL PRIMARY KEY,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    storage_state TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    last_run_created_at BIGINT,
    description TEXT NOT NULL,
    UNIQUE (namespace, name)
);
CREATE INDEX experiments_by_namespace ON experiments (namespace, created_at, id, storage_state, name);
CREATE INDEX experiments_by_creation ON experiments (created_at, id);

-- Documents by digest of their canonical JSON: a document that a thousand runs share is kept once.
CREATE TABLE pipeline_documents (
    digest TEXT NOT NULL PRIMARY KEY,
    document TEXT NOT NULL
);

CREATE TABLE pipelines (
    id TEXT NOT NULL PRIMARY KEY,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    display_name TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    description TEXT NOT NULL,
    tags TEXT NOT NULL,
    UNIQUE (namespace, name)
);
CREATE INDEX pipelines_by_namespace ON pipelines (namespace, created_at, id);
CREATE INDEX pipelines_by_creation ON pipelines (created_at, id);

CREATE TABLE pipeline_versions (
    id TEXT NOT NULL PRIMARY KEY,
    pipeline_id TEXT NOT NULL REFERENCES pipelines (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    display_name TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    document_digest TEXT NOT NULL REFERENCES pipeline_documents (digest),
    description TEXT NOT NULL,
    code_source_url TEXT NOT NULL,
    package_url TEXT NOT NULL,
    tags TEXT NOT NULL,
    UNIQUE (pipeline_id, name)
);
CREATE INDEX pipeline_versions_by_pipeline ON pipeline_versions (pipeline_id, created_at, id);
CREATE INDEX pipeline_versions_by_document ON pipeline_versions (document_digest);

-- The tags of pipelines and versions once more, one a row, for filters.
CREATE TABLE tags (
    owner_id TEXT NOT NULL,
    tag TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (owner_id, tag)
);

-- A run outlives its experiment, pipeline and version: none of them is referenced.
CREATE TABLE runs (
    id TEXT NOT NULL PRIMARY KEY,
    experiment_id TEXT NOT NULL,
    namespace TEXT NOT NULL,
    display_name TEXT NOT NULL,
    storage_state TEXT NOT NULL,
    state TEXT NOT NULL,
    termination_requested BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    scheduled_at BIGINT NOT NULL,
    finished_at BIGINT,
    pipeline_id TEXT,
    pipeline_version_id TEXT,
    document_digest TEXT NOT NULL REFERENCES pipeline_documents (digest),
    pipeline_root TEXT NOT NULL,
    service_account TEXT NOT NULL,
    description TEXT NOT NULL,
    parameters TEXT NOT NULL,
    error TEXT,
    state_history TEXT NOT NULL
);
-- These two hold what lists are filtered and sorted by, so that no list reads more rows than it shows.
CREATE INDEX runs_by_namespace
    ON runs (namespace, created_at, id, storage_state, state, finished_at, display_name);
CREATE INDEX runs_by_experiment
    ON runs (experiment_id, created_at, id, storage_state, state, finished_at, display_name);
CREATE INDEX runs_by_creation ON runs (created_at, id);
CREATE INDEX runs_by_document ON runs (document_digest);
CREATE INDEX runs_unfinished ON runs (created_at, id)
    WHERE state IN ('PENDING', 'RUNNING', 'CANCELING', 'PAUSED');

CREATE TABLE tasks (
    id TEXT NOT NULL PRIMARY KEY,
    run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    parent_id TEXT,
    path TEXT NOT NULL,
    name TEXT NOT NULL,
    display_name TEXT NOT NULL,
    kind TEXT NOT NULL,
    iteration BIGINT,
    state TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    started_at BIGINT,
    finished_at BIGINT,
    error TEXT,
    state_history TEXT NOT NULL,
    inputs TEXT NOT NULL,
    outputs TEXT NOT NULL
);
CREATE INDEX tasks_by_run ON tasks (run_id);

CREATE TABLE attempts (
    task_id TEXT NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    number BIGINT NOT NULL,
    run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    namespace TEXT NOT NULL,
    pod_name TEXT NOT NULL,
    token TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    exit_code BIGINT,
    log_uri TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    started_at BIGINT,
    finished_at BIGINT,
    error TEXT,
    launch TEXT NOT NULL,
    pod TEXT NOT NULL,
    PRIMARY KEY (task_id, number)
);
CREATE INDEX attempts_by_run ON attempts (run_id);

CREATE TABLE reports (
    task_id TEXT NOT NULL,
    attempt BIGINT NOT NULL,
    run_id TEXT NOT NULL,
    report TEXT NOT NULL,
    PRIMARY KEY (task_id, attempt),
    FOREIGN KEY (task_id, attempt) REFERENCES attempts (task_id, number) ON DELETE CASCADE
);
CREATE INDEX reports_by_run ON reports (run_id);

CREATE TABLE task_events (
    id TEXT NOT NULL PRIMARY KEY,
    run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    task_id TEXT NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    happened_at BIGINT NOT NULL,
    kind TEXT NOT NULL,
    reason TEXT NOT NULL,
    message TEXT NOT NULL
);
CREATE INDEX task_events_by_run ON task_events (run_id, happened_at, id);
CREATE INDEX task_events_by_task ON task_events (task_id);

-- Artifacts outlive the run that made them.
CREATE TABLE artifacts (
    id TEXT NOT NULL PRIMARY KEY,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    artifact_type TEXT NOT NULL,
    type_version TEXT NOT NULL,
    uri TEXT NOT NULL,
    digest TEXT,
    size BIGINT,
    created_at BIGINT NOT NULL,
    metadata TEXT NOT NULL
);
CREATE INDEX artifacts_by_uri ON artifacts (namespace, uri, created_at, id);

CREATE TABLE artifact_tasks (
    task_id TEXT NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    io TEXT NOT NULL,
    io_key TEXT NOT NULL,
    position BIGINT NOT NULL,
    artifact_id TEXT NOT NULL REFERENCES artifacts (id),
    run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    producer_task TEXT NOT NULL,
    PRIMARY KEY (task_id, io, io_key, position, artifact_id)
);
CREATE INDEX artifact_tasks_by_run ON artifact_tasks (run_id, artifact_id);
CREATE INDEX artifact_tasks_by_artifact ON artifact_tasks (artifact_id);
