"""What a tuned model is worth and whether it is served as it was trained."""
