// models: list, load, unload.
#include <iostream>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "server/base/resource_name.h"
#include "server/base/status_macros.h"
#include "server/rpc/grpc_status.h"
#include "tools/trimctl/command.h"
#include "tools/trimctl/error_text.h"
#include "tools/trimctl/flags.h"
#include "tools/trimctl/render.h"
#include "tools/trimctl/watch.h"

namespace trimtab {
namespace {

using google::longrunning::Operation;
using Stub = v1::ModelService::Stub;

absl::StatusOr<ExitCode> List(Cli& cli) {
  v1::ListModelsResponse all;
  TRIMTAB_RETURN_IF_ERROR((cli.client.ForEachPage<Stub, v1::ListModelsRequest, v1::ListModelsResponse>(
      cli.client.models(), &Stub::ListModels, {}, [&](v1::ListModelsResponse& page) { all.MergeFrom(page); })));
  cli.Print(all, RenderModels({all.models().begin(), all.models().end()}, cli.color));
  return ExitCode::kOk;
}

// Follows the operation under --watch; `doing` is "loads x", `done` what to print at its good end.
template <typename Done>
absl::StatusOr<ExitCode> Follow(Cli& cli, const Operation& started, const std::string& doing, const Done& done) {
  if (!absl::GetFlag(FLAGS_watch)) {
    cli.Print(started, absl::StrCat(started.name(), " ", doing, ". Watch it with\n  trimctl operations wait ",
                                    started.name(), "\n"));
    return ExitCode::kOk;
  }
  absl::StatusOr<Operation> ended = started;
  {
    ProgressBar bar(std::cerr, cli.progress_color);
    if (!started.done()) ended = Watch(cli.client, started.name(), bar);
  }
  if (!ended.ok() && cli.client.interrupt().requested()) {
    std::cerr << "\nThe server goes on without you. Watch it with\n  trimctl operations wait " << started.name()
              << "\nor stop it with\n  trimctl operations cancel " << started.name() << "\n";
  }
  if (!ended.ok()) return ended.status();
  if (ended->has_error()) {
    cli.Print(*ended,
              absl::StrCat("It did not succeed. ", FormatError(FromRpcStatus(ended->error()), cli.client.address())));
    return ExitCode::kJobFailed;
  }
  return done(*ended);
}

absl::StatusOr<ExitCode> Load(Cli& cli, const std::string& id, const std::string& path) {
  v1::LoadModelRequest request;
  request.set_model_id(id);
  request.set_path(path);
  request.set_request_id(absl::GetFlag(FLAGS_request_id));
  request.set_validate_only(absl::GetFlag(FLAGS_validate_only));
  request.set_precision(absl::GetFlag(FLAGS_precision));
  if (const auto mib = absl::GetFlag(FLAGS_kv_cache_mib)) request.set_kv_cache_mib(*mib);
  TRIMTAB_ASSIGN_OR_RETURN(const Operation operation, cli.client.Call(cli.client.models(), &Stub::LoadModel, request));
  if (request.validate_only()) {
    v1::Model model;
    if (!operation.response().UnpackTo(&model)) return absl::InternalError("the operation's result is no model");
    cli.Print(operation,
              absl::StrFormat("It can be loaded: %.1f MiB of weights, %.1f MiB of key-value cache. Nothing was done.\n",
                              static_cast<double>(model.weight_bytes()) / (1 << 20),
                              static_cast<double>(model.kv_cache_bytes()) / (1 << 20)));
    return ExitCode::kOk;
  }
  return Follow(cli, operation, "loads " + id, [&](const Operation& done) -> absl::StatusOr<ExitCode> {
    v1::Model model;
    if (!done.response().UnpackTo(&model)) return absl::InternalError("the operation's result is no model");
    cli.Print(model, RenderModels({model}, cli.color));
    return ExitCode::kOk;
  });
}

absl::StatusOr<ExitCode> Unload(Cli& cli, const std::string& model) {
  v1::UnloadModelRequest request;
  request.set_name(ParseModelName(model) ? model : ModelName(model));
  request.set_request_id(absl::GetFlag(FLAGS_request_id));
  request.set_validate_only(absl::GetFlag(FLAGS_validate_only));
  if (const auto timeout = absl::GetFlag(FLAGS_drain_timeout)) {
    const int64_t nanos = absl::ToInt64Nanoseconds(*timeout);
    request.mutable_drain_timeout()->set_seconds(nanos / 1'000'000'000);
    request.mutable_drain_timeout()->set_nanos(static_cast<int32_t>(nanos % 1'000'000'000));
  }
  TRIMTAB_ASSIGN_OR_RETURN(const Operation operation,
                           cli.client.Call(cli.client.models(), &Stub::UnloadModel, request));
  if (request.validate_only()) {
    cli.Print(operation, "It can be unloaded. Nothing was done.\n");
    return ExitCode::kOk;
  }
  return Follow(cli, operation, "unloads " + request.name(), [&](const Operation& done) -> absl::StatusOr<ExitCode> {
    cli.Print(done, absl::StrCat(request.name(), " is unloaded; its objectives are kept\n"));
    return ExitCode::kOk;
  });
}

absl::StatusOr<ExitCode> Models(Cli& cli, const std::vector<std::string>& arguments) {
  const std::string verb = arguments.empty() ? "list" : arguments[0];
  if (verb == "list" && arguments.size() <= 1) return List(cli);
  if (verb == "load" && arguments.size() == 3) return Load(cli, arguments[1], arguments[2]);
  if (verb == "unload" && arguments.size() == 2) return Unload(cli, arguments[1]);
  return UsageError("models takes \"list\", \"load ID PATH\" or \"unload ID\"");
}

}  // namespace

std::vector<Command> ModelCommands() {
  return {{.name = "models",
           .arguments = "[list | load ID PATH | unload ID]",
           .summary = "what the server serves; load further models, unload them",
           .details = "PATH is a GGUF file or a Hugging Face folder on the server's machine, below its --model_root.\n"
                      "The server remembers what it has loaded and loads it again after a restart. Unloading lets\n"
                      "running calls end until --drain_timeout; objectives are kept and come back with the model.",
           .flags = {"watch", "validate_only", "request_id", "kv_cache_mib", "precision", "drain_timeout"},
           .min_arguments = 0,
           .max_arguments = 3,
           .run = Models}};
}

}  // namespace trimtab
