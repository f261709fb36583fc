"""A template's headings: the lines of its own before a question, a context or an answer, where the next one begins."""

from sft.prompt.template import PromptTemplate, format_parts


def headings(template: PromptTemplate) -> tuple[str, ...]:
    """The headings of a text template, in the order of its fields: of alpaca-ja `### 指示:`, `### 入力:`, `### 応答:`.

    A heading is what a line begins with in front of a field, or in front of the answer, and it is marked as one: it
    ends with a sign (`質問:`), or begins with one and stands alone in its line (`### Response`, whose line break then
    belongs to it). A bare word is none, since an answer may begin a line with it. A chat template has none: special
    tokens divide its turns.
    """
    if template.special_tokens is not None:
        return ()
    found: dict[str, None] = {}
    for text in (template.with_input, template.without_input):
        literals, _ = format_parts(text)
        for place, literal in enumerate(literals):
            _, is_first_in_line, line = literal.rstrip().rpartition("\n")
            line = line.lstrip()
            stands_alone = "\n" in literal[len(literal.rstrip()) :]
            if not (is_first_in_line or place == 0) or not any(map(str.isalnum, line)):
                continue
            if not line[-1].isalnum():
                found[line] = None
            elif stands_alone and not line[0].isalnum():
                found[line + "\n"] = None
    return tuple(found)


def stop_texts(template: PromptTemplate) -> list[str]:
    """What other engines have to stop at, wherever it stands: each heading behind a line break."""
    return [f"\n{heading}" for heading in headings(template)]
