"""Judged records to windowed aggregates by segment."""
