"""What a comparison says, in sentences that a person can repeat, and what to do next; in the reader's language."""

from typing import Literal, NamedTuple

from eval.metrics.catalogue import CORRECT, HEADLINE
from eval.metrics.metric import Metric
from eval.predictions import BASE, TUNED
from eval.render.numbers import number, p_is, round_up, with_interval
from eval.report.names import deciding_word, floor_word, group_word, metric_word, system_word
from eval.report.view import at_odds, deciding_p, outcome
from eval.scoring.results import ON_GROUP, Difference, Limit, Results
from eval.statistics.estimates import Estimate
from sft.config.repetition_penalty import DEFAULT_SCOPE, NO_PENALTY, PENALTY, SCOPE
from sft.data.records import Group
from sft.page.blocks import Paragraph, Strong, paragraph
from sft.system.texts import Count, space, text

NEGLIGIBLE = 0.05
"""Of a score from 0 to 1: a difference whose whole interval is nearer to 0 is called none."""
FEWEST_ROWS = 30
"""With fewer the interval is too narrow to say that there is none."""
ENOUGH_ROWS = 200
"""Where nothing better is known: so many rows show differences of about .04 character F1."""
MOST_ROWS = 2_000
"""More rows than that are not asked for: the difference is too small to be worth them."""
ENOUGH_ENDINGS = 0.8
"""Share of answers that end by themselves below which it is said what to do about it."""

Saying = Literal["better", "worse", "too_few", "too_close", "not_shown", "unchanged", "no_spread", "alone", "none"]


class Found(NamedTuple):
    """What was found on the questions of a group: `before` is None without a system to compare with."""

    group: Group
    rows: int
    before: Estimate | None
    after: Estimate
    right: tuple[Estimate | None, Estimate]
    """Of `CORRECT`, before and after."""
    delta: Difference
    floor: Limit
    metric: Metric = HEADLINE
    penalty_on_context: bool = False
    """Whether the answers were given under a penalty that counts the prompt."""


def found_on(results: Results, group: Group, metric: Metric = HEADLINE) -> Found:
    """Of tuned against base in a metric or, without the two, of the last system alone."""
    scope = ON_GROUP[group]
    name = TUNED if TUNED in results.systems else next(reversed(results.systems))
    first = results.systems[BASE] if results.deltas.groups else None
    scores, settings = results.systems[name], results.settings.generation[name]
    penalty = settings.get(PENALTY)  # of another engine's answers it may be anything
    is_high = isinstance(penalty, int | float) and penalty > NO_PENALTY
    counted = is_high and settings.get(SCOPE, DEFAULT_SCOPE) == "all"
    return Found(
        group=group,
        rows=results.rows.groups.get(group, 0),
        before=first.of(scope, metric) if first else None,
        after=scores.of(scope, metric),
        right=(first.of(scope, CORRECT) if first else None, scores.of(scope, CORRECT)),
        delta=results.deltas.of(scope, metric),
        floor=results.best_floor(name, scope, metric),
        metric=metric,
        penalty_on_context=counted and group == "context",
    )


def saying(found: Found) -> Saying:
    """Which sentence holds."""
    delta = found.delta
    if not found.rows or found.before is None:
        return "alone" if found.rows else "none"
    word = outcome(delta)
    if word != "unclear":
        return word
    if delta.ends == (0, 0):
        return "unchanged"
    if delta.ends and delta.n >= FEWEST_ROWS and max(map(abs, delta.ends)) <= NEGLIGIBLE:
        return "too_close"
    return "too_few" if delta.n < (delta.rows_to_show or 0) <= MOST_ROWS else "not_shown"


def sentence(found: Found) -> str:
    """Whether the group's questions are answered better, and whether copying would do as well."""
    values = {
        "questions": text("report.questions", group=group_word(found.group)),
        "metric": metric_word(HEADLINE),
        "before": number(found.before.mean if found.before else None),
        "after": number(found.after.mean),
        "rows": Count(found.rows),
        "enough": Count(round_up(found.delta.rows_to_show or 0)),
        "most": NEGLIGIBLE,
    }
    words = {
        "better": text("report.better", **values),
        "worse": text("report.worse", **values),
        "too_few": text("report.too_few", **values),
        "too_close": text("report.too_close", **values),
        "not_shown": text("report.not_shown", **values),
        "unchanged": text("report.unchanged", **values),
        "no_spread": text("report.no_spread", **values),
        "alone": text("report.alone", **values),
        "none": text("report.none", **values),
    }
    said = saying(found)
    if said == "too_few" and _is_below(found):
        said = "not_shown"  # more questions are not what it lacks
    return space().join([words[said], *below(found)])


