"""The sections of the study's document: what each decoding does. No torch here."""

from collections.abc import Mapping, Sequence
from typing import Any

from eval.metrics.catalogue import BY_KEY
from eval.metrics.floors import ORACLE
from eval.predictions import BASE
from eval.render.blocks import Block, Cell, Heading, Table, paragraph
from eval.render.numbers import NOTHING, interval, number, p_value
from studies.context_qa.estimates import interval_of
from studies.context_qa.plan import GREEDY

NOT_RUN = "not run"
Results = Mapping[str, Any]
Cells = list[str | Cell]

ROWS_NAMES = {"jsquad": "JSQuAD", "dolly": "dolly", "niilc": "NIILC"}
COMPARISONS = {
    "cell": "recipe trained and decoded − article trained and decoded",
    "training": "effect of training (mean over both decodings)",
    "decoding": "effect of decoding (mean over both trainings)",
    "interaction": "interaction: effect of decoding after recipe − after article training",
    "context − open": "lost on context − lost on open, recipe training, greedy − article's decoding",
}


def outcome_name(key: str) -> str:
    """`dolly.context.character_f1` → `dolly context, character F1`; a benchmark's only group goes unsaid."""
    rows, scope, metric = key.split(".")
    return f"{ROWS_NAMES[rows]}{f' {scope}' if rows == 'dolly' else ''}, {BY_KEY[metric].name}"


def shown(found: Mapping[str, Any] | None, signed: bool = False) -> str | Cell:
    """`0.394 [0.357, 0.431]`, with the seeds' range where there are several; `not run` for None."""
    if not found or "mean" not in found:
        return NOT_RUN
    seeds = [value for value in found.get("by_seed") or () if value is not None]
    spread = f"; seeds {number(min(seeds), signed)} to {number(max(seeds), signed)}" if seeds else ""
    return Cell(number(found["mean"], signed), f"{interval(interval_of(found), signed)}{spread}")


def p_cell(found: Mapping[str, Any] | None, key: str = "p") -> str:
    """`.012`; `n/a` where it was not tested, `not run` for None."""
    return p_value(found[key]) if found and found.get(key) is not None else (NOTHING if found else NOT_RUN)


def factorial(results: Results) -> list[Block]:
    """Section 1: the 2 × 2 with the base model beside it, outcome by outcome, and the headline comparisons."""
    study = results["study"]
    article, recipe = study["article"], study["recipe"]
    before, after = study["article_decoding"], study["recipe_decoding"]
    blocks: list[Block] = [
        Heading(2, "1. Training × decoding"),
        paragraph(
            "Each cell is one training under one decoding, over the same rows. The last column is what the "
            "decoding does to that training, the last line what the training does under that decoding. "
            "Normalised: 0 is the best floor, 1 the best single sentence of the context."
        ),
    ]
    for key, found in results["factorial"].items():
        header = ["training", f"decoded {before}", f"decoded {after}", f"{after} − {before}"]
        normalised = found["normalised"]
        header += [f"normalised, {before}", f"normalised, {after}"] if normalised else []
        rows: list[Cells] = []
        for arm in found["cells"]:
            role = {BASE: "before tuning", article: "the article's", recipe: "the recipe"}[arm]
            cells: Cells = [f"{arm} ({role})", *(shown(found["cells"][arm][d]) for d in (before, after))]
            cells.append(shown(found["effects"][f"decoding in {arm}"], signed=True))
            rows.append(cells + ([shown(normalised[arm][d]) for d in (before, after)] if normalised else []))
        trained = [shown(found["effects"][f"training under {d}"], signed=True) for d in (before, after)]
        rows.append([f"{recipe} − {article}", *trained, "", *([""] * 2 if normalised else [])])
        blocks += [Heading(3, outcome_name(key)), Table(header, rows), paragraph(_limits(found))]
    return [*blocks, *_headline(results)]


