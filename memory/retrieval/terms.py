"""Words of a text as an index sees them: lower case, without accents, stemmed, hashed to 32 bits.

A revision's terms are stored in the order of the text (table `term`, column `words`): little-endian uint32,
one a word, nothing else. Counts, lengths and distances follow from that order, and 100,000 rows load with
one join of bytes. A hash is the CRC-32 of the stem: the same on every machine and in every version.

Two things that are no words are kept as terms too: whose or what a text is (`Ann: hello`, `city: Rome`: the
label's words as terms of their own, then `LABEL`, before the words of the text, which hold it again), and
that it ends as a question (`QUESTION`, after them).
"""

from __future__ import annotations

import re
import sys
import unicodedata
import zlib
from array import array

#: words of one text that are indexed; the rest of a longer text is found by its beginning only
LONGEST = 16_384

#: characters of one text that are read for it
LONGEST_TEXT = 8 * LONGEST

#: a text of so many characters, and of so many a word, is data (base64, keys): nobody finds it by its words
_DATA, _DATA_A_WORD = 256, 20

#: remembered words; the memory is emptied when it is full
_REMEMBERED = 200_000

#: ends the terms of a label
LABEL = zlib.crc32(b":")
#: the term of a text that ends as a question
QUESTION = zlib.crc32(b"?")

_WORD = re.compile(r"[^\W_]+")
# scripts without spaces: no word ends are known, so pairs of characters stand for words
_UNSPACED = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]{2,}")
# up to four words and a colon at the start of the first or second line: the first may be the item's key
_LABEL = re.compile(r"(?:[^\n]*\n)??[ \t]*([^\W\d_][\w'.-]*(?: [^\W_][\w'.-]*){0,3}):\s")
# a remark in brackets may follow the question
_ASKS = re.compile(r"\?[\s\"')]*(?:\[[^\]]*\]\s*)?\Z")

_STOP = """
    a about above after again against all also am an and any are aren as at be because been before being
    below between both but by can cannot could couldn d did didn do does doesn doing don down during each
    either else ever every few for from further get gets getting give gives got had hadn has hasn have haven
    having he hence her here hers herself him himself his how however i if in into is isn it its itself just
    let ll m many me might mightn more most much must mustn my myself neither no nor not now o of off on
    once only onto or other our ours ourselves out over own per please re s same shall shan she should
    shouldn since so some such t than that the their theirs them themselves then there these they this those
    though through thus till to too toward towards under until up upon us ve very via was wasn we were weren
    what whatever when whenever where wherever whether which whichever while who whoever whom whose why will
    with within without won would wouldn yes yet you your yours yourself yourselves"""
#: English function words and the words that only ask: no evidence for what a text is about
STOP_WORDS = frozenset(_STOP.split())
_TIME_WORDS = """yesterday today tomorrow tonight last next ago week weekend month year day morning evening
    night monday tuesday wednesday thursday friday saturday sunday january february march april june july
    august september october november december summer winter spring fall recently soon"""
_ASKS_TIME = re.compile(
    r"(?:\w+\W+){0,2}?when\b|.*\b(?:how long|(?:what|which) (?:date|day|month|year|time))\b"
)


def words(text: str) -> list[str]:
    """The words of a text in order: lower case, accents removed, nothing left out; at most `LONGEST`."""
    text = text[:LONGEST_TEXT].lower()
    if text.isascii():
        return _WORD.findall(text)[:LONGEST]
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    # a composed form again: Hangul comes apart into letters otherwise
    plain = unicodedata.normalize("NFC", plain)
    return _WORD.findall(_UNSPACED.sub(_pairs, plain))[:LONGEST]


def terms(text: str) -> list[int]:
    """The hashes of a text's stemmed words, in order."""
    if len(_known) > _REMEMBERED:
        _known.clear()
    return [_known[word] for word in words(text)]


