"""Values inside text: what they are (a date, a time, a number, a name …) and when two are the same."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_UNITS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
_NUMBER_WORDS = {word: n for n, word in enumerate(_UNITS)} | {
    "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
    "hundred": 100, "half": 0.5, "single": 1, "dozen": 12, "couple": 2,
}  # fmt: skip
_NTHS = (
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh",
    "twelfth",
)  # fmt: skip
_ORDINALS = {word: n for n, word in enumerate(_NTHS, 1)}

_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sep(?:t(?:ember)?)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
_DAY = r"(?:monday|tuesday|wednesday|thursday|friday|saturday|sunday)"
_NTH = rf"(?:\d{{1,2}}(?:st|nd|rd|th)|{'|'.join(_NTHS)})"
_NUM_WORD = "(?:" + "|".join(sorted(_NUMBER_WORDS, key=len, reverse=True)) + ")"
_DATE = (
    r"\d{4}-\d{1,2}-\d{1,2}|\d{1,2}/\d{1,2}/\d{2,4}"
    rf"|(?:{_DAY},?\s+)?(?:the\s+)?{_NTH}\s+(?:of\s+)?"
    rf"(?:{_MONTH}\b(?:,?\s+\d{{4}})?|(?:this|next|the)\s+month)"
    rf"|(?:{_DAY},?\s+)?{_MONTH}\s+(?:the\s+)?(?:{_NTH}|\d{{1,2}}\b(?!:))(?:,?\s+\d{{4}})?"
    rf"|\d{{1,2}}\s+{_MONTH}\b(?:,?\s+\d{{4}})?"
    rf"|(?:this|next|coming)\s+{_DAY}(?:\s+(?:this|next)\s+week)?|{_DAY}\s+(?:this|next)\s+week|{_DAY}"
    r"|(?:the\s+)?day\s+after\s+tomorrow|(?:later\s+)?today|tonight|tomorrow|yesterday"
    rf"|the\s+{_NTH}|\d{{1,2}}(?:st|nd|rd|th)"
)
_PART = r"(?:\s*o'?clock)?(?:\s+in\s+the\s+(?:morning|afternoon|evening)|\s+at\s+night)"
_TIME = (
    r"\d{1,2}:\d{2}(?::\d{2})?(?:\s*[ap]\.?m\b\.?)?|\d{1,2}(?:[.]\d{2})?\s*[ap]\.?m\b\.?"
    rf"|(?:half\s+past|quarter\s+(?:past|to))\s+(?:\d{{1,2}}|{_NUM_WORD})(?:\s*[ap]\.?m\b\.?|{_PART})?"
    rf"|{_NUM_WORD}(?:\s+(?:thirty|fifteen|forty[- ]five))?\s*[ap]\.?m\b\.?"
    rf"|(?:\d{{1,2}}|{_NUM_WORD}){_PART}|(?:\d{{1,2}}|{_NUM_WORD})\s*o'?clock"
    r"|(?:morning|afternoon|evening)\s+(?:\d{1,2}(?::\d{2})?)|noon|midnight"
)
_CAPITAL = rf"(?!(?i:(?:{_DAY}|{_MONTH})\b)|I\b)(?:\b(?:[A-Z]|St|Dr|Mr|Mrs|Ms|Jr|Mt)\.(?!\w)|\b[A-Z][\w'’&]*)"
_COUNT = rf"{_NUM_WORD}(?:(?:[\s-]+(?:and\s+)?)(?:{_NUM_WORD}|thousand|million))*"
_MENTION = re.compile(
    r"(?P<email>[\w.+-]+@[\w-]+\.[\w.]*\w)"
    r"|(?P<url>(?:https?://|www\.)\S*[\w/])"
    r'|(?P<quote>"[^"\n]{1,120}"|“[^”\n]{1,120}”|(?<!\w)\'[^\'\n]{2,80}\'(?!\w))'
    r"|(?P<phone>(?<!\w)\+?\d{0,3}[ -]?\(?\d{3}\)?[ -]\d{3}[ -]\d{4}\b)"
    rf"|(?P<date>(?i:(?<![\w.-])(?:{_DATE})(?!\w))(?!\s(?:Street|St|Avenue|Ave|Road|Floor)\b))"
    rf"|(?P<time>(?i:(?<![\w.:-])(?:{_TIME})(?!\w)))"
    r"|(?P<money>[$€£]\s?\d[\d,]*(?:\.\d+)?|\b\d[\d,]*(?:\.\d+)?\s?(?i:dollars|euros|pounds|usd|eur)\b)"
    r"|(?P<file>(?<![\w/])[\w./~+-]*\w\.(?!\d+\b)[A-Za-z]\w{0,9}(?:\.\w+)*\b)"
    r"|(?P<identifier>\b(?!\d+(?:st|nd|rd|th)\b)(?=\w*\d)(?=\w*[A-Za-z])\w{4,}\b|\b[A-Za-z]+(?:[_-]\w+)*_\w+\b|\b[A-Z]{1,5}-?\d+\b)"
    rf"|(?P<number>(?<![\w.])(?!\d+\s[A-Z][a-z]+\s[A-Z][a-z])[-+]?\d[\d,]*(?:\.\d+)?%?(?![\w])|\b(?i:{_COUNT})\b(?!\s+[A-Z])(?i:\s+dollars)?)"
    rf"|(?P<name>(?:\b\d+(?:st|nd|rd|th)?\s+)?{_CAPITAL}(?:(?:\s+|-)(?:(?:of|the|de|la|and|del|van|von|in|for|on|to|a)\s+){{0,2}}{_CAPITAL}|"
    rf",\s{_CAPITAL}(?=[.?!]|$|\s+[a-z])|\s+\d+(?![\w:/-]))*)"
)
_STARTERS = re.compile(r"(?:^|[.!?:]\s+|\n)$")


@dataclass(frozen=True, slots=True)
class Mention:
    """A value found in text: `text[start:end] == surface`."""

    kind: str
    surface: str
    start: int
    end: int
    #: comparable form; equal values of one kind have equal or `same` forms
    norm: tuple


def _day(text: str) -> tuple:
    """(month or 0, day or 0, weekday or 0, word): what a date says; 0 where it says nothing."""
    low = text.lower()
    iso = re.match(r"(\d{4})-(\d{1,2})-(\d{1,2})$", low)
    if iso:
        return int(iso[2]), int(iso[3]), 0, ""
    slashed = re.match(r"(\d{1,2})/(\d{1,2})/\d{2,4}$", low)
    if slashed:
        return int(slashed[1]), int(slashed[2]), 0, ""
    month = next((n for n, m in enumerate(_MONTHS, 1) if re.search(rf"\b{m}", low)), 0)
    weekday = next((n for n, d in enumerate(_DAYS, 1) if d in low), 0)
    number = re.search(r"\b(\d{1,2})(?:st|nd|rd|th)?\b", low)
    day = (
        int(number[1])
        if number
        else next((n for w, n in _ORDINALS.items() if re.search(rf"\b{w}\b", low)), 0)
    )
    word = "" if month or day or weekday else re.sub(r"^(?:the|later)\s+", "", low)
    return month, day, weekday, word


def _hour(text: str) -> tuple:
    """(minutes after 0:00 or after noon, whether the half of the day is known)."""
    low = text.lower()
    if low in ("noon", "midnight"):
        return (720 if low == "noon" else 0), True
    words = re.findall(r"[a-z]+|\d+", low)
    numbers = [
        int(w) if w.isdigit() else _NUMBER_WORDS[w] for w in words if w.isdigit() or w in _NUMBER_WORDS
    ]
    numbers = [n for n in numbers if n != 0.5]
    hour, minute = (int(numbers[0]) if numbers else 0), (int(numbers[1]) if len(numbers) > 1 else 0)
    if "half" in words:
        minute = 30
    if "quarter" in words:
        hour, minute = (hour - 1, 45) if "to" in words else (hour, 15)
    later = bool(re.search(r"\d\s*p|\bp\.?m|afternoon|evening|night", low))
    known = later or bool(re.search(r"\d\s*a\.?m|\ba\.?m|morning", low)) or hour > 12 or low.startswith("0")
    return (hour % 12 + 12 * (later or hour > 12)) * 60 + minute, known


def _amount(text: str) -> tuple:
    low = re.sub(r"[^\w.-]", "", text.lower())
    low = re.sub(r"(?:dollars|euros|pounds|usd|eur)$", "", low)
    if low in _NUMBER_WORDS:
        return (float(_NUMBER_WORDS[low]),)
    if low.isalpha():
        return (_spelled(text),)
    try:
        return (float(low),)
    except ValueError:
        return (low,)


def _spelled(text: str) -> float:
    """One thousand three hundred and eighty -> 1380.0."""
    total = part = 0.0
    for word in re.findall(r"[a-z]+", text.lower()):
        if word in ("thousand", "million"):
            total, part = total + (part or 1) * (1e3 if word == "thousand" else 1e6), 0.0
        elif word == "hundred":
            part = (part or 1) * 100
        else:
            part += _NUMBER_WORDS.get(word, 0)
    return total + part


def norm(kind: str, surface: str) -> tuple:
    """The comparable form of a value of this kind."""
    if kind == "date":
        return _day(surface)
    if kind == "time":
        return _hour(surface)
    if kind in ("number", "money"):
        return _amount(surface)
    return tuple(re.findall(r"\w+", surface.lower()))


def same(kind: str, a: tuple, b: tuple) -> bool:
    """Whether two normal forms of a kind can mean the same value ("the 12th" and 2019-03-12 can)."""
    if a == b:
        return True
    if kind == "date":
        said = [(x, y) for x, y in zip(a[:2], b[:2], strict=True) if x and y]
        return bool(a[1] and b[1] and said and all(x == y for x, y in said)) or bool(a[2] and a[2] == b[2])
    if kind == "time":
        return a[0] % 720 == b[0] % 720 and not (a[1] and b[1])
    return False


@lru_cache(maxsize=65536)
def mentions(text: str) -> tuple[Mention, ...]:
    """Values in a text, left to right, without overlaps. A capital at the start of a sentence is no name."""
    found = []
    for match in _MENTION.finditer(text):
        kind, start, end = match.lastgroup or "", match.start(), match.end()
        surface = match[0]
        if kind == "quote":
            start, end, surface = start + 1, end - 1, surface[1:-1]
        if kind == "name":
            if _STARTERS.search(text[max(0, start - 3) : start]) or not start:
                first = re.match(r"[\w'’&]+[.]?\s*", surface)
                if first and _sentence_word(surface, first[0]):
                    start, surface = start + first.end(), surface[first.end() :]
                    lead = re.match(r"(?:(?:of|the|de|la|and|in|for|on|to|a)\s+)+", surface)
                    if lead:
                        start, surface = start + lead.end(), surface[lead.end() :]
            surface = (
                surface.rstrip(". ")
                if not re.search(r"\b(?:[A-Z]|St|Dr|Jr|Mr|Mrs|Ms)\.$", surface)
                else surface
            )
            end = start + len(surface)
            if not surface or surface in ("I", "I'm", "I'd", "I'll", "I've", "OK", "Ok"):
                continue
        found.append(Mention(kind, surface, start, end, norm(kind, surface)))
    return tuple(found)


def _sentence_word(surface: str, first: str) -> bool:
    """Whether the first word of a capitalised run is capital only because a sentence begins there."""
    word = first.strip(" .").lower()
    rest = surface[len(first) :]
    return word in FUNCTION_WORDS or word in OPENERS or not rest or word.endswith("ing")


_FUNCTION_WORDS = """
a about after again all also am an and any anything are aren't around as at available be because
been before being both but by can can't cannot could d did do does doesn't doing don't done either
else ever every everything few for from further get getting give go going got had has have having he
her here him his how i i'd i'll i'm i've if in into is isn't it it's its just know let let's like ll
look looking looks m make may maybe me might more most much must my need needs no nor not nothing
now of off oh ok okay on one ones only or other our out over own per please quite rather re really
right s same say see shall she should so some something soon still such sure t take tell than thank
thanks that that's the their them then there there's these they thing things think this those
through till to too try under until up us use using ve very want wants was way we well were what
what's when where which while who whom whose why will with won't would wouldn't yeah yep yes you
you'd you'll you're your yours
"""
#: words that carry no value of their own
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
_OPENERS = """
actually add additionally alright another any awesome book buy bye call check confirm confirmed
confirming cool currently done enjoy excellent find first good goodbye got great hello help hey hi
hmm list look make nah next nice nope open pay perfect play request reserve run schedule search
second send set show sorry sounds start task transfer well wonderful wrote yep yup
"""
#: words that open sentences and requests
OPENERS = frozenset(_OPENERS.split())
