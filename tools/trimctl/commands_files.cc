// export and import: revisions as files.
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>

#include "absl/flags/flag.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "tools/trimctl/command.h"
#include "tools/trimctl/flags.h"
#include "tools/trimctl/render.h"
#include "tools/trimctl/text.h"

namespace trimtab {
namespace {

using Stub = v1::ObjectiveService::Stub;

constexpr size_t kMaxBytes = size_t{8} << 20;  // of a request, the server's limit

absl::StatusOr<v1::ExportFormat> FormatFromFlag() {
  const std::string format = absl::GetFlag(FLAGS_format);
  if (format == "safetensors") return v1::EXPORT_FORMAT_SAFETENSORS;
  if (format == "gguf") return v1::EXPORT_FORMAT_GGUF;
  return UsageError("--format must be \"safetensors\" or \"gguf\"");
}

// The server names the files; a name that leaves the folder is not used.
absl::Status WriteFile(const std::filesystem::path& folder, const v1::RevisionFile& file) {
  const std::filesystem::path name(file.name());
  if (file.name().empty() || name != name.filename() || file.name() == ".." || file.name() == ".") {
    return absl::InternalError("the server sent a file without a plain name");
  }
  const std::filesystem::path path = folder / name;
  if (std::error_code error; std::filesystem::exists(path, error) && !absl::GetFlag(FLAGS_force)) {
    return UsageError(absl::StrCat(path.string(), " exists; --force replaces it"));
  }
  std::ofstream stream(path, std::ios::binary);
  stream << file.data() << std::flush;
  if (!stream) return UsageError(absl::StrCat(path.string(), " cannot be written"));
  std::cerr << "wrote " << path.string() << "\n";
  return absl::OkStatus();
}

absl::StatusOr<ExitCode> Export(Cli& cli, const std::vector<std::string>& arguments) {
  if (absl::GetFlag(FLAGS_out).empty()) return UsageError("--out, the folder to write to, is missing");
  v1::ExportRevisionRequest request;
  TRIMTAB_ASSIGN_OR_RETURN(const v1::ExportFormat format, FormatFromFlag());
  request.set_format(format);
  if (const auto scale = absl::GetFlag(FLAGS_gguf_scale)) request.set_gguf_scale(*scale);
  TRIMTAB_ASSIGN_OR_RETURN(*request.mutable_name(), cli.client.ObjectiveName(absl::GetFlag(FLAGS_model), arguments[0]));
  TRIMTAB_ASSIGN_OR_RETURN(v1::ExportRevisionResponse exported,
                           cli.client.Call(cli.client.objectives(), &Stub::ExportRevision, request));
  const std::filesystem::path folder(absl::GetFlag(FLAGS_out));
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return UsageError(absl::StrCat("--out: ", folder.string(), " cannot be made: ", error.message()));
  std::string text = absl::StrCat(exported.revision(), " is in\n");
  for (v1::RevisionFile& file : *exported.mutable_files()) {
    TRIMTAB_RETURN_IF_ERROR(WriteFile(folder, file));
    absl::StrAppend(&text, "  ", (folder / file.name()).string(), "\n");
    file.clear_data();  // it is in the file
  }
  cli.Print(exported, text);
  return ExitCode::kOk;
}

absl::Status AddFile(const std::string& path, v1::ImportRevisionRequest& request) {
  std::ifstream stream(path, std::ios::binary);
  std::error_code error;
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (!stream || error) return UsageError(absl::StrCat(path, " cannot be read"));
  if (size > kMaxBytes) return UsageError(absl::StrCat(path, " is larger than 8 MiB"));
  v1::RevisionFile& file = *request.add_files();
  file.set_name(std::filesystem::path(path).filename().string());
  file.mutable_data()->assign(std::istreambuf_iterator<char>(stream), {});
  if (stream.bad()) return UsageError(absl::StrCat(path, " cannot be read"));
  return absl::OkStatus();
}

// --site and its companions say how the tensors of a GGUF file are applied.
absl::Status SetUse(v1::ImportRevisionRequest& request) {
  bool gguf = false;
  for (const v1::RevisionFile& file : request.files()) gguf |= absl::EndsWith(file.name(), ".gguf");
  const std::string site = absl::GetFlag(FLAGS_site);
  if (!gguf) {
    if (!site.empty() || absl::GetFlag(FLAGS_preserve_norm) || absl::GetFlag(FLAGS_relative) ||
        absl::GetFlag(FLAGS_layer_offset) != 0) {
      return UsageError("--site, --preserve_norm, --relative and --layer_offset are for a GGUF file only");
    }
    return absl::OkStatus();
  }
  v1::GgufApplication& use = *request.mutable_gguf();
  if (site == "block_output") {
    use.set_site(v1::SITE_BLOCK_OUTPUT);
  } else if (site == "attention_output") {
    use.set_site(v1::SITE_ATTENTION_OUTPUT);
  } else if (site == "mlp_output") {
    use.set_site(v1::SITE_MLP_OUTPUT);
  } else {
    return UsageError(
        "--site must be \"block_output\" (as llama.cpp and repeng add), \"attention_output\" or \"mlp_output\": a GGUF "
        "file does not say");
  }
  use.set_preserve_norm(absl::GetFlag(FLAGS_preserve_norm));
  use.set_relative(absl::GetFlag(FLAGS_relative));
  use.set_layer_offset(absl::GetFlag(FLAGS_layer_offset));
  return absl::OkStatus();
}

absl::StatusOr<ExitCode> Import(Cli& cli, const std::vector<std::string>& arguments) {
  if (absl::GetFlag(FLAGS_id).empty()) return UsageError("--id, the objective's name, is missing");
  v1::ImportRevisionRequest request;
  for (const std::string& path : arguments) TRIMTAB_RETURN_IF_ERROR(AddFile(path, request));
  TRIMTAB_RETURN_IF_ERROR(SetUse(request));
  request.set_objective_id(absl::GetFlag(FLAGS_id));
  if (const auto strength = absl::GetFlag(FLAGS_default_strength)) request.set_default_strength(*strength);
  if (const auto strength = absl::GetFlag(FLAGS_max_strength)) request.set_max_strength(*strength);
  request.set_allow_other_fingerprint(absl::GetFlag(FLAGS_allow_other_fingerprint));
  request.set_request_id(absl::GetFlag(FLAGS_request_id));
  request.set_etag(absl::GetFlag(FLAGS_etag));
  TRIMTAB_ASSIGN_OR_RETURN(*request.mutable_parent(), cli.client.ModelName(absl::GetFlag(FLAGS_model)));
  TRIMTAB_ASSIGN_OR_RETURN(const v1::Objective objective,
                           cli.client.Call(cli.client.objectives(), &Stub::ImportRevision, request));
  cli.Print(objective, absl::StrCat(objective.name(), " has revision ", objective.active().revision(), ", from ",
                                    Printable(objective.active().imported_from()), "\n",
                                    RenderObjective(objective, {}, cli.color)));
  return ExitCode::kOk;
}

}  // namespace

std::vector<Command> FileCommands() {
  return {
      {.name = "export",
       .arguments = "NAME[@REVISION]",
       .summary = "write a revision to files",
       .details =
           "safetensors: vectors.safetensors and revision.json, which `trimctl import` reads back exactly.\n"
           "gguf: control_vector.gguf for llama.cpp (--control-vector) and repeng, which add it to the output of each\n"
           "block. Its edits are constants: a vector whose strength is relative to the activation's norm, as those of\n"
           "grains are, needs --gguf_scale, its strength times a typical norm.",
       .flags = {"out", "format", "gguf_scale", "force"},
       .min_arguments = 1,
       .max_arguments = 1,
       .run = Export},
      {.name = "import",
       .arguments = "FILE...",
       .summary = "a revision from files: of a new objective or the next one of an objective",
       .details =
           "FILE... is a .safetensors file and its .json file, in any order, or one .gguf control vector. A GGUF file\n"
           "does not say how it is applied; as llama.cpp and repeng do it:\n"
           "  trimctl import vector.gguf --id calm --site block_output --allow_other_fingerprint\n"
           "Strength 1 then adds the file's tensors as they are.",
       .flags = {"id", "site", "preserve_norm", "relative", "layer_offset", "default_strength", "max_strength",
                 "allow_other_fingerprint", "request_id", "etag"},
       .min_arguments = 1,
       .max_arguments = 2,
       .run = Import}};
}

}  // namespace trimtab
