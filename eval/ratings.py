"""`python -m eval rate --feedback RUN`: what people said of a run's answers on its page, counted. No torch here."""

from collections import Counter
from pathlib import Path

from rich.console import Console

from eval.render.numbers import number
from eval.render.terminal import CATEGORY_CELLS, Row, narrow, print_rows
from eval.scoring.rows import scopes_of
from eval.statistics.shares import wilson
from sft.run.feedback import RATED, ROWS, read_ratings
from sft.system.errors import say


def count_ratings(run: Path) -> None:
    """Print how many answers of each model were good, bad or corrected, by category and group.

    The share of good ones has its 95% Wilson interval. Raises UserError where nothing was rated.
    """
    ratings = read_ratings(run)
    console = Console()
    for model in sorted({rating.model for rating in ratings}, reverse=True):
        own = [rating for rating in ratings if rating.model == model]
        rows = []
        for scope, members in scopes_of(own).items():
            counts = Counter(own[at].rating for at in members)
            share = counts["good"] / len(members)
            low, high = wilson(share, len(members))
            interval = f"{number(share, digits=2)} [{number(low, digits=2)}, {number(high, digits=2)}]"
            cells = [*(str(counts[name]) for name in RATED), interval]
            rows.append(Row(narrow(scope.label, CATEGORY_CELLS), cells, strong=scope.is_group))
        print_rows(f"rated: {model}", [*RATED, "good"], rows, console)
    say("raters saw whose answer it was, and chose what to rate; python -m eval rate RUN RUN makes a blind sheet")
    say(f"{run / ROWS}: the good and corrected answers, as rows that data.path reads")
