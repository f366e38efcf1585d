"""Functions that the workflow calls. They run in a process of their own; values come and go as JSON."""


def count_words(text: str) -> int:
    """How many words a text has."""
    return len(text.split())
