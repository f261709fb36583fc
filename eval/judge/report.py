"""A judgement as a document and in the terminal, in the reader's language. No torch here."""

import json

from rich.console import Console
from rich.text import Text

from eval.judge.results import JudgeResults, Preference
from eval.judge.verdict import TIE, A, B
from eval.render.numbers import interval, number, p_is, with_interval
from eval.render.terminal import CATEGORY_CELLS, Row, print_rows
from eval.report.first_screen import all_rows, small
from eval.report.names import group_word, scope_word, system_word, why_rows_do_not_add_up
from eval.report.sentences import delta_word
from eval.report.view import deciding_p, outcome
from eval.scoring.results import Difference, Scope
from sft.page.blocks import NOTHING, Beside, Block, Cell, Heading, Small, Strong, Table, paragraph, text_of
from sft.system.texts import Count, text
from sft.system.visible import narrow, visible


def report(results: JudgeResults, run: str) -> list[Block]:
    """The whole judgement: sentences by group, and the tables that they rest on."""
    scopes = results.rows.scopes()
    strong = frozenset(at for at, scope in enumerate(scopes) if scope.is_group)
    blocks: list[Block] = [
        Heading(1, judgement_title(results, run)),
        paragraph(_about(results), " · ", all_rows()),
        Beside(tuple((paragraph(Strong(first)), *map(paragraph, more)) for first, *more in _sentences(results))),
        paragraph(text("judge.is_a_model")),
        Heading(2, text("judge.scores")),
        Table(_score_header(results), [_score_row(results, scope) for scope in scopes], strong=strong),
        *small(why_rows_do_not_add_up(results.rows)),
    ]
    if results.pair:
        blocks += [
            paragraph(Small(text("judge.decided_by"))),
            Heading(2, _pairs_title(results)),
            Table(_pair_header(), [_pair_row(results, scope) for scope in scopes], strong=strong),
            paragraph(Small(text("judge.pairs_note", same=_same(results), second=system_word(results.pair[1])))),
            *_place(results),
        ]
    blocks += [Heading(2, text("judge.calls")), _calls(results), paragraph(Small(text("judge.calls_note")))]
    blocks += [paragraph(line) for line in _steering(results)]
    if results.people:
        blocks += [Heading(2, text("judge.people")), paragraph(_kappa(results)), _kappa_by_group(results)]
    return [*blocks, paragraph(Small(_settings(results)))]


def print_judgement(results: JudgeResults, run: str, console: Console) -> None:
    """What it says, and the tables without their finer print, in a terminal of 80 columns."""
    scopes = results.rows.scopes()
    _print(console, judgement_title(results, run), _about(results))
    header, rows = _score_header(results), [_score_row(results, scope) for scope in scopes]
    _print_table(text("judge.scores"), header, rows, scopes, console)
    _print(console, *why_rows_do_not_add_up(results.rows))
    if results.pair:
        header, rows = _pair_header(), [_pair_row(results, scope) for scope in scopes]
        _print_table(_pairs_title(results), header, rows, scopes, console)
    calls = _calls(results)
    lines = [Row(str(row[0]), [*map(text_of, row[1:])]) for row in calls.rows]
    print_rows(text("judge.calls"), [*map(str, calls.header[1:])], lines, console)
    for lines_of_group in _sentences(results):
        _print(console, *lines_of_group, "")
    _print(console, *([_place_line(results)] if results.pair else []), *_steering(results))
    if results.people:
        found = _kappa_by_group(results)
        lines = [Row(str(row[0]), [*map(text_of, row[1:])]) for row in found.rows]
        print_rows(text("judge.people"), [*map(str, found.header[1:])], lines, console)
        _print(console, _kappa(results))
    _print(console, text("judge.is_a_model"))


def _print_table(
    title: str, header: list[str], rows: list[list[str | Cell]], scopes: list[Scope], console: Console
) -> None:
    lines = [
        Row(narrow(str(row[0]), CATEGORY_CELLS), [*map(text_of, row[1:])], scope.is_group)
        for row, scope in zip(rows, scopes, strict=True)
    ]
    print_rows(title, header[1:], lines, console)