def below(found: Found) -> list[str]:
    """A sentence where copying scores more; else none."""
    if not _is_below(found):
        return []
    values = {"after": number(found.after.mean), "score": number(found.floor.mean)}
    return [text("report.below", floor=floor_word(found.floor.name), **values)]


def right(found: Found) -> str:
    """How many answers are right, before and after; nothing where there are none."""
    first, last = found.right
    if last.mean is None:
        return ""
    counts = {"after": Count(_ones(last)), "rows": Count(last.n)}
    if first is None:
        return text("report.right_alone", **counts)
    return text("report.right", before=Count(_ones(first)), **counts)


def next_step(found: Found) -> str:
    """What to do about it; nothing where there is nothing to ask."""
    delta, said = found.delta, saying(found)
    if said in ("none", "alone"):
        return text("report.have_a_pair") if said == "alone" else ""
    if said == "worse":
        return text("report.mind_the_penalty") if found.penalty_on_context else text("report.train_less")
    if said == "unchanged":
        return text("report.did_it_learn")
    if _is_below(found):
        return text("report.train_more")
    if said == "better":
        first, last = found.right
        fewer = first and first.mean is not None and last.mean is not None and last.mean < first.mean
        return text("report.read_the_lost") if fewer else text("report.use")
    if said == "too_close" or (delta.rows_to_show or 0) > MOST_ROWS:
        return text("report.count_as_same")
    enough = round_up(delta.rows_to_show or 0) if said == "too_few" else max(ENOUGH_ROWS, 2 * found.rows)
    if said != "too_few" and at_odds(delta):
        return text("report.again", enough=Count(enough))
    return text("report.more_rows", enough=Count(enough))


def evidence(delta: Difference, metric: Metric, floor: Limit | None = None, after: float | None = None) -> str:
    """The difference, the p that decides, what it says against the interval, and the score `after` beside the floor."""
    said = []
    if delta.mean is not None:
        kind = text("report.uncorrected") if delta.p_holm is None else text("report.holm")
        values = {"difference": with_interval(delta, signed=True), "metric": deciding_word(metric)}
        p = f"{kind} {p_is(deciding_p(delta), delta.p_is_bound)}"
        said.append(text("report.evidence", p=p, rule=text("report.rule"), **values))
        said += [text("report.at_odds")] * at_odds(delta)
    if floor and floor.mean is not None:
        values = {"after": number(after), "score": number(floor.mean)}
        said.append(text("report.best_floor", floor=floor_word(floor.name), **values))
    return space().join(said)


def rests_on(found: Found) -> str:
    """The evidence for the sentence, and the best floor where the sentence does not name it."""
    return evidence(found.delta, found.metric, None if _is_below(found) else found.floor, found.after.mean)


def endings(results: Results) -> list[Paragraph]:
    """A line on how the answers ended, and the remedy, where too few of a tuned model's end by themselves; else none.

    Those that end at a stop string end as somebody wished.
    """
    name, counts = list(results.answers.items())[-1]
    total = counts.eos + counts.heading + counts.stop + counts.length + counts.error
    if name == BASE or counts.eos + counts.stop >= ENOUGH_ENDINGS * total:
        return []
    tokens = results.settings.generation[name].get("max_new_tokens")
    limit = text("report.limit_of", tokens=tokens) if tokens else text("report.limit_unknown")
    ended = {"eos": counts.eos, "heading": counts.heading, "length": counts.length}
    words = text("report.ended", total=Count(total), system=system_word(name), limit=limit, **ended)
    remedy = text("report.ran_on") if counts.heading >= counts.length else text("report.cut_at_limit")
    return [paragraph(Strong(text("report.endings")), f": {words}{space()}{remedy}")]


def delta_word(delta: Difference) -> str:
    """What a difference says, in a word."""
    return {
        "better": text("report.word_better"),
        "worse": text("report.word_worse"),
        "unclear": text("report.word_unclear"),
        "no_spread": text("report.word_no_spread"),
    }[outcome(delta)]


def right_cell(first: Estimate | None, last: Estimate) -> str:
    """`12 → 31`, or `31` without a first system."""
    return " → ".join(str(_ones(one)) for one in (first, last) if one is not None and one.mean is not None)


def _is_below(found: Found) -> bool:
    """Whether copying scores more."""
    floor, after = found.floor.mean, found.after.mean
    return floor is not None and after is not None and after < floor


def _ones(share: Estimate) -> int:
    """How many of the rows are 1."""
    return round((share.mean or 0) * share.n)
