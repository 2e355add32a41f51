# SPDX-License-Identifier: MIT
"""JSON into frozen dataclasses: every value of the type that its field says, or an error."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, get_args, get_origin

_LARGEST = 5e10
"""Of a float. All are seconds; as a Unix time this is in the year 3554."""


def typed(wanted: Any, value: Any) -> Any:  # noqa: ANN401 - any field, any JSON
    """The value as a field of that type holds it; `ValueError` or `TypeError` if it cannot.

    Members that the dataclass does not have are passed over; what is left out has its default.
    """
    match get_origin(wanted) or wanted, value:
        case kind, dict() if is_dataclass(kind):
            given = {one.name: one.type for one in fields(kind) if one.name in value}
            read: Any = wanted(**{name: typed(inner, value[name]) for name, inner in given.items()})
        case kind, dict() if kind is Mapping:
            read = {key: typed(get_args(wanted)[1], one) for key, one in value.items()}
        case kind, list() if kind is tuple:
            read = tuple(typed(get_args(wanted)[0], one) for one in value)
        case kind, _ if kind is UnionType:
            read = None if value is None else typed(get_args(wanted)[0], value)
        # type() and not isinstance(): in Python True is an int.
        case kind, _ if kind is float and type(value) in {int, float} and abs(value) < _LARGEST:
            read = float(value)
        case kind, _ if kind in {int, str} and type(value) is kind:
            read = value
        case _:
            raise ValueError(f"{value!r:.40} stands where {wanted} is wanted")
    return read
