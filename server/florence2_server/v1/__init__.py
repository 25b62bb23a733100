"""Generated from `protos/florence2_server/v1`: the messages between stub and engine, private to the server."""
