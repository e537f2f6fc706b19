#!/usr/bin/env bash
# Run by Bazel at each build. Keys without the prefix STABLE_ may change without anything being built again; only
# //server:build_info reads this one.
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 0
echo "BUILD_SCM_REVISION $(git describe --always --dirty --abbrev=12 2>/dev/null || echo unknown)"
