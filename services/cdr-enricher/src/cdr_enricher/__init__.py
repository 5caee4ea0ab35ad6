"""Raw records to judged records: validate, dedupe, enrich."""
