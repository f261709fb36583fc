"""Guesses at the tokens that come next: an answer about a text quotes it, so what followed the last few tokens before.

The model reads guesses together with the token before them, and as many are kept as it would have chosen itself.
"""

from collections.abc import Sequence

MOST_DRAFTS = 7
"""The most tokens of a row that are guessed at once."""

DRAFT_COST = 0.1
"""What reading and scoring one more token in each row costs, as a share of a step without guesses."""

REMEMBERED = 128
"""Guesses that the share of right ones is measured over, about."""


class Lookup:
    """The tokens of a prompt and its answer, and where the last two or three of them stood before."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens: list[int] = []
        self._behind: dict[tuple[int, ...], int] = {}
        """For each two and three tokens in a row but the last ones, the place behind their last occurrence."""
        for token in tokens:
            self.append(token)

    def append(self, token: int) -> None:
        """One more token has been chosen."""
        here = len(self._tokens)
        for length in (2, 3):
            if here >= length:
                self._behind[tuple(self._tokens[-length:])] = here
        self._tokens.append(token)

    def drafts(self, most: int) -> list[int]:
        """`most` tokens that may come next; none where the last two tokens are new."""
        last = self._tokens[-3:]
        place = self._behind.get(tuple(last)) or self._behind.get(tuple(last[-2:]))
        if place is None:
            return []
        followed = self._tokens[place : place + most]
        while len(followed) < most:  # what repeats itself goes on repeating itself
            followed += followed[: most - len(followed)]
        return followed


class Acceptance:
    """How many tokens to guess at once, by how many guesses were right so far."""

    def __init__(self) -> None:
        self._right, self._seen = 1.0, 2.0

    def note(self, right: bool) -> None:
        """A guess was right or wrong, those before it in its step having been right."""
        forget = 1 - 1 / REMEMBERED
        self._right, self._seen = self._right * forget + right, self._seen * forget + 1

    def drafts(self, share: float) -> int:
        """How many tokens to guess where this share of the rows has something to go by: what makes the most of time."""
        chance = self._right / self._seen
        kept = [share * sum(chance**place for place in range(1, number + 1)) for number in range(MOST_DRAFTS + 1)]
        return max(range(MOST_DRAFTS + 1), key=lambda number: (1 + kept[number]) / (1 + DRAFT_COST * number))
