"""The routes, by noun. Each is a thin skin over one verb of `afina.service`."""
