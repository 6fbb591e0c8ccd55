"""The road of a job: claim, stages, launch, publish."""
