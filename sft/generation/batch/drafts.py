"""Guesses at the tokens that come next: an answer about a text quotes it, so what followed the last few tokens before.

The model reads guesses together with the token before them, and as many are kept as it would have chosen itself.
"""

from collections.abc import Sequence

MOST_DRAFTS = 7
"""The most tokens of a row that are guessed at once."""

DRAFT_COST = 0.012
"""What reading and scoring one more token costs, as a share of a step without guesses.

For gemma-3-270m in bf16 on a CPU it was about 0.009 where 40 more were read at once, and 0.02 where 110 were.
"""

WORTH = 1.1
"""How many times faster rows have to go on with guesses: what is waited for are the slowest, which may have none."""

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

    def drafts(self, rows: int, with_drafts: int) -> int:
        """How many tokens to guess for those of the rows that have something to go by: what makes the most of time."""
        chance, best, speed = self._right / self._seen, 0, WORTH
        kept = 0.0
        for number in range(1, MOST_DRAFTS + 1):
            kept += with_drafts / rows * chance**number
            found = (1 + kept) / (1 + DRAFT_COST * with_drafts * number)
            if found > speed:
                best, speed = number, found
        return best
