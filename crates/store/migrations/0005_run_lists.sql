-- What makes any page of a list of runs fast, however many runs there are. From here on these are
-- SQLite's own means: triggers, and full-text search by groups of three characters.

-- An index per order, for each scope. Each also holds what such lists are mostly filtered by, so
-- that rows that a filter drops are not read.
-- The time of finishing again, to be sorted by: 0 for a run that has not ended.
ALTER TABLE runs ADD COLUMN ended_at BIGINT NOT NULL DEFAULT 0;
UPDATE runs SET ended_at = finished_at WHERE finished_at IS NOT NULL;
DROP INDEX runs_by_namespace;
DROP INDEX runs_by_experiment;
CREATE INDEX runs_by_namespace
    ON runs (namespace, created_at, id, storage_state, state, finished_at, display_name);
CREATE INDEX runs_by_namespace_name ON runs (namespace, display_name, created_at, id, storage_state, state);
CREATE INDEX runs_by_namespace_end
    ON runs (namespace, ended_at, id, storage_state, state, created_at, finished_at);
CREATE INDEX runs_by_namespace_due ON runs (namespace, scheduled_at, id, storage_state, state, created_at);
CREATE INDEX runs_by_namespace_state ON runs (namespace, state, created_at, id, storage_state);
CREATE INDEX runs_by_namespace_storage ON runs (namespace, storage_state, created_at, id, state);
CREATE INDEX runs_by_namespace_id ON runs (namespace, id, storage_state, state, created_at);
CREATE INDEX runs_by_experiment
    ON runs (experiment_id, created_at, id, storage_state, state, finished_at, display_name);
CREATE INDEX runs_by_experiment_name ON runs (experiment_id, display_name, created_at, id, storage_state, state);
CREATE INDEX runs_by_experiment_end
    ON runs (experiment_id, ended_at, id, storage_state, state, created_at, finished_at);
CREATE INDEX runs_by_experiment_due ON runs (experiment_id, scheduled_at, id, storage_state, state, created_at);
CREATE INDEX runs_by_experiment_state ON runs (experiment_id, state, created_at, id, storage_state);
CREATE INDEX runs_by_experiment_storage ON runs (experiment_id, storage_state, created_at, id, state);
CREATE INDEX runs_by_experiment_id ON runs (experiment_id, id, storage_state, state, created_at);

-- How many runs there are of each kind: what a list says of its total is added up from these.
CREATE TABLE run_counts (
    namespace TEXT NOT NULL,
    experiment_id TEXT NOT NULL,
    storage_state TEXT NOT NULL,
    state TEXT NOT NULL,
    runs BIGINT NOT NULL,
    PRIMARY KEY (namespace, experiment_id, storage_state, state)
) WITHOUT ROWID;
CREATE INDEX run_counts_by_experiment ON run_counts (experiment_id, storage_state, state, runs);
INSERT INTO run_counts (namespace, experiment_id, storage_state, state, runs)
    SELECT namespace, experiment_id, storage_state, state, COUNT(*) FROM runs GROUP BY 1, 2, 3, 4;

-- The names once more, numbered, to be searched for parts of them.
CREATE TABLE run_names (
    number INTEGER NOT NULL PRIMARY KEY,
    run_id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL
);
CREATE VIRTUAL TABLE run_name_parts
    USING fts5 (name, content = 'run_names', content_rowid = 'number', tokenize = 'trigram');
INSERT INTO run_names (run_id, name) SELECT id, display_name FROM runs;
INSERT INTO run_name_parts (rowid, name) SELECT number, name FROM run_names;
CREATE TRIGGER run_names_added AFTER INSERT ON run_names BEGIN
    INSERT INTO run_name_parts (rowid, name) VALUES (NEW.number, NEW.name);
END;
CREATE TRIGGER run_names_deleted AFTER DELETE ON run_names BEGIN
    INSERT INTO run_name_parts (run_name_parts, rowid, name) VALUES ('delete', OLD.number, OLD.name);
END;

CREATE TRIGGER runs_added AFTER INSERT ON runs BEGIN
    INSERT INTO run_counts (namespace, experiment_id, storage_state, state, runs)
        VALUES (NEW.namespace, NEW.experiment_id, NEW.storage_state, NEW.state, 1)
        ON CONFLICT (namespace, experiment_id, storage_state, state) DO UPDATE SET runs = runs + 1;
    INSERT INTO run_names (run_id, name) VALUES (NEW.id, NEW.display_name);
END;
CREATE TRIGGER runs_deleted AFTER DELETE ON runs BEGIN
    UPDATE run_counts SET runs = runs - 1
        WHERE namespace = OLD.namespace AND experiment_id = OLD.experiment_id
            AND storage_state = OLD.storage_state AND state = OLD.state;
    DELETE FROM run_counts
        WHERE namespace = OLD.namespace AND experiment_id = OLD.experiment_id
            AND storage_state = OLD.storage_state AND state = OLD.state AND runs = 0;
    DELETE FROM run_names WHERE run_id = OLD.id;
END;
CREATE TRIGGER runs_moved AFTER UPDATE OF namespace, experiment_id, storage_state, state ON runs
    WHEN (OLD.namespace, OLD.experiment_id, OLD.storage_state, OLD.state)
        <> (NEW.namespace, NEW.experiment_id, NEW.storage_state, NEW.state)
BEGIN
    UPDATE run_counts SET runs = runs - 1
        WHERE namespace = OLD.namespace AND experiment_id = OLD.experiment_id
            AND storage_state = OLD.storage_state AND state = OLD.state;
    DELETE FROM run_counts
        WHERE namespace = OLD.namespace AND experiment_id = OLD.experiment_id
            AND storage_state = OLD.storage_state AND state = OLD.state AND runs = 0;
    INSERT INTO run_counts (namespace, experiment_id, storage_state, state, runs)
        VALUES (NEW.namespace, NEW.experiment_id, NEW.storage_state, NEW.state, 1)
        ON CONFLICT (namespace, experiment_id, storage_state, state) DO UPDATE SET runs = runs + 1;
END;
CREATE TRIGGER runs_renamed AFTER UPDATE OF display_name ON runs WHEN OLD.display_name <> NEW.display_name BEGIN
    DELETE FROM run_names WHERE run_id = OLD.id;
    INSERT INTO run_names (run_id, name) VALUES (NEW.id, NEW.display_name);
END;

-- Lists of artifacts.
CREATE INDEX artifacts_by_namespace ON artifacts (namespace, created_at, id, artifact_type, name);
CREATE INDEX artifacts_by_name ON artifacts (namespace, name, id);
