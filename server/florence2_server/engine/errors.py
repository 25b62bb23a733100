"""Errors of the engine process that are not a caller's."""


class CheckpointError(Exception):
    """A checkpoint cannot be served. The message is one line and says why."""


class AdapterError(CheckpointError):
    """An adapter cannot be served with this checkpoint. The message is one line and says why."""


class ImageFileError(Exception):
    """This process cannot read the file in which a request's image was passed."""


class EngineClosedError(Exception):
    """The engine stopped before a generation was complete."""
