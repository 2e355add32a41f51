# SPDX-License-Identifier: MIT
"""What Nix records in its database of the outputs of derivations, by version."""

import os
import sqlite3
from contextlib import closing

from storewarden.store.paths import StorePath
from storewarden.throwaway import ThrowawayStore

REALISATIONS = """CREATE TABLE Realisations (
    id integer primary key autoincrement not null, drvPath text not null,
    outputName text not null, outputPath integer not null, signatures text)"""
BUILD_TRACE = """CREATE TABLE BuildTraceV3 (
    id integer primary key autoincrement not null, drvPath text not null,
    outputName text not null, outputPath text not null, signatures text)"""
"""As ca-specific-schema.sql has them in Nix 2.34.6 and 2.35.2."""


def execute(place: ThrowawayStore, statement: str, *values: str) -> None:
    with closing(sqlite3.connect(f"{place.state_dir}/db/db.sqlite")) as connection, connection:
        connection.execute(statement, values)


def know_output(place: ThrowawayStore, derivation: StorePath, output: str, path: StorePath) -> None:
    """As Nix does when a `.drv` is registered whose output has a path known beforehand."""
    execute(
        place,
        "INSERT INTO DerivationOutputs SELECT id, ?, ? FROM ValidPaths WHERE path = ?",
        output,
        place.path(path.base_name),
        place.path(derivation.base_name),
    )


def realise(
    place: ThrowawayStore, table: str, derivation: StorePath, output: str, path: StorePath
) -> None:
    """Record that a build gave that floating output that path, as that version of Nix does."""
    with closing(sqlite3.connect(f"{place.state_dir}/db/db.sqlite")) as connection, connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        if table not in tables:
            connection.execute(REALISATIONS if table == "Realisations" else BUILD_TRACE)
        if table == "Realisations":
            connection.execute(
                "INSERT INTO Realisations (drvPath, outputName, outputPath)"
                " SELECT ?, ?, id FROM ValidPaths WHERE path = ?",
                ("sha256:" + "0" * 64, _raw(output), place.path(path.base_name)),
            )
        else:
            connection.execute(
                "INSERT INTO BuildTraceV3 (drvPath, outputName, outputPath) VALUES (?, ?, ?)",
                (derivation.base_name, _raw(output), place.path(path.base_name)),
            )


def _raw(text: str) -> str | bytes:
    """What SQLite takes for that text; of a name that is no UTF-8, its bytes."""
    return text if text.isprintable() and "\udcff" not in text else os.fsencode(text)
