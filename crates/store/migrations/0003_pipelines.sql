-- Retries, recurring runs and cached outputs.

ALTER TABLE runs ADD COLUMN retry_requested BIGINT NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN recurring_run_id TEXT;
DROP INDEX runs_unfinished;
CREATE INDEX runs_unfinished ON runs (created_at, id)
    WHERE state IN ('PENDING', 'RUNNING', 'CANCELING', 'PAUSED') OR retry_requested = 1;
CREATE INDEX runs_by_recurring_run ON runs (recurring_run_id, created_at, id, state)
    WHERE recurring_run_id IS NOT NULL;

ALTER TABLE tasks ADD COLUMN retries BIGINT NOT NULL DEFAULT 0;
ALTER TABLE tasks ADD COLUMN retry_at BIGINT;
ALTER TABLE tasks ADD COLUMN cached_from TEXT;

ALTER TABLE pipeline_versions ADD COLUMN warnings TEXT NOT NULL DEFAULT '[]';

-- As a run, it outlives its experiment, pipeline and version.
CREATE TABLE recurring_runs (
    id TEXT NOT NULL PRIMARY KEY,
    experiment_id TEXT NOT NULL,
    namespace TEXT NOT NULL,
    display_name TEXT NOT NULL,
    enabled BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    pipeline_id TEXT,
    pipeline_version_id TEXT,
    document_digest TEXT REFERENCES pipeline_documents (digest),
    pipeline_root TEXT NOT NULL,
    service_account TEXT NOT NULL,
    schedule TEXT NOT NULL,
    max_concurrency BIGINT NOT NULL,
    no_catchup BIGINT NOT NULL,
    last_due BIGINT,
    runs_made BIGINT NOT NULL,
    error TEXT,
    description TEXT NOT NULL,
    parameters TEXT NOT NULL
);
CREATE INDEX recurring_runs_by_namespace ON recurring_runs (namespace, created_at, id);
CREATE INDEX recurring_runs_by_experiment ON recurring_runs (experiment_id, created_at, id);
CREATE INDEX recurring_runs_by_creation ON recurring_runs (created_at, id);
CREATE INDEX recurring_runs_by_document ON recurring_runs (document_digest);
CREATE INDEX recurring_runs_enabled ON recurring_runs (created_at, id) WHERE enabled = 1;

-- The id is NAMESPACE/PIPELINE/KEY. Entries outlive the run and the artifacts they name.
CREATE TABLE cache_entries (
    id TEXT NOT NULL PRIMARY KEY,
    namespace TEXT NOT NULL,
    pipeline_name TEXT NOT NULL,
    cache_key TEXT NOT NULL,
    task_name TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    run_id TEXT NOT NULL,
    task_id TEXT NOT NULL,
    outputs TEXT NOT NULL
);
CREATE INDEX cache_entries_by_namespace
    ON cache_entries (namespace, created_at, id, pipeline_name, task_name, cache_key);

-- Which artifacts an entry hands out.
CREATE TABLE cache_artifacts (
    entry_id TEXT NOT NULL REFERENCES cache_entries (id) ON DELETE CASCADE,
    artifact_id TEXT NOT NULL,
    PRIMARY KEY (entry_id, artifact_id)
);
CREATE INDEX cache_artifacts_by_artifact ON cache_artifacts (artifact_id);
