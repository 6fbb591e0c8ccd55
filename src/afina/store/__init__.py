"""What lasts: database rows and blobs. No torch."""
