ALTER TABLE people RENAME TO users

ALTER TABLE beliefs RENAME COLUMN "person" TO "user"

ALTER TABLE feedback RENAME COLUMN "person" TO "user"

ALTER TABLE responses RENAME COLUMN "person" TO "user"

ALTER TABLE responses RENAME COLUMN "way" TO "method"

DROP INDEX ix_responses_person

CREATE INDEX ix_responses_user ON responses ("user")

-- downgrade

DROP INDEX ix_responses_user

ALTER TABLE beliefs RENAME COLUMN "user" TO "person"

ALTER TABLE feedback RENAME COLUMN "user" TO "person"

ALTER TABLE responses RENAME COLUMN "user" TO "person"

ALTER TABLE responses RENAME COLUMN "method" TO "way"

CREATE INDEX ix_responses_person ON responses (person)

ALTER TABLE users RENAME TO people
