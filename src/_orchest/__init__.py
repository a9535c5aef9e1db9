"""What the platform's parts share."""
