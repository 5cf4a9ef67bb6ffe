"""What listens for HTTP requests."""
