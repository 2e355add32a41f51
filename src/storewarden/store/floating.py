# SPDX-License-Identifier: MIT
"""What a `.drv` says of its outputs, and where Nix has written what has no path yet. Pure.

Of plain texts alone, and with next to nothing imported: it is asked before each build
(helper/before_build.py), which waits for the answer.
"""

NIX32 = "0123456789abcdfghijklmnpqrsvwxyz"
_FIRST, _NEXT, _LAST = 'Derive([("', '"),("', '")],['
_MEMBERS = 4  # of an output: name, path, hash algorithm, hash


def outputs_in(derivation: str) -> list[tuple[str, str]]:
    """Name and full path (empty for a floating output) of each output, from the text of a `.drv`.

    `ValueError` where it is not the plain `Derive([…` of derivations.cc.
    """
    listed, end, _ = derivation.partition(_LAST)
    if not (end and listed.startswith(_FIRST)):
        raise ValueError("not a plain derivation")
    outputs = []
    for row in listed.removeprefix(_FIRST).split(_NEXT):
        members = row.split('","')
        plain = len(members) == _MEMBERS and not {'"', "\\"} & set("".join(members))
        if not (plain and members[0]):
            raise ValueError("not a plain derivation")
        outputs.append((members[0], members[1]))
    return outputs


def scratch_name(derivation: str, output: str, store_dir: str) -> str:
    """Base name of the scratch path of a floating output, from the base name of its derivation.

    libstore `makeFallbackPath(outputName)`, the same from 2.4 to 2.36.
    """
    stem = derivation[len(derivation.partition("-")[0]) + 1 :].removesuffix(".drv")
    name = stem if output == "out" else f"{stem}-{output}"
    return rewritten_name(derivation, f"name:{output}", name, store_dir)


def rewritten_name(derivation: str, what: str, name: str, store_dir: str) -> str:
    """`makeStorePath` of libstore, of the type `rewrite:…` and with a hash of zeroes."""
    import hashlib  # noqa: PLC0415 - most builds have no floating output

    fingerprint = f"rewrite:{derivation}:{what}:sha256:{'0' * 64}:{store_dir}:{name}"
    digest = hashlib.sha256(fingerprint.encode()).digest()
    folded = bytearray(20)
    for position, byte in enumerate(digest):
        folded[position % 20] ^= byte
    return f"{nix32(bytes(folded))}-{name}"


def nix32(digest: bytes) -> str:
    """`digest` in Nix's base 32: five bits a character, the last bits first."""
    number = int.from_bytes(digest, "little")
    length = (len(digest) * 8 + 4) // 5
    return "".join(NIX32[number >> (5 * place) & 31] for place in reversed(range(length)))
