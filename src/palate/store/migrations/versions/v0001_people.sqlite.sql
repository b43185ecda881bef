CREATE TABLE tenants (
    id VARCHAR(64) NOT NULL,
    created_at DOUBLE NOT NULL,
    PRIMARY KEY (id)
)

CREATE TABLE people (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    tenant VARCHAR(64) NOT NULL,
    name TEXT NOT NULL,
    created_at DOUBLE NOT NULL,
    UNIQUE (tenant, name),
    FOREIGN KEY(tenant) REFERENCES tenants (id)
)

CREATE TABLE beliefs (
    person INTEGER NOT NULL,
    mean BLOB NOT NULL,
    covariance BLOB NOT NULL,
    n_observations INTEGER NOT NULL,
    gain DOUBLE NOT NULL,
    PRIMARY KEY (person),
    FOREIGN KEY(person) REFERENCES people (id) ON DELETE CASCADE
)

CREATE TABLE feedback (
    person INTEGER NOT NULL,
    position INTEGER NOT NULL,
    "key" TEXT,
    kind VARCHAR(16) NOT NULL,
    features BLOB NOT NULL,
    label DOUBLE NOT NULL,
    "group" TEXT NOT NULL,
    created_at DOUBLE NOT NULL,
    PRIMARY KEY (person, position),
    UNIQUE (person, "key"),
    FOREIGN KEY(person) REFERENCES people (id) ON DELETE CASCADE
)

CREATE TABLE responses (
    id VARCHAR(64) NOT NULL,
    person INTEGER NOT NULL,
    prompt TEXT NOT NULL,
    shown TEXT NOT NULL,
    features TEXT NOT NULL,
    way VARCHAR(64) NOT NULL,
    coefficients TEXT NOT NULL,
    seed BIGINT NOT NULL,
    created_at DOUBLE NOT NULL,
    PRIMARY KEY (id),
    FOREIGN KEY(person) REFERENCES people (id) ON DELETE CASCADE
)

CREATE INDEX ix_responses_person ON responses (person)

CREATE TABLE api_keys (
    prefix VARCHAR(16) NOT NULL,
    tenant VARCHAR(64) NOT NULL,
    label TEXT NOT NULL,
    digest VARCHAR(64) NOT NULL,
    created_at DOUBLE NOT NULL,
    is_revoked BOOLEAN NOT NULL,
    PRIMARY KEY (prefix),
    FOREIGN KEY(tenant) REFERENCES tenants (id),
    UNIQUE (digest)
)

CREATE TRIGGER feedback_append_only BEFORE UPDATE ON feedback
    BEGIN SELECT RAISE(ABORT, 'feedback is only ever appended'); END

-- downgrade

DROP TABLE api_keys

DROP TABLE responses

DROP TABLE feedback

DROP TABLE beliefs

DROP TABLE people

DROP TABLE tenants
