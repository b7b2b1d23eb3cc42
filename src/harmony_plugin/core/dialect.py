"""Dialect: how the markers are spelled, as strings and as token ids.

Knows nothing of messages or channels; the lexer reads its tables and nobody else does.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

from .tokens import MARKER_IDS, SPECIAL_IDS, SPELLED

__all__ = ["Dialect", "FrozenDict"]

_K = TypeVar("_K")
_V = TypeVar("_V")


class FrozenDict(dict[_K, _V]):
    """A dict that stays as it was made: frozen settings are made of it.

    Unlike `types.MappingProxyType` it can be pickled, copied, and turned into a plain dict by `dataclasses.asdict`.
    """

    def _frozen(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("this mapping is frozen: make new settings with dataclasses.replace()")

    __setitem__ = __delitem__ = __ior__ = update = setdefault = pop = popitem = clear = _frozen

    def __reduce__(self) -> tuple[type[FrozenDict[_K, _V]], tuple[dict[_K, _V]]]:
        return type(self), (dict(self),)


@dataclass(frozen=True, kw_only=True, repr=False)
class Dialect:
    """The spelling of the markers. ``Dialect()`` is o200k_harmony, gpt-oss's own.

    ``markers`` and ``ids`` map a kind (``start``, ``end``, ``message``, ``channel``,
    ``constrain``, ``return``, ``call``, ``endoftext``) to its string and its token id; kinds that are left out keep
    Harmony's. ``reserved`` holds the other special ids of the vocabulary: they are dropped with an issue.

    Raises:
        ValueError: a kind that is not one, two markers alike, or one that stands in another
            (a stream could not tell them apart).
    """

    markers: Mapping[str, str] = field(default_factory=dict)
    ids: Mapping[str, int] = field(default_factory=dict)
    reserved: Container[int] = SPECIAL_IDS

    def __post_init__(self) -> None:
        for name, given in (("markers", self.markers), ("ids", self.ids)):
            unknown = sorted(set(given) - set(SPELLED))
            if unknown:
                raise ValueError(
                    f"Dialect({name}=…): unknown marker kinds {unknown}; the kinds are {', '.join(SPELLED)}"
                )
        markers = SPELLED | dict(self.markers)
        ids = MARKER_IDS | dict(self.ids)
        if len(set(ids.values())) != len(ids):
            raise ValueError("Dialect(ids=…): two markers have the same id")
        for kind, text in markers.items():
            clash = [other for other, longer in markers.items() if other != kind and text in longer]
            if not text or clash:
                raise ValueError(f"Dialect(markers=…): {kind} {text!r} is empty or stands in the marker of {clash}")
        object.__setattr__(self, "markers", FrozenDict(markers))
        object.__setattr__(self, "ids", FrozenDict(ids))
        if isinstance(self.reserved, (set, list)):
            object.__setattr__(self, "reserved", frozenset(self.reserved))
        object.__setattr__(self, "_hash", hash((*markers.items(), *ids.items())))

    def __hash__(self) -> int:
        return self._hash  # type: ignore[attr-defined, no-any-return]

    def __repr__(self) -> str:
        """What differs from Harmony's own."""
        markers = {kind: text for kind, text in self.markers.items() if text != SPELLED[kind]}
        ids = {kind: token for kind, token in self.ids.items() if token != MARKER_IDS[kind]}
        values = [f"{name}={value!r}" for name, value in (("markers", markers), ("ids", ids)) if value]
        values += [f"reserved={self.reserved!r}"] if self.reserved != SPECIAL_IDS else []
        return f"Dialect({', '.join(values)})"

    def __reduce__(self) -> tuple[Callable[..., Dialect], tuple[Mapping[str, str], Mapping[str, int], Container[int]]]:
        # Made anew: the hash of strings is another in another process.
        return _dialect, (self.markers, self.ids, self.reserved)

    @classmethod
    def from_vocabulary(
        cls,
        lookup: Callable[[str], int | None],
        *,
        markers: Mapping[str, str] | None = None,
        reserved: Container[int] = frozenset(),
    ) -> Dialect:
        """The dialect of a model: marker ids read from its own vocabulary.

        ``lookup`` maps a marker's string to its token id, or None where the vocabulary lacks it. ``reserved``: the
        vocabulary's other special ids.

        Raises:
            ValueError: names the markers that the vocabulary lacks (``<|endoftext|>`` may be missing).
        """
        spelled = SPELLED | dict(markers or {})
        found = {kind: lookup(text) for kind, text in spelled.items()}
        missing = [spelled[kind] for kind in SPELLED if found[kind] is None and kind != "endoftext"]
        if missing:
            raise ValueError(f"not a Harmony vocabulary: it has no token for {', '.join(missing)}")
        ids = {kind: token for kind, token in found.items() if token is not None}
        # An id no vocabulary has keeps the kind out of the way where the model has no such token.
        ids.setdefault("endoftext", -1)
        return cls(markers=spelled, ids=ids, reserved=reserved)


def _dialect(markers: Mapping[str, str], ids: Mapping[str, int], reserved: Container[int]) -> Dialect:
    return Dialect(markers=markers, ids=ids, reserved=reserved)
