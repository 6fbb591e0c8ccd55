"""The command line and the processes of the platform."""
