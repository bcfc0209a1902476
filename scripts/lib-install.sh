# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Sourced by try and check: installs the Debian packages that a list names and this machine lacks.

# Names of one section of a list ([build]), or all of a list without sections.
install_names() { # LIST [SECTION]
    awk -v want="${2-}" '
        /^\[/ { section = substr($1, 2, length($1) - 2); next }
        { sub(/#.*/, "") }
        NF && section == want { print $1 }' "$1"
}

install_is_here() { # PACKAGE
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# How to become root, in install_as; fails where there is no way.
install_find_root() {
    install_as=()
    [ "$(id -u)" = 0 ] && return
    command -v sudo >/dev/null || return
    if sudo -n true 2>/dev/null; then
        install_as=(sudo -n)
    elif [ -t 0 ]; then
        install_as=(sudo)
    else
        return 1
    fi
}

install_stop() { # SENTENCE PACKAGE...
    local sentence=$1
    shift
    printf '%s\n' "${0##*/}: $sentence Install these, then run it again: $*" >&2
    exit 3
}

# Installs what is missing; returns at once, and says nothing, if nothing is.
install_missing() { # PACKAGE...
    local name missing=()
    command -v dpkg-query >/dev/null || install_stop "this is no Debian system." "$@"
    for name in "$@"; do
        install_is_here "$name" || missing+=("$name")
    done
    ((${#missing[@]})) || return 0

    install_find_root || install_stop "packages are missing, and this user is neither root nor may use sudo." "${missing[@]}"
    printf 'installing: %s\n' "${missing[*]}"
    "${install_as[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q update >/dev/null ||
        install_stop "apt-get update failed." "${missing[@]}"
    "${install_as[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -q -y --no-install-recommends install "${missing[@]}" >/dev/null ||
        install_stop "apt-get install failed." "${missing[@]}"
}
