-- Kubernetes objects: what is (resource_objects) and how it came to be (resource_log).

-- One row: the revision that all resources share, and the highest one the log no longer holds.
-- It starts at 1 because clients give the resource version 0 a meaning of its own.
CREATE TABLE resource_revision (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    latest BIGINT NOT NULL,
    compacted BIGINT NOT NULL
);
INSERT INTO resource_revision (id, latest, compacted) VALUES (1, 1, 0);

-- The namespace of a cluster-scoped object is ''.
CREATE TABLE resource_objects (
    api_group TEXT NOT NULL,
    resource TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    revision BIGINT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (api_group, resource, namespace, name)
);

-- Append-only, until it is compacted. A row holds the body before as well as after, so that a
-- list at an old revision needs only the rows above that revision.
CREATE TABLE resource_log (
    revision BIGINT NOT NULL PRIMARY KEY,
    api_group TEXT NOT NULL,
    resource TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    previous_revision BIGINT,
    body TEXT NOT NULL,
    previous_body TEXT
);
CREATE INDEX resource_log_by_resource ON resource_log (api_group, resource, revision);
