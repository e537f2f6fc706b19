"""A repository whose files `bazelw` has put into the cache folder outside the checkout."""

def _cache_repository_impl(repository_ctx):
    cache = repository_ctx.os.environ.get("TRIMTAB_CACHE")
    if not cache:
        fail("TRIMTAB_CACHE is not set: run ./bazelw in place of bazel")
    root = repository_ctx.path(cache).get_child(repository_ctx.attr.subdirectory)
    if not root.exists:
        fail("%s is missing: run ./bazelw in place of bazel, it sets the machine up" % root)
    for child in root.readdir():
        repository_ctx.symlink(child, child.basename)
    repository_ctx.symlink(repository_ctx.attr.build_file, "BUILD.bazel")

cache_repository = repository_rule(
    implementation = _cache_repository_impl,
    attrs = {
        "build_file": attr.label(mandatory = True, allow_single_file = True),
        "subdirectory": attr.string(mandatory = True),
    },
    environ = ["TRIMTAB_CACHE"],
    local = True,
)
