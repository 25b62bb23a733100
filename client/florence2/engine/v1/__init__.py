"""`protos/florence2/engine/v1`, generated: Triton's stub speaks it to the engine process. Private to the server."""
