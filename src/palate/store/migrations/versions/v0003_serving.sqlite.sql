ALTER TABLE api_keys ADD COLUMN role VARCHAR(16) DEFAULT 'user' NOT NULL

ALTER TABLE api_keys ADD COLUMN expires_at DOUBLE

ALTER TABLE people ADD COLUMN preference TEXT

ALTER TABLE people ADD COLUMN forgotten INTEGER DEFAULT '0' NOT NULL

ALTER TABLE responses ADD COLUMN tokens TEXT DEFAULT '[]' NOT NULL

CREATE TABLE marks (
    name VARCHAR(64) NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (name)
)

-- downgrade

DROP TABLE marks

ALTER TABLE responses DROP COLUMN tokens

ALTER TABLE people DROP COLUMN forgotten

ALTER TABLE people DROP COLUMN preference

ALTER TABLE api_keys DROP COLUMN expires_at

ALTER TABLE api_keys DROP COLUMN role
