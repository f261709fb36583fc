"""From cells to the fields of a row: schemas, repairs, checks, defects."""
