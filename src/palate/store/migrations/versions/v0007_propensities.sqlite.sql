ALTER TABLE responses ADD COLUMN log_probs TEXT

CREATE TRIGGER propensities BEFORE UPDATE OF log_probs ON responses BEGIN SELECT RAISE(ABORT, 'propensities are only ever appended'); END

-- downgrade

DROP TRIGGER propensities

ALTER TABLE responses DROP COLUMN log_probs
