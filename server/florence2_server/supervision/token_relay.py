"""Passes on each of a generation's tokens once, even if its engine crashes and the next one starts over."""

from collections.abc import Callable

from florence2_server.v1.engine_pb2 import GeneratedTokens, GenerateResponse


class DivergenceError(Exception):
    """An engine's tokens differ from those that were passed on from an earlier engine."""


class TokenRelay:
    """Compares what engines send with what has been passed on, and passes on what is new. For one thread at a time.

    Log-probabilities and masses are not compared: their last bits depend on what else was in the decode batch. Those
    that were passed on first are kept.

    Args:
        on_tokens: called with the next tokens, in order.
    """

    def __init__(self, on_tokens: Callable[[GeneratedTokens], None]) -> None:
        self._on_tokens = on_tokens
        self._text = ""
        self._token_ends: list[int] = []
        self._log_probabilities: list[float] = []
        self._masses: list[float] = []
        self._received_text = 0  # characters from the present engine
        self._received_tokens = 0

    def restart(self) -> None:
        """Expect all tokens once more, from another engine."""
        self._received_text = self._received_tokens = 0

    def receive(self, tokens: GeneratedTokens) -> None:
        """Pass on those of the next tokens that have not been passed on.

        Raises:
            DivergenceError: they differ from what has been passed on.
        """
        known_text = self._text[self._received_text :][: len(tokens.text)]
        known_ends = self._token_ends[self._received_tokens :][: len(tokens.token_ends)]
        if not tokens.text.startswith(known_text) or tokens.token_ends[: len(known_ends)] != known_ends:
            raise DivergenceError
        self._received_text += len(tokens.text)
        self._received_tokens += len(tokens.token_ends)
        new = GeneratedTokens(
            text=tokens.text[len(known_text) :],
            token_log_probabilities=tokens.token_log_probabilities[len(known_ends) :],
            token_masses=tokens.token_masses[len(known_ends) :],
            token_ends=tokens.token_ends[len(known_ends) :],
            image_size=tokens.image_size,
        )
        if new.text or new.token_ends:
            self._pass_on(new)

    def complete(self, response: GenerateResponse) -> GenerateResponse:
        """Pass on the tokens of the response that have not been passed on.

        Returns:
            the response, with the log-probabilities and masses that were passed on.

        Raises:
            DivergenceError: it differs from what has been passed on.
        """
        self.restart()
        self.receive(
            GeneratedTokens(
                text=response.text,
                token_log_probabilities=response.token_log_probabilities,
                token_masses=response.token_masses,
                token_ends=response.token_ends,
                image_size=response.image_size,
            )
        )
        if self._received_text < len(self._text) or self._received_tokens < len(self._token_ends):
            raise DivergenceError
        response.token_log_probabilities[:] = self._log_probabilities
        response.token_masses[:] = self._masses
        return response

    def _pass_on(self, tokens: GeneratedTokens) -> None:
        self._text += tokens.text
        self._token_ends += tokens.token_ends
        self._log_probabilities += tokens.token_log_probabilities
        self._masses += tokens.token_masses
        self._on_tokens(tokens)
