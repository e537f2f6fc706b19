"""A model that `bazelw` has put into the cache folder, or has not: `//:gguf` is its file or nothing."""

_BUILD = """filegroup(
    name = "gguf",
    srcs = glob(["*.gguf"]),
    visibility = ["//visibility:public"],
)
"""

def _optional_model_impl(repository_ctx):
    cache = repository_ctx.os.environ.get("TRIMTAB_CACHE")
    if not cache:
        fail("TRIMTAB_CACHE is not set: run ./bazelw in place of bazel")
    root = repository_ctx.path(cache).get_child(repository_ctx.attr.subdirectory)
    if root.exists:
        for child in root.readdir():
            repository_ctx.symlink(child, child.basename)
    repository_ctx.file("BUILD.bazel", _BUILD)

# TRIMTAB_OPTIONAL_MODELS is not read: it changes with what is there, so that Bazel looks again.
optional_model = repository_rule(
    implementation = _optional_model_impl,
    attrs = {"subdirectory": attr.string(mandatory = True)},
    environ = [
        "TRIMTAB_CACHE",
        "TRIMTAB_OPTIONAL_MODELS",
    ],
    local = True,
)