def _print(console: Console, *lines: str) -> None:
    for line in lines:
        console.print(Text(visible(line)))


def judgement_title(results: JudgeResults, run: str) -> str:
    """Whose answers, and by whom they are judged."""
    return text("judge.title", run=run, model=results.judge["model"])


def _about(results: JudgeResults) -> str:
    calls = sum(sum(counts.values()) for counts in results.calls.values())
    said = text("judge.about", rows=Count(results.rows.total), calls=Count(calls), model=results.judge["model"])
    if drawn := results.judge.get("drawn"):
        said += " · " + text("judge.drawn", of=Count(drawn["of"]), seed=drawn["seed"])
    return said


def _sentences(results: JudgeResults) -> list[list[str]]:
    """What is found on each group that has rows: by the scores, and by the comparison where there is one."""
    found = []
    for scope in (one for one in results.rows.scopes() if one.is_group):
        questions = text("report.questions", group=group_word(scope.group))
        if results.pair:
            found.append([_difference(results, scope, questions), _preferred(results, scope)])
            continue
        for name, scores in results.scores.items():
            values = {"system": system_word(name), "after": number(scores[scope].mean, digits=2)}
            found.append([text("judge.alone", questions=questions, rows=Count(scores[scope].n), **values)])
    return found


def _difference(results: JudgeResults, scope: Scope, questions: str) -> str:
    delta, names = results.differences[scope], results.pair or ("", "")
    first, second = map(system_word, names)
    before, after = (number(results.scores[name][scope].mean, digits=2) for name in names)
    names_in = {"questions": questions, "first": first, "second": second, "rows": Count(delta.n)}
    values = {**names_in, "before": before, "after": after, "change": number(delta.mean, signed=True, digits=2)}
    return {
        "better": text("judge.better", **values),
        "worse": text("judge.worse", **values),
        "unclear": text("judge.not_shown", **values),
        "no_spread": text("judge.no_spread", **values),
    }[outcome(delta)]


def _preferred(results: JudgeResults, scope: Scope) -> str:
    found, names = results.preferences[scope], results.pair or ("", "")
    first, second = map(system_word, names)
    counts = {"decided": Count(found.first + found.second), "wins": Count(found.second), "losses": Count(found.first)}
    return text("judge.preferred", rows=Count(results.rows.of(scope)), first=first, second=second, **counts)


def _score_header(results: JudgeResults) -> list[str]:
    names = [*map(system_word, results.scores)]
    first = [text("rows.category")]
    if results.pair:  # the words stand first, so that a phone shows them
        return [*first, text("report.in_words"), text("rows.rows"), *names, text("report.change")]
    return [*first, text("rows.rows"), *names]


def _score_row(results: JudgeResults, scope: Scope) -> list[str | Cell]:
    rows = results.rows.of(scope)
    cells: list[str | Cell] = [scope_word(scope), f"{rows:,}"]
    for scores in results.scores.values():
        one = scores[scope]
        # Of how many, where some have no score: next to the mean, since the mean is of these alone.
        measured = f" ({one.n}/{rows})" * (one.n < rows)
        cells.append(Cell(number(one.mean, digits=2) + measured, interval(one, digits=2)))
    if results.pair:
        delta = results.differences[scope]
        cells.append(Cell(number(delta.mean, signed=True, digits=2), interval(delta, True, 2)))
        cells.insert(1, _word(delta))
    return cells


def _word(delta: Difference) -> Cell:
    p = deciding_p(delta)
    return Cell(delta_word(delta), "" if p is None else f"p {p_is(p, delta.p_is_bound)}")


def _pairs_title(results: JudgeResults) -> str:
    first, second = map(system_word, results.pair or ("", ""))
    return text("judge.pairs", first=first, second=second)


