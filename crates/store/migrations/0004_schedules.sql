-- What the API shows and filters by.
ALTER TABLE recurring_runs ADD COLUMN status TEXT
    GENERATED ALWAYS AS (CASE enabled WHEN 1 THEN 'ENABLED' ELSE 'DISABLED' END) VIRTUAL;
