"""Where one text repeats another, character by character."""

SHORTEST = 4
"""Characters from which a shared passage counts as copied."""


def shared_spans(text: str, source: str, shortest: int = SHORTEST) -> list[tuple[int, int]]:
    """Where `text` repeats `source` for `shortest` (≥ 1) characters or more: (start, end), ordered, not overlapping.

    From the left: where the next `shortest` characters of the text stand in the source, the longest passage that
    starts there and stands in the source is taken, and the search goes on behind it; otherwise one character
    is passed over. That is the greedy matching of Grusky et al. 2018 (N18-1065, figure 3), with characters for
    words.
    """
    found, start = [], 0
    while start + shortest <= len(text):
        end = start + shortest
        if text[start:end] not in source:
            start += 1
            continue
        while end < len(text) and text[start : end + 1] in source:
            end += 1
        found.append((start, end))
        start = end
    return found
