ALTER TABLE people ADD COLUMN instruction TEXT

-- downgrade

ALTER TABLE people DROP COLUMN instruction
