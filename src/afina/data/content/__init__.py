"""What many rows say together: copies, contradictions, leaks, habits, languages, secrets."""