def pack(text: str) -> bytes:
    """What table `term` holds of a text; empty when it has no words, or is data rather than text."""
    found = terms(text)
    if _is_data(text[:LONGEST_TEXT], len(found)):
        return b""
    if found:
        if label := _LABEL.match(text[:LONGEST_TEXT]):
            found[:0] = [*(label_term(word) for word in words(label[1])), LABEL]
        if _ASKS.search(text[-500:]):
            found.append(QUESTION)
    packed = array("I", found)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def _is_data(text: str, words: int) -> bool:
    most = _DATA_A_WORD * words
    return len(text) >= _DATA and len(text) > most and sum(map(len, text.split())) > most


def query_words(text: str) -> list[str]:
    """The distinct words of a question that carry meaning; all its words when none does."""
    found = list(dict.fromkeys(words(text)))
    return [word for word in found if word not in STOP_WORDS] or found


def term_of(word: str) -> int:
    """The hash of one word as `words` gives it."""
    return _known[word]


def label_term(word: str) -> int:
    """The hash of a label's word (`ann` in `Ann: hello`)."""
    return _labels[word]


def asks_time(question: str) -> bool:
    """Whether a question asks when something was, or how long."""
    return _ASKS_TIME.match(question.lower()) is not None


class _Known(dict[str, int]):
    def __missing__(self, word: str) -> int:
        value = zlib.crc32(stem(word).encode())
        self[word] = value
        return value


class _Labels(dict[str, int]):
    def __missing__(self, word: str) -> int:
        if len(self) > _REMEMBERED:
            self.clear()
        self[word] = value = zlib.crc32(f"{stem(word)}:".encode())
        return value


_known = _Known()
_labels = _Labels()


def _pairs(match: re.Match[str]) -> str:
    text = match[0]
    return " " + " ".join(text[i : i + 2] for i in range(len(text) - 1)) + " "


_FORMS = """arise arose arisen|awake awoke|bear bore borne|beat beaten|become became|begin began begun|
    bend bent|bind bound|bite bit bitten|bleed bled|blow blew blown|break broke broken|breed bred|
    bring brought|build built|burn burnt|buy bought|catch caught|choose chose chosen|come came|
    creep crept|deal dealt|dig dug|draw drew drawn|dream dreamt|drink drank drunk|
    drive drove driven|eat ate eaten|fall fell fallen|feed fed|feel felt|fight fought|find found|
    flee fled|fly flew flown|forget forgot forgotten|forgive forgave forgiven|freeze froze frozen|
    give gave given|go went gone|grow grew grown|hang hung|hear heard|hide hid hidden|hold held|
    keep kept|know knew known|lay laid|lead led|learn learnt|leave left|lend lent|lose lost|
    make made|mean meant|meet met|pay paid|ride rode ridden|ring rang rung|rise rose risen|
    run ran|say said|see saw seen|seek sought|sell sold|send sent|shake shook shaken|shine shone|
    shoot shot|show shown|shrink shrank shrunk|sing sang sung|sink sank sunk|sit sat|sleep slept|
    slide slid|speak spoke spoken|spend spent|spin spun|stand stood|steal stole stolen|
    stick stuck|strike struck|sweep swept|swim swam swum|swing swung|take took taken|teach taught|
    tear tore torn|tell told|think thought|throw threw thrown|understand understood|
    wake woke woken|wear wore worn|weave wove woven|weep wept|withdraw withdrew withdrawn|
    write wrote written|child children|foot feet|goose geese|man men|mouse mice|person people|
    tooth teeth|woman women|wife wives|life lives|knife knives|leaf leaves|half halves|
    wolf wolves|shelf shelves|analysis analyses|index indices|matrix matrices|vertex vertices|
    medium media|criterion criteria|good better best|bad worse worst"""
_IRREGULAR = {form: forms.split()[0] for forms in _FORMS.split("|") for form in forms.split()[1:]}

