"""Errors of the engine process that are not a caller's."""


class CheckpointError(Exception):
    """A checkpoint cannot be served. The message is one line and says why."""


class ImageFileError(Exception):
    """The file in which a call's image was passed cannot be read by this process."""


class EngineClosedError(Exception):
    """The engine stopped before it answered."""
