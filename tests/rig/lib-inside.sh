# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Sourced by what the tests of the rig run inside: notes what is wrong and goes on.
inside_wrong=0

wrong() { # SENTENCE
    printf 'inside: %s\n' "$*" >&2
    inside_wrong=1
}

same() { # WHAT IS SHOULD
    [[ $2 == "$3" ]] || wrong "$1: '$2' is not '$3'"
}

verdict() {
    ((inside_wrong)) || echo 'inside: ok'
}
