ALTER TABLE beliefs ADD COLUMN is_converged BOOLEAN DEFAULT 1 NOT NULL

ALTER TABLE erasures ADD COLUMN n_feedback INTEGER DEFAULT '0' NOT NULL

ALTER TABLE erasures ADD COLUMN n_responses INTEGER DEFAULT '0' NOT NULL

ALTER TABLE erasures ADD COLUMN remains TEXT DEFAULT 'what the database''s files held of before; run `palate users receipts`' NOT NULL

-- downgrade

ALTER TABLE beliefs DROP COLUMN is_converged

ALTER TABLE erasures DROP COLUMN n_feedback

ALTER TABLE erasures DROP COLUMN n_responses

ALTER TABLE erasures DROP COLUMN remains