def _limits(found: Mapping[str, Any]) -> str:
    if not found["limits"]:
        return f"{NOT_RUN.capitalize()}."
    floors = [f"{name} {number(mean)}" for name, mean in found["limits"].items() if name != ORACLE and mean is not None]
    ceiling = found["limits"].get(ORACLE)
    oracle = f" Oracle, the best sentence of the context: {number(ceiling)}." if ceiling is not None else ""
    counts = {one["n"] for cells in found["cells"].values() for one in cells.values() if one}
    n = f" n = {', '.join(map(str, sorted(counts)))}." if counts else ""
    return f"Floors, which understand nothing: {', '.join(floors)}.{oracle}{n}"


def _headline(results: Results) -> list[Block]:
    rows: list[Cells] = []
    for found in results["headline"]:
        name = "dolly, character F1" if found["comparison"] == "context − open" else outcome_name(found["outcome"])
        run = found if "mean" in found else None
        cells = [shown(run, signed=True), p_cell(run), p_cell(run, "p_holm")]
        rows.append([name, COMPARISONS[found["comparison"]], *cells])
    ratios: list[Cells] = [[outcome_name(key), shown(found["ratio"])] for key, found in results["factorial"].items()]
    return [
        Heading(3, "Headline comparisons"),
        Table(["outcome", "comparison", "estimate", "p", "p (Holm)"], rows, left=2, sectioned=True),
        paragraph(
            "The effects of training and of decoding sum to the first line of each outcome. The ratio of the "
            "means, recipe trained and decoded / article trained and decoded:"
        ),
        Table(["outcome", "ratio"], ratios),
    ]


def sweep(results: Results) -> list[Block]:
    """Section 2: every decoding of base, article and recipe."""
    rows: list[Cells] = [
        [outcome_name(key), decoding, *(shown(by_arm[arm][decoding]) for arm in by_arm)]
        for key, by_arm in results["sweep"].items()
        for decoding in results["study"]["decodings"]
    ]
    arms = list(next(iter(results["sweep"].values())))
    return [
        Heading(2, "2. Penalty and scope"),
        paragraph(
            "The scope says what counts as said already: generated, the answer's own tokens; all, the prompt's "
            "too, and with it the context that the answer should quote."
        ),
        Table(["outcome", "decoding", *arms], rows, left=2, sectioned=True),
    ]


def losses(results: Results) -> list[Block]:
    """Section 4: what each decoding costs against greedy, context against open."""
    rows: list[Cells] = []
    for arm, by_decoding in results["losses"].items():
        for decoding, found in by_decoding.items():
            lost = [shown(found[name], signed=True) for name in ("context", "open", "difference")]
            kept = [shown(found[f"kept_on_{name}"]) for name in ("context", "open")]
            rows.append([arm, decoding, *lost, p_cell(found["difference"]), *kept])
    header = ["system", "decoding", "lost on context", "lost on open", "context − open", "p"]
    header += ["kept, context", "kept, open"]
    return [
        Heading(2, "4. Does a decoding cost context questions more than open ones?"),
        paragraph(
            "Lost: character F1 under greedy decoding minus under this one, dolly's rows; below 0 the decoding "
            "helps. Context − open above 0 is the claim. Kept: score under this decoding / score under greedy, "
            "which does not depend on how much there was to lose. p of the difference alone, not corrected for "
            "their number."
        ),
        Table(header, rows, left=2, sectioned=True),
    ]


def dose(results: Results) -> list[Block]:
    """Section 3: share of the reference in the prompt against the score lost."""
    decoding = results["study"]["article_decoding"]
    blocks: list[Block] = [
        Heading(2, "3. The more of the reference stands in the prompt, the more is lost?"),
        paragraph(
            "Lost: a row's character F1 under greedy decoding minus under the other one, over dolly's rows. "
            "Share: how much of the reference's tokens already stand in the prompt, where a penalty over the "
            "prompt reaches them. Classification has a high share and no context. A row can lose only what it "
            "had, so the decoding whose penalty leaves the prompt alone is the control: with it, share and loss "
            "should not go together."
        ),
        Heading(3, "Rank correlation of share and loss"),
        _correlations(results),
        paragraph(
            "Spearman's ρ with intervals over contexts, p by the bootstrap. Within context and within open rows, "
            "what differs between the groups cannot make the correlation."
        ),
    ]
    for arm, by_decoding in results["dose"].items():
        found = by_decoding.get(decoding)
        blocks.append(Heading(3, f"Lost by {arm} from {GREEDY} to {decoding}"))
        if not found:
            blocks.append(paragraph(f"{NOT_RUN.capitalize()}."))
            continue
        fifths: list[Cells] = [
            [f"share {one['low']:.2f} to {one['high']:.2f}", "", str(one["n"]), shown(one, signed=True)]
            for one in found["fifths"]
        ]
        categories: list[Cells] = [
            [category, number(one["share"], digits=2), str(one["n"]), shown(one, signed=True)]
            for category, one in found["categories"].items()
        ]
        blocks.append(Table(["rows", "mean share", "n", "character F1 lost"], [*fifths, *categories]))
    return blocks


