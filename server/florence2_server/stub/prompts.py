"""A task request -> the parts of the prompt, as the engine takes them."""

from florence2.prompts import Markup, Piece, PlainText, Region, prompt_pieces
from florence2.v1 import TaskRequest

from florence2_server.v1.engine_pb2 import PromptPart


def prompt_parts(request: TaskRequest) -> list[PromptPart]:
    """The prompt of a request that `florence2.prompts.check_request` has accepted.

    A region is passed on as pixels. The engine turns it into location tokens, because the image's size is known only
    after decoding.

    Raises:
        InvalidArgumentError: a rendered prompt has text after a task without input.
    """
    return [_part(piece) for piece in prompt_pieces(request)]


def _part(piece: Piece) -> PromptPart:
    match piece:
        case Markup():
            return PromptPart(markup=piece.text, field=piece.field)
        case PlainText():
            return PromptPart(text=piece.text, field=piece.field)
        case Region():
            return PromptPart(region=piece.box, field=piece.field)
