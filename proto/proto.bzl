"""Generated C++ and Python from .proto files, with Debian's protoc (Bazel here has no rules_proto)."""

_PROTOC = "/usr/bin/protoc --proto_path=proto"

def _stem(src):
    return src[:-len(".proto")]

def cc_proto(name, srcs, deps = [], protos = [], grpc = False, visibility = None):
    """A cc_library of the messages (or, with grpc, of the services) of `srcs`.

    Args:
      name: the library.
      srcs: .proto files below this package.
      deps: libraries of the imported files.
      protos: imported .proto files, for protoc.
      grpc: generate services in place of messages.
      visibility: as everywhere.
    """
    suffix = ".grpc.pb" if grpc else ".pb"
    headers = [_stem(src) + suffix + ".h" for src in srcs]
    sources = [_stem(src) + suffix + ".cc" for src in srcs]
    plugin = "--plugin=protoc-gen-grpc=/usr/bin/grpc_cpp_plugin --grpc_out" if grpc else "--cpp_out"
    native.genrule(
        name = name + "_gen",
        srcs = srcs + protos,
        outs = headers + sources,
        cmd = "%s %s=$(RULEDIR) %s" % (_PROTOC, plugin, " ".join(srcs)),
        visibility = ["//visibility:private"],
    )
    native.cc_library(
        name = name,
        srcs = sources,
        hdrs = headers,
        copts = ["-w"],
        includes = ["."],
        visibility = visibility,
        deps = deps + ["//third_party:protobuf"] + (["//third_party:grpc"] if grpc else []),
    )

def py_proto(name, srcs, services, visibility = None):
    """Python modules of `srcs` and client stubs of `services`, as a filegroup below the folder python/.

    Args:
      name: the filegroup.
      srcs: .proto files below this package.
      services: those of `srcs` that declare services.
      visibility: as everywhere.
    """
    native.genrule(
        name = name,
        srcs = srcs,
        outs = ["python/" + _stem(src) + "_pb2.py" for src in srcs] +
               ["python/" + _stem(src) + "_pb2_grpc.py" for src in services],
        cmd = "%s --python_out=$(RULEDIR)/python %s && " % (_PROTOC, " ".join(srcs)) +
              "%s --plugin=protoc-gen-grpc=/usr/bin/grpc_python_plugin --grpc_out=$(RULEDIR)/python %s" % (
                  _PROTOC,
                  " ".join(services),
              ),
        visibility = visibility,
    )
