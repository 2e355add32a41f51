# SPDX-License-Identifier: MIT
"""Real shells, asked what they would complete a line to."""

import os
import subprocess
from collections.abc import Sequence

from programs import program

CHECKOUT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
COMPLETIONS = f"{CHECKOUT}/completions"

# A line a call; bash is given the words apart, as it takes them apart itself.
_BASH = """\
source "$1"
asked=$(complete -p storewarden)
asked=${asked##*-F }
mapfile -d '' -t lines
for line in "${lines[@]}"; do
    read -r -a COMP_WORDS <<<"$line"
    [[ $line == *' ' ]] && COMP_WORDS+=('')
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMP_LINE=$line COMP_POINT=${#line} COMPREPLY=()
    # compopt complains that nobody completes; there is no terminal here.
    "${asked%% *}" storewarden "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}" 2>/dev/null
    printf '%s\\n' "${COMPREPLY[@]}"
    printf '\\0'
done
"""
_FISH = """\
source $argv[1]
while read -z line
    complete --do-complete $line | string replace --regex '\\t.*' ''
    printf '\\0'
end
"""
# zsh completes only at a terminal, so it is given one; what is handed to compadd is told.
_ZSH = """\
zmodload zsh/zpty
directory=$1
while IFS= read -r -d $'\\0' line; do
    zpty z zsh -f -i
    zpty -w z "PS1=; fpath=(${(q)directory} \\$fpath); cd ${(q)PWD}; TERM=dumb"
    zpty -w z 'autoload -U compinit && compinit -u -D'
    zpty -w z 'compadd() {
        builtin compadd "$@"
        local done=$?
        [[ ${@[1,(i)(-|--)]} == *-(O|A|D)\\ * ]] && return done
        local -a hits
        builtin compadd -A hits "$@"
        (( $#hits )) && print -rl -- "<"${^hits}">"
        return done
    }'
    zpty -w z 'asked() { compprefuncs=(begun); comppostfuncs=(ended); zle complete-word }
        begun() { print "<<" } ; ended() { print ">>"; exit }
        zle -N asked; bindkey "^I" asked; bindkey "^[i" asked; print re"ady"'
    zpty -r z ignored '*ready*'
    zpty -w -n z "$line"$'\\t'
    zpty -r z told '*>>*'
    told=${told##*<<}
    print -rn -- "${told%%>>*}"$'\\0'
    zpty -d z
done
"""


def offered(shell: str, lines: Sequence[str], directory: str) -> list[set[str]]:
    """Of each line, what that shell offers for its last word, standing in that directory."""
    match shell:
        case "bash":
            script = [_BASH, "bash", f"{COMPLETIONS}/storewarden.bash"]
            command = [program("bash", "bash"), "--norc", "-c", *script]
        case "fish":
            script = [_FISH, f"{COMPLETIONS}/storewarden.fish"]
            command = [program("fish", "fish"), "--no-config", "-c", *script]
        case _:
            command = [program("zsh", "zsh"), "-f", "-c", _ZSH, "zsh", COMPLETIONS]
    done = subprocess.run(
        command,
        input="".join(f"{line}\0" for line in lines),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=directory,
    )
    assert done.stderr == "", done.stderr
    *answers, rest = done.stdout.split("\0")
    assert (len(answers), rest.strip()) == (len(lines), ""), done.stdout
    return [_words(answer) for answer in answers]


def _words(answer: str) -> set[str]:
    """One a line; a directory has a slash at its end only in fish."""
    words = (line.strip().removeprefix("<").removesuffix(">") for line in answer.splitlines())
    return {word.rstrip("/") for word in words if word}
