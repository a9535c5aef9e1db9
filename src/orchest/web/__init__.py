"""The pages: what the platform knows, readable in a browser, rendered on the server."""
