# SPDX-License-Identifier: MIT
"""The broken worlds. What is merely busy, alive or gone is a value, never an exception."""

import os


class StorewardenError(Exception):
    """Something the user can act on; its text is one line, lower case, and says where."""


class BadStorePathError(StorewardenError):
    """A text that does not name a store path."""


class BadMessageError(StorewardenError):
    """A line on the wire that is not exactly what the protocol says."""


class StoreUnreadableError(StorewardenError):
    """The store directory, its state or its database cannot be read or believed."""


class UnavailableError(StorewardenError):
    """What a removal, or the service, cannot do without is not to be had now."""


class AuditUnavailableError(UnavailableError):
    """The audit log cannot be written durably, so nothing may be removed."""


def reason_of(cause: OSError) -> str:
    """What the system says of an error, as a part of a sentence."""
    return os.strerror(cause.errno or 0).lower()
