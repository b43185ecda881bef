ALTER TABLE responses ADD COLUMN log_probs TEXT

ALTER TABLE responses ALTER log_probs SET STATISTICS 0

CREATE FUNCTION propensities() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'propensities are only ever appended'; END $$

CREATE TRIGGER propensities BEFORE UPDATE OF log_probs ON responses FOR EACH ROW EXECUTE FUNCTION propensities()

-- downgrade

DROP TRIGGER propensities ON responses

DROP FUNCTION propensities()

ALTER TABLE responses DROP COLUMN log_probs
