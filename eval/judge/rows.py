"""A judgement row by row: rows.html with every score, and with the judge's own words. No torch here."""

from eval.judge.results import Judged, choice_of
from eval.judge.verdict import Outcome, Verdict
from eval.metrics.metric import Metric
from eval.predictions import Prediction
from eval.report.rows_page import Look, rows_page
from eval.report.sentences import system_word
from eval.scoring.results import ScoredRow
from sft.system.texts import text

KEY = "judge_score"


def judged_rows(judged: Judged, title: str) -> str:
    """The page: what the judge gave each answer, and what it said of it and of the pair."""
    metric = Metric(key=KEY, title=text("judge.scores"), section="correctness", definition="judge")
    samples: list[ScoredRow] = []
    remarks = {}
    for name, verdicts in judged.scores.items():
        for at, (answer, verdict) in enumerate(zip(judged.answers[name], verdicts, strict=True)):
            samples.append(_scored(answer, verdict, int(judged.rows.clusters[at])))
            remarks[name, answer.example.index] = _words(verdict)
    first, *others = judged.pair or (None,)
    look = Look(
        report=title,
        decides=metric,
        first=first,
        others=tuple(filter(None, others)),
        file="judge.html",
        own=(metric,),
        remarks=remarks,
        on_rows=_of_pairs(judged),
    )
    return rows_page(samples, [one for given in judged.answers.values() for one in given], look)


def _scored(answer: Prediction, verdict: Verdict, cluster: int) -> ScoredRow:
    row, score = answer.example, None if verdict.value is None else float(verdict.value)
    return ScoredRow(answer.system, row.index, row.category, row.group, cluster, answer.finish_reason, {KEY: score}, {})


def _of_pairs(judged: Judged) -> dict[str, str]:
    """Row → what both orders come to, and what the judge said in each."""
    if judged.pair is None:
        return {}
    first, second = map(system_word, judged.pair)
    found = {}
    for row, orders in zip(judged.rows.examples, judged.orders, strict=True):
        choice = {
            "first": text("judge.prefers", system=first),
            "second": text("judge.prefers", system=second),
            "tie": text("judge.tie"),
            "disagree": text("judge.disagree"),
            "missing": text("judge.missing"),
        }[choice_of(orders)]
        parts = [choice if orders else text("judge.same_answers")]
        for name, verdict in zip((first, second), orders or (), strict=False):
            parts += ["", text("judge.shown_as_a", system=name), _words(verdict)]
        found[row.index] = "\n".join(parts)
    return found


def _words(verdict: Verdict) -> str:
    """What the judge said; in front of it why that is no verdict, where it is none."""
    return verdict.text if verdict.value is not None else f"{_outcome(verdict.outcome)}: {verdict.text}"


def _outcome(outcome: Outcome) -> str:
    return {
        "given": text("judge.given"),
        "unparsable": text("judge.unparsable"),
        "refused": text("judge.refused"),
        "cut": text("judge.cut"),
        "empty": text("judge.empty"),
        "failed": text("judge.failed"),
    }[outcome]
