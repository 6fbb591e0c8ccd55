"""The dashboard: pages for people who do not write code, over the functions of `service`."""
