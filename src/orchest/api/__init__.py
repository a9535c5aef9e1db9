"""The REST API: HTTP in, calls down to the services, JSON out. Conventions for all of it are in `http`."""
