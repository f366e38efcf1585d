"""Words of a text as an index sees them: lower case, without accents, stemmed, hashed to 32 bits.

A revision's terms are stored in the order of the text (table `term`, column `words`): little-endian uint32,
one a word, nothing else. Counts, lengths and distances follow from that order, and 100,000 rows load with
one join of bytes. A hash is the CRC-32 of the stem: the same on every machine and in every version.
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

#: remembered words; the memory is emptied when it is full
_REMEMBERED = 200_000

_WORD = re.compile(r"[^\W_]+")
# scripts without spaces: no word ends are known, so pairs of characters stand for words
_UNSPACED = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]{2,}")

#: English function words and the words that only ask: no evidence for what a text is about
STOP_WORDS = frozenset(
    """a about above after again against all also am an and any are aren as at be because been before being
    below between both but by can cannot could couldn d did didn do does doesn doing don down during each
    either else ever every few for from further get gets getting give gives got had hadn has hasn have haven
    having he hence her here hers herself him himself his how however i if in into is isn it its itself just
    let ll m many may me might mightn more most much must mustn my myself neither no nor not now o of off on
    once only onto or other our ours ourselves out over own per please re s same shall shan she should
    shouldn since so some such t than that the their theirs them themselves then there these they this those
    though through thus till to too toward towards under until up upon us ve very via was wasn we were weren
    what whatever when whenever where wherever whether which whichever while who whoever whom whose why will
    with within without won would wouldn yes yet you your yours yourself yourselves""".split()
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
    """What table `term` holds of a text: `terms` as little-endian uint32."""
    packed = array("I", terms(text))
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def query_words(text: str) -> list[str]:
    """The distinct words of a question that carry meaning; all its words when none does."""
    found = list(dict.fromkeys(words(text)))
    return [word for word in found if word not in STOP_WORDS] or found


def term_of(word: str) -> int:
    """The hash of one word as `words` gives it."""
    return _known[word]


class _Known(dict[str, int]):
    def __missing__(self, word: str) -> int:
        value = zlib.crc32(stem(word).encode())
        self[word] = value
        return value


_known = _Known()


def _pairs(match: re.Match[str]) -> str:
    text = match[0]
    return " " + " ".join(text[i : i + 2] for i in range(len(text) - 1)) + " "


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
_STEP_4 = dict.fromkeys(
    "al ance ence er ic able ible ant ement ment ent ion ou ism ate iti ous ive ize".split(), ""
)
_BY_LENGTH = [sorted(step.items(), key=lambda pair: -len(pair[0])) for step in (_STEP_2, _STEP_3, _STEP_4)]
_LETTERS = re.compile(r"[a-z]{3,}")


def stem(word: str) -> str:
    """The stem of one lower-case word; words of other letters or of one or two letters stay as they are.

    Martin F. Porter, "An algorithm for suffix stripping", Program 14(3), 1980, with the author's later
    changes (`bli`, `logi`): the algorithm of SQLite's `tokenize = porter`.
    """
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
