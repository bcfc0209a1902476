#!/bin/sh
# SPDX-License-Identifier: MIT
# with_kvm.sh [LAUNCHER...] PROGRAM [OPTION]... - runs a test's program where there is a /dev/kvm. Else it is
# skipped and says so; with GODWIT_TEST_KVM set that is a failure.
case "$*" in
*--gtest_list_tests*) exec "$@" ;;
esac
if [ -r /dev/kvm ] && [ -w /dev/kvm ]; then
    exec "$@"
fi
echo "skipped: this host has no /dev/kvm that this user may open"
[ -z "${GODWIT_TEST_KVM-}" ] || exit 1
exit 77
