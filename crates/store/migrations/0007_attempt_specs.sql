-- What an attempt was given is written once; the rest of its row each time that its state changes.
CREATE TABLE attempt_specs (
    task_id TEXT NOT NULL,
    number BIGINT NOT NULL,
    launch TEXT NOT NULL,
    pod TEXT NOT NULL,
    PRIMARY KEY (task_id, number),
    FOREIGN KEY (task_id, number) REFERENCES attempts (task_id, number) ON DELETE CASCADE
);
INSERT INTO attempt_specs (task_id, number, launch, pod) SELECT task_id, number, launch, pod FROM attempts;
ALTER TABLE attempts DROP COLUMN launch;
ALTER TABLE attempts DROP COLUMN pod;
