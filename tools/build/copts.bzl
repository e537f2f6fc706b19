"""Compiler flags of Trimtab's own sources."""

TRIMTAB_COPTS = [
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-missing-field-initializers",
    # The attribute of c10's and absl's headers that g++ 12 does not know.
    "-Wno-attributes",
]
