"""How long answering will still take, from how long its parts took so far. No torch here."""

import time
from collections.abc import Callable, Sequence

Watch = Callable[[Sequence[int], int, int], object]
"""Is told what was just done: the tokens of each prompt that was read, or how many tokens were decoded in one step and
for how many answers."""


class Pace:
    """The seconds that are left, by tokens and not by rows: the longest prompts come first, and few fit a batch.

    A step of the decoding loop takes a time of its own, whatever its rows are, and each token in it the time that one
    takes when a prompt is read. Both are measured. How many steps are left follows from how many rows of each length
    fit a batch; how long an answer is, from those so far: tokens decoded by answers that ended, at most the limit.

    Args:
        budget: padded tokens a batch.
        new_tokens: the most an answer may take.
        settings: answers a prompt.
    """

    def __init__(self, budget: int, new_tokens: int, settings: int = 1) -> None:
        self.budget, self.new_tokens, self.settings = budget, new_tokens, settings
        self._to_read = self._to_score = 0
        self._waiting = 0
        """Answers whose prompts are not read yet."""
        self._waiting_shares = 0.0
        """Of a step, their shares."""
        self._started = self._ended = self._in_step = 0
        self._read = self._decoded = self._steps = self._scored = 0
        self._in_steps = self._answers_in_steps = 0
        """Tokens decoded in steps, and one for each answer in each step."""
        self._reading = self._decoding = self._scoring = 0.0
        """Seconds."""
        self._last = time.perf_counter()

    def expect(self, prompts: Sequence[int], show: Callable[[], object]) -> Watch:
        """Count in prompts of so many tokens each, which are answered together; returns whom to tell of the work.

        `show` is called whenever something was done.
        """
        together = len(prompts) * self.settings
        self._waiting += together
        self._to_read += sum(prompts)
        self._waiting_shares += sum(self._share(tokens, together) for tokens in prompts)

        def watch(read: Sequence[int], decoded: int, answers: int) -> None:
            self._waiting -= len(read) * self.settings
            self._started += len(read) * self.settings
            self._waiting_shares -= sum(self._share(tokens, together) for tokens in read)
            self._to_read -= sum(read)
            if decoded:
                self._decoding += self._passed()
                self._decoded += decoded
                self._steps += 1
                self._in_step = decoded
                self._in_steps += decoded
                self._answers_in_steps += answers
            else:
                self._reading += self._passed()
                self._read += sum(read)
                self._decoded += len(read) * self.settings  # what reads a prompt chooses a token, too
            show()

        return watch

    def _share(self, tokens: int, together: int) -> float:
        rows = max(self.settings, self.budget // (tokens + self.new_tokens))
        return self.settings / min(rows, together)

    def expect_scores(self, tokens: int) -> None:
        """Count in texts of so many tokens, whose likelihood is measured."""
        self._to_score += tokens

    def scored(self, tokens: int) -> None:
        """So many of them are measured."""
        self._to_score -= tokens
        self._scored += tokens
        self._scoring += self._passed()

    def ended(self, answers: int = 1) -> None:
        """So many answers have ended."""
        self._ended += answers

    def _passed(self) -> float:
        before, self._last = self._last, time.perf_counter()
        return self._last - before

    @property
    def seconds_left(self) -> float | None:
        """An estimate; None before anything was done."""
        if not (self._steps or self._scored):
            return None
        a_token = self._reading / self._read if self._read else 0.0
        of_scores = self._scoring / self._scored if self._scored else a_token
        a_step = max(0.0, self._decoding - a_token * self._decoded) / max(1, self._steps)
        length = min(self.new_tokens, self._decoded / self._ended) if self._ended else self.new_tokens
        going_on = max(0.0, length * self._started - self._decoded) if self._started > self._ended else 0.0
        at_once = self._in_steps / max(1, self._answers_in_steps) or 1.0
        steps = length / at_once * self._waiting_shares + going_on / max(1, self._in_step)
        tokens = self._to_read + length * self._waiting + going_on
        return a_token * tokens + a_step * steps + of_scores * self._to_score
