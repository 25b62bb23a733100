"""A request's generation options, completed with the checkpoint's own and checked against its limits."""

from dataclasses import dataclass, fields

from florence2.options import Limit, check_generation
from florence2.v1 import GenerationOptions

from florence2_server.engine.search_options import SearchOptions


@dataclass(frozen=True, kw_only=True)
class GenerationDefaults(SearchOptions):
    """The options in a checkpoint's generation config, and the limits that follow from its size and the settings.

    Attributes:
        positions: the number of encoder positions, and of decoder positions, in the key-value cache.
        longest_completion: the maximum `max_new_tokens` of a request.
        most_beams: the maximum `num_beams` of a request.
    """

    positions: Limit
    longest_completion: Limit
    most_beams: int

    def complete(self, options: GenerationOptions) -> SearchOptions:
        """The options in force for a request.

        Raises:
            InvalidArgumentError: an option is out of range. The message names it, its value and the limit.
        """
        limits = {
            "max_new_tokens": self.longest_completion,
            "min_new_tokens": Limit(self.max_new_tokens, "max_new_tokens"),
            "num_beams": Limit(self.most_beams),
        }
        given = check_generation(options, limits)
        own = {field.name: getattr(self, field.name) for field in fields(SearchOptions)}
        # The type of the default makes an enumeration's member of its value.
        return SearchOptions(**own | {name: type(own[name])(value) for name, value in given.items()})
