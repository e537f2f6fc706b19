"""What plugins are built from: headers without the code behind them, and a header that tells headers apart."""

def _headers_only_impl(ctx):
    merged = cc_common.merge_cc_infos(cc_infos = [dep[CcInfo] for dep in ctx.attr.deps])
    return [CcInfo(compilation_context = merged.compilation_context)]

# The headers of `deps` and all that they include; links nothing, since the program that loads the object brings it.
headers_only = rule(
    implementation = _headers_only_impl,
    attrs = {"deps": attr.label_list(providers = [CcInfo])},
)

def _interface_id_impl(ctx):
    merged = cc_common.merge_cc_infos(cc_infos = [dep[CcInfo] for dep in ctx.attr.deps])
    by_path = {}
    for header in merged.compilation_context.headers.to_list():
        if not header.path.startswith("external/") and header.extension in ["h", "inc"]:
            by_path[header.short_path] = header
    headers = [by_path[path] for path in sorted(by_path)] + ctx.files.srcs
    out = ctx.outputs.out
    arguments = ctx.actions.args()
    arguments.add(out)
    arguments.add_all(headers)
    ctx.actions.run_shell(
        inputs = headers,
        outputs = [out],
        arguments = [arguments],
        command = """out=$1; shift
cat "$@" | sha256sum | sed 's/^\\(.\\{16\\}\\).*/#define TRIMTAB_PLUGIN_INTERFACE "\\1"/' > "$out"
""",
    )
    return [DefaultInfo(files = depset([out]))]

# Writes `out`, which defines TRIMTAB_PLUGIN_INTERFACE: a hash of this tree's headers among those of `deps`, and of
# `srcs`.
interface_id = rule(
    implementation = _interface_id_impl,
    attrs = {
        "deps": attr.label_list(providers = [CcInfo]),
        "srcs": attr.label_list(allow_files = True),
        "out": attr.output(mandatory = True),
    },
)
