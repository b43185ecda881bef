ALTER TABLE beliefs ADD COLUMN learner VARCHAR(64) DEFAULT '' NOT NULL

CREATE TABLE erasures (
    id VARCHAR(64) NOT NULL,
    tenant VARCHAR(64) NOT NULL,
    n_rows INTEGER NOT NULL,
    erased_at DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (id)
)

-- downgrade

DROP TABLE erasures

ALTER TABLE beliefs DROP COLUMN learner