def _pair_header() -> list[str]:
    columns = [text("judge.won"), text("judge.lost"), text("judge.tie"), text("judge.disagree"), text("judge.missing")]
    return [text("rows.category"), text("report.in_words"), *columns, text("judge.share")]


def _pair_row(results: JudgeResults, scope: Scope) -> list[str | Cell]:
    one = results.preferences[scope]
    counts = [one.second, one.first, one.tie, one.disagree, one.missing]
    return [scope_word(scope), _word(one.difference), *(f"{count:,}" for count in counts), _share(one)]


def _share(one: Preference) -> str | Cell:
    """The share of the decided with its interval, and how many those are."""
    if one.share_second is None:
        return NOTHING
    ends = f"[{number(one.ci_low, digits=2)}, {number(one.ci_high, digits=2)}]"
    decided = text("judge.of_decided", rows=Count(one.first + one.second))
    return Cell(f"{number(one.share_second, digits=2)} {decided}", ends)


def _same(results: JudgeResults) -> Count:
    return Count(sum(one.same for scope, one in results.preferences.items() if scope.is_group))


def _calls(results: JudgeResults) -> Table:
    header = [
        text("judge.asked"),
        text("judge.given"),
        text("judge.unparsable"),
        text("judge.refused"),
        text("judge.cut"),
        text("judge.empty"),
        text("judge.failed"),
    ]
    names = {f"score:{name}": text("judge.score_of", system=system_word(name)) for name in results.scores}
    names["pair"] = text("judge.both_orders")
    rows = [[names[asked], *(f"{count:,}" for count in counts.values())] for asked, counts in results.calls.items()]
    return Table(header, rows)


def _place(results: JudgeResults) -> list[Block]:
    """How often A and B were said in each order: what the answers do not explain is the place."""
    found = results.position
    if found is None:
        return []
    first, second = map(system_word, results.pair or ("", ""))
    orders = {first: found.first_as_a, second: found.second_as_a}
    rows = [
        [text("judge.shown_as_a", system=name), *(f"{said[value]:,}" for value in (A, B, TIE))]
        for name, said in orders.items()
    ]
    table = Table(["", "A", "B", text("judge.tie")], rows)
    return [Heading(2, text("judge.place")), table, paragraph(_place_line(results))]


def _place_line(results: JudgeResults) -> str:
    found = results.position
    assert found is not None
    p = NOTHING if found.p is None else p_is(found.p)
    agreed = {"agreed": Count(found.agreed), "rows": Count(found.rows)}
    return text("judge.place_note", a=Count(found.always_a), b=Count(found.always_b), p=p, **agreed)


def _steering(results: JudgeResults) -> list[str]:
    counts = ", ".join(f"{system_word(name)} {n:,}" for name, n in results.steering.items() if n)
    return [text("judge.steering", counts=counts)] if counts else []


def _kappa(results: JudgeResults) -> str:
    found = results.people
    assert found is not None
    first, second = map(system_word, results.pair or ("", ""))
    counts = {"agreed": Count(found.agreed), "rows": Count(found.n), "missing": Count(found.missing)}
    return text("judge.kappa", first=first, second=second, kappa=with_interval(found, digits=2), **counts)


def _kappa_by_group(results: JudgeResults) -> Table:
    """How far people and judge agree on each group, a line each."""
    header = [text("rows.group"), text("judge.rated_by_both"), text("judge.rated_alike"), text("judge.kappa_alone")]
    rows: list[list[str | Cell]] = [
        [group_word(group), f"{one.n:,}", f"{one.agreed:,}", Cell(number(one.mean, digits=2), interval(one, digits=2))]
        for group, one in results.people_by_group.items()
    ]
    return Table(header, rows)


def _settings(results: JudgeResults) -> str:
    about = results.judge
    request = json.dumps(about["request"], ensure_ascii=False, sort_keys=True)
    return text("judge.settings", **{**about, "request": request, "prompts": about["prompts"][:12]})
