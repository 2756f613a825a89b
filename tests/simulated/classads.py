"""Expressions of ClassAds and macros of submit descriptions, as far as batch jobs meet them.

After the manual of HTCondor: "Matchmaking with ClassAds" and "Submit File Commands".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

Value = bool | int | float | str | list["Value"] | None  # None: undefined

_TOKEN = re.compile(
    r"""\s*(?:(?P<number>\d+(?:\.\d+)?)|"(?P<text>(?:[^"\\]|\\.)*)"|(?P<name>[A-Za-z_][\w.]*)"""
    r"""|(?P<sign>=\?=|=!=|==|!=|<=|>=|&&|\|\||\?:|[-+*/<>!(){},?:]))"""
)


class ParseError(Exception):
    """No expression."""


def evaluate(text: str, ad: Mapping[str, Value]) -> Value:
    """The value of an expression; ``ad``: the attributes by their names in small letters."""
    parser = _Parser(text, ad)
    value = parser.either()
    if parser.tokens:
        raise ParseError(text)
    return value


class _Parser:
    def __init__(self, text: str, ad: Mapping[str, Value]) -> None:
        self._ad = ad
        self._text = text
        self.tokens: list[tuple[str, str]] = []
        rest = text.rstrip()
        while rest:
            match = _TOKEN.match(rest)
            if not match:
                raise ParseError(text)
            kind = match.lastgroup or ""
            self.tokens.append((kind, match[kind]))
            rest = rest[match.end() :]

    def _take(self, *signs: str) -> str:
        """The next sign, if it is one of these, or a word that means the same."""
        if self.tokens:
            kind, text = self.tokens[0]
            if kind == "name":
                text = {"is": "=?=", "isnt": "=!="}.get(text.lower(), text)
            if kind in {"sign", "name"} and text in signs:
                self.tokens.pop(0)
                return text
        return ""

    def either(self) -> Value:
        """Elvis and the question mark, the weakest of all."""
        value = self._or()
        if self._take("?:"):
            other = self.either()
            return other if value is None else value
        return value

    def _or(self) -> Value:
        value = self._and()
        while self._take("||"):
            other = self._and()
            value = True if value is True or other is True else _unless_undefined(value, other)
        return value

    def _and(self) -> Value:
        value = self._comparison()
        while self._take("&&"):
            other = self._comparison()
            if value is False or other is False:
                value = False
            else:
                value = None if value is None or other is None else bool(value and other)
        return value

    def _comparison(self) -> Value:
        value = self._sum()
        while sign := self._take("==", "!=", "=?=", "=!=", "<=", ">=", "<", ">"):
            value = _compare(sign, value, self._sum())
        return value

    def _sum(self) -> Value:
        value = self._unary()
        while sign := self._take("+", "-"):
            other = self._unary()
            if isinstance(value, int | float) and isinstance(other, int | float):
                value = value + other if sign == "+" else value - other
            else:
                value = None
        return value

    def _unary(self) -> Value:
        if self._take("!"):
            value = self._unary()
            return None if value is None else not value
        if self._take("("):
            value = self.either()
            self._must(")")
            return value
        if self._take("{"):
            return self._list("}")
        return self._atom()

    def _atom(self) -> Value:
        if not self.tokens:
            raise ParseError(self._text)
        kind, text = self.tokens.pop(0)
        if kind == "number":
            return float(text) if "." in text else int(text)
        if kind == "text":
            return re.sub(r"\\(.)", r"\1", text)
        if kind != "name":
            raise ParseError(self._text)
        if self._take("("):
            return self._call(text.lower(), self._list(")"))
        constants: Mapping[str, Value] = {"true": True, "false": False, "undefined": None}
        name = text.lower().removeprefix("my.")
        return constants[name] if name in constants else self._ad.get(name)

    def _list(self, end: str) -> list[Value]:
        values: list[Value] = []
        while not self._take(end):
            values.append(self.either())
            if not self._take(","):
                self._must(end)
                break
        return values

    def _must(self, sign: str) -> None:
        if not self._take(sign):
            raise ParseError(self._text)

    def _call(self, name: str, arguments: Sequence[Value]) -> Value:
        if name == "member" and isinstance(arguments[1], list):
            return arguments[0] in arguments[1]
        if name == "isundefined":
            return arguments[0] is None
        if name == "ifthenelse":
            return arguments[1] if arguments[0] else arguments[2]
        raise ParseError(f"function {name}")


def _unless_undefined(value: Value, other: Value) -> Value:
    return None if value is None or other is None else bool(value or other)


def _compare(sign: str, left: Value, right: Value) -> Value:
    if sign in {"=?=", "=!="}:
        same = type(left) is type(right) and left == right
        return same if sign == "=?=" else not same
    if left is None or right is None:
        return None
    if isinstance(left, str) and isinstance(right, str):
        left, right = left.lower(), right.lower()
    elif isinstance(left, str | list) or isinstance(right, str | list):
        return None
    if sign in {"==", "!="}:
        return (left == right) is (sign == "==")
    less, same = left < right, left == right  # type: ignore[operator]
    return {"<": less, "<=": less or same, ">": not less and not same, ">=": not less}[sign]


def expand(text: str, macros: Mapping[str, str]) -> str:
    """A text with its $(NAME) and $(NAME:default) replaced, also within one another."""
    innermost = re.compile(r"\$\(([A-Za-z_][\w.]*)(?::([^()$]*))?\)")
    while match := innermost.search(text):
        name = match[1].lower()
        value = "\0" if name == "dollar" else macros.get(name, match[2] or "")
        text = f"{text[: match.start()]}{value}{text[match.end() :]}"
    return text.replace("\0", "$")


def split_arguments(text: str) -> list[str]:
    """The words of ``arguments`` and ``environment`` in their new syntax: "a 'b c' d""e"."""
    text = text.strip()
    if not (len(text) >= 2 and text[0] == text[-1] == '"'):
        return text.split()
    words: list[str] = []
    word: str | None = None
    quoted = False
    inside = text[1:-1].replace('""', '"')
    position = 0
    while position < len(inside):
        letter = inside[position]
        if letter == "'" and quoted and inside[position + 1 : position + 2] == "'":
            word = f"{word or ''}'"
            position += 1
        elif letter == "'":
            quoted = not quoted
            word = word or ""
        elif letter in " \t" and not quoted:
            if word is not None:
                words.append(word)
            word = None
        else:
            word = f"{word or ''}{letter}"
        position += 1
    return [*words, word] if word is not None else words
