"""Compiler flags of Trimtab's own sources."""

TRIMTAB_COPTS = [
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-missing-field-initializers",
    # The attribute of c10's and absl's headers that g++ 12 does not know.
    "-Wno-attributes",
]

# Numeric inner loops. at::parallel_for runs on one thread in sources that are compiled without OpenMP.
TRIMTAB_KERNEL_COPTS = [
    "-O3",
    "-fopenmp",
    "-fno-math-errno",
]
