"""Pure: what makes a record stored, a duplicate or rejected, and what is known of it."""
