"""The time that is left: by tokens and steps, not by rows. The machine is simulated, and its clock with it."""

import io
import random

import pytest

from sft.generation import pace
from sft.generation.batch.decoding import batches
from sft.generation.pace import Pace
from sft.system.waiting import EstimatedBar
from sft.training.steps import StepSampler, padded

BUDGET, NEW_TOKENS, MINUTE = 8192, 256, 60

MACHINES = {"small model": (0.05, 0.02), "7B on a CPU": (1.5, 0.15), "large batches": (0.2, 0.005)}
"""Seconds of a pass through the model, and of each token in it."""


class Machine:
    """Answers prompts as `decode_all` does, longest first with refilling, and notes estimates as the clock goes on."""

    def __init__(self, a_pass, a_token, monkeypatch, at_once=1):
        self.a_pass, self.a_token, self.at_once, self.now = a_pass, a_token, at_once, 0.0
        monkeypatch.setattr(pace.time, "perf_counter", lambda: self.now)
        self.pace = Pace(BUDGET, NEW_TOKENS)
        self.estimates, self.ended = [], []

    def note(self):
        if (left := self.pace.seconds_left) is not None:
            self.estimates.append((self.now, left))

    def run(self, lengths, answers):
        jobs = list(batches([[0] * length for length in lengths], NEW_TOKENS, 4 * BUDGET))
        watches = [self.pace.expect([lengths[row] for row in job], self.note) for job in jobs]
        for job, watch in zip(jobs, watches, strict=True):
            self.answer(list(job), lengths, answers, watch)
        return self.now

    def answer(self, waiting, lengths, answers, watch):
        live: dict[int, int] = {}
        while waiting or live:
            longest = max(lengths[row] for row in (live or waiting[:1]))
            coming = waiting[: max(1, BUDGET // (longest + NEW_TOKENS)) - len(live)]
            if len(coming) >= 0.25 * len(live):
                for row in coming:
                    self.now += self.a_pass + self.a_token * lengths[row]
                    watch([lengths[row]], 0, 0)
                    live[row] = 1
                waiting = waiting[len(coming) :]
            answers_now, at_once = len(live), self.at_once
            decoded = answers_now * at_once
            self.now += self.a_pass + self.a_token * decoded
            live = {row: tokens + at_once for row, tokens in live.items()}
            for row in [row for row in live if live[row] >= answers[row]]:
                del live[row]
                self.pace.ended()
                self.ended.append(self.now)
            watch([], decoded, answers_now)

    def wrong_at(self, seconds):
        """How far the first estimate after so many seconds is off, as a share of what was left."""
        at, left = next(found for found in self.estimates if found[0] >= seconds)
        return left / (self.now - at) - 1

    def wrong_by_rows(self, seconds):
        """The same of an estimate by rows, at the first moment from then on at which there is one."""
        at = next(when for when in self.ended if when >= seconds)
        done = sum(when <= at for when in self.ended)
        return at * (len(self.ended) - done) / done / (self.now - at) - 1


def uneven(rows=100):
    chance = random.Random(0)
    return [chance.randint(900, 1800) if row % 7 == 0 else chance.choice([60, 80, 150]) for row in range(rows)]


@pytest.mark.parametrize("at_once", [1, 2])
@pytest.mark.parametrize("machine", MACHINES)
def test_after_a_minute_the_time_that_is_left_is_known_though_the_longest_prompts_come_first(
    machine, monkeypatch, at_once
):
    simulated = Machine(*MACHINES[machine], monkeypatch, at_once)
    lengths = uneven()
    total = simulated.run(lengths, [NEW_TOKENS] * len(lengths))
    assert total > 2 * MINUTE
    for seconds in (MINUTE, total / 4, total / 2):
        assert abs(simulated.wrong_at(seconds)) < 0.25
    assert simulated.wrong_by_rows(MINUTE) > 1  # what rows would say: twice as long and more


def test_answers_that_end_early_are_reckoned_with_as_soon_as_some_have(monkeypatch):
    simulated, chance, lengths = Machine(1.5, 0.15, monkeypatch), random.Random(1), uneven()
    total = simulated.run(lengths, [chance.randint(30, 120) for _ in lengths])
    assert abs(simulated.wrong_at(total / 3)) < 0.25
    assert abs(simulated.wrong_at(total / 2)) < 0.25


def test_nothing_is_left_at_the_end_and_nothing_known_at_the_beginning(monkeypatch):
    simulated = Machine(0.1, 0.01, monkeypatch)
    assert simulated.pace.seconds_left is None
    simulated.run([100, 50], [20, NEW_TOKENS])
    assert simulated.pace.seconds_left == pytest.approx(0)
    simulated.pace.expect_scores(100)
    assert simulated.pace.seconds_left == pytest.approx(100 * (0.01 + 0.1 / 75))  # as long as prompts took to read


def test_the_bar_shows_the_time_it_is_told():
    shown = io.StringIO()
    with EstimatedBar(lambda: 125.0, total=10, unit="row", desc="answering", file=shown) as bar:
        bar.update(3)
        bar.refresh()
        assert "3/10 rows" in shown.getvalue()
        assert "<02:05]" in shown.getvalue()
        bar.update(7)
        bar.refresh()
    assert "10/10 rows" in shown.getvalue()
    assert "?" not in shown.getvalue().rpartition("10/10 rows")[2]


def test_a_trainings_steps_are_weighed_by_their_tokens_over_all_epochs():
    lengths = [random.Random(2).randint(5, 500) for _ in range(21)]
    done = 0
    sampler = StepSampler(lengths, 8, lambda found, n: padded(found, n, 2), 42, lambda: done)
    tokens = []
    for _ in range(3):
        steps = list(sampler)
        tokens += [sum(lengths[row] for rows in step for row in rows) for step in steps]
        done += len(steps)
    assert sampler.tokens_by_step(8) == tokens[:8]
