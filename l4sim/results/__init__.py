"""What a run leaves: tables, metrics, pictures."""
