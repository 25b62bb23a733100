"""Messages between the server's own processes. Private to the server."""