# Porter's stemmer: (suffix, what replaces it), tried longest first
_STEP_2 = {
    "ational": "ate", "tional": "tion", "enci": "ence", "anci": "ance", "izer": "ize", "bli": "ble",
    "alli": "al", "entli": "ent", "eli": "e", "ousli": "ous", "ization": "ize", "ation": "ate",
    "ator": "ate", "alism": "al", "iveness": "ive", "fulness": "ful", "ousness": "ous", "aliti": "al",
    "iviti": "ive", "biliti": "ble", "logi": "log",
}  # fmt: skip
_STEP_3 = {
    "icate": "ic", "ative": "", "alize": "al", "iciti": "ic", "ical": "ic", "ful": "", "ness": "",
}  # fmt: skip
_STEP_4 = "al ance ence er ic able ible ant ement ment ent ion ou ism ate iti ous ive ize"
_BY_LENGTH = [
    sorted(step.items(), key=lambda pair: -len(pair[0]))
    for step in (_STEP_2, _STEP_3, dict.fromkeys(_STEP_4.split(), ""))
]
_LETTERS = re.compile(r"[a-z]{3,}")


def stem(word: str) -> str:
    """The stem of one lower-case word; words of other letters or of one or two letters stay as they are.

    Martin F. Porter, "An algorithm for suffix stripping", Program 14(3), 1980, with the author's later
    changes (`bli`, `logi`), as SQLite's `tokenize = porter` does it. Irregular forms are stemmed as the word
    that they are of, which Porter's algorithm does not know.
    """
    word = _IRREGULAR.get(word, word)
    if _LETTERS.fullmatch(word) is None:
        return word
    word = _past(_plural(word))
    if word.endswith("y") and "v" in _shape(word[:-1]):
        word = word[:-1] + "i"
    word = _suffix(word, _BY_LENGTH[0], 1)
    word = _suffix(word, _BY_LENGTH[1], 1)
    return _end(_suffix(word, _BY_LENGTH[2], 2))


def _shape(word: str) -> str:
    """`c` for each consonant, `v` for each vowel; y is a vowel after a consonant."""
    shape = ""
    for letter in word:
        vowel = letter in "aeiou" or (letter == "y" and shape[-1:] == "c")
        shape += "v" if vowel else "c"
    return shape


def _measure(word: str) -> int:
    """How many times a consonant follows a vowel."""
    return _shape(word).count("vc")


def _closed(word: str) -> bool:
    """Whether the word ends in consonant, vowel, consonant other than w, x, y."""
    return _shape(word)[-3:] == "cvc" and word[-1] not in "wxy"


def _plural(word: str) -> str:
    if word.endswith(("sses", "ies")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _past(word: str) -> str:
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    for suffix in ("ed", "ing"):
        if word.endswith(suffix):
            base = word[: -len(suffix)]
            return _mended(base) if "v" in _shape(base) else word
    return word


def _mended(base: str) -> str:
    """A word that lost `ed` or `ing`, as its present form is written."""
    if base.endswith(("at", "bl", "iz")):
        return base + "e"
    if base[-1:] == base[-2:-1] and _shape(base)[-1] == "c" and base[-1] not in "lsz":
        return base[:-1]
    return base + "e" if _measure(base) == 1 and _closed(base) else base


def _suffix(word: str, step: list[tuple[str, str]], measure: int) -> str:
    for suffix, instead in step:
        if word.endswith(suffix):
            base = word[: -len(suffix)]
            keep = suffix == "ion" and not base.endswith(("s", "t"))
            return word if keep or _measure(base) < measure else base + instead
    return word


def _end(word: str) -> str:
    if word.endswith("e"):
        measure = _measure(word[:-1])
        if measure > 1 or (measure == 1 and not _closed(word[:-1])):
            word = word[:-1]
    return word[:-1] if word.endswith("ll") and _measure(word[:-1]) > 1 else word


#: terms that tell a time
TIME_TERMS = frozenset(term_of(word) for word in _TIME_WORDS.split())