def _correlations(results: Results) -> Table:
    scopes = ("all", "context", "open")
    rows: list[Cells] = []
    for arm, by_decoding in results["dose"].items():
        for decoding, found in by_decoding.items():
            cells: Cells = []
            for scope in scopes:
                one = found and found["correlation"].get(scope)
                cells += [shown(one and {**one, "mean": one["rho"]}, signed=True), p_cell(one)]
            rows.append([arm, decoding, *cells])
    return Table(["system", "decoding", *(c for s in scopes for c in (f"ρ, {s}", "p"))], rows, left=2, sectioned=True)


def behaviour(results: Results) -> list[Block]:
    """Section 6: how the recipe's answers are made under each decoding."""
    recipe, found = results["study"]["recipe"], results["behaviour"]
    metrics = ("eos_rate", "length_ratio", "particle_share", "punctuation_share", "rep_4")
    rows: list[Cells] = []
    for scope, one in found["groups"].items():
        rows_name, group = scope.split(".")
        name = f"{ROWS_NAMES[rows_name]}{f' {group}' if rows_name == 'dolly' else ''}"
        own = [number(one["reference"][metric]) for metric in metrics]
        rows.append([name, "references", *own])
        for decoding, scores in one["decodings"].items():
            rows.append([name, decoding, *(shown(scores[metric]) for metric in metrics)])
    return [
        Heading(2, f"6. How the answers of {recipe} are made"),
        paragraph(
            "The references' own shares say what is usual. A penalty that is too high takes particles and "
            "punctuation away, because they recur in any normal text; one that is too low lets answers repeat."
        ),
        Table(["rows", "decoding", *(BY_KEY[m].name for m in metrics)], rows, left=2, sectioned=True),
        Heading(3, "dolly's rows in thirds, by the length of the reference"),
        _thirds(found["reference_thirds"]),
        Heading(3, "dolly's answers by their own length"),
        paragraph(
            "Decodings have different answers of a length, so this says what long answers look like, not what the"
            " decoding does to a row."
        ),
        _lengths(found["answer_lengths"]),
    ]


def _thirds(thirds: Sequence[Mapping[str, Any]]) -> Table:
    metrics = ("particle_share", "punctuation_share", "rep_4", "character_f1")
    rows: list[Cells] = []
    for third in thirds:
        name = f"{third['characters'][0]} to {third['characters'][1]} characters (n = {third['n']})"
        own = [number(third["reference"].get(m)) for m in metrics]
        rows.append([name, "references", *own])
        for decoding, scores in third["decodings"].items():
            rows.append([name, decoding, *(shown(scores and scores[m]) for m in metrics)])
    return Table(["reference", "decoding", *(BY_KEY[m].name for m in metrics)], rows, left=2, sectioned=True)


def _lengths(lengths: Sequence[Mapping[str, Any]]) -> Table:
    metrics = ("particle_share", "punctuation_share", "rep_4")
    rows: list[Cells] = []
    for one in lengths:
        name = f"over {one['above']}" + (f" to {one['to']}" if one["to"] else "") + " characters"
        own = [number(one["reference"][m]) for m in metrics]
        rows.append([name, "references", str(one["reference"]["n"]), *own])
        for decoding, scores in one["decodings"].items():
            count = str(scores["n"]) if scores else NOT_RUN
            rows.append([name, decoding, count, *(shown(scores and scores[m]) for m in metrics)])
    return Table(["answer", "decoding", "answers", *(BY_KEY[m].name for m in metrics)], rows, left=2, sectioned=True)
