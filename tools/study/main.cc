// The study tool: which way of making a steering vector works, on held-out pairs and at equal cost. --help says how.
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <system_error>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "models/kernels/thread_team.h"
#include "models/loaded_model.h"
#include "server/base/status_macros.h"
#include "steering/method_registry.h"
#include "tools/plot/render.h"
#include "tools/study/disk_job.h"
#include "tools/study/report.h"
#include "tools/study/study.h"

ABSL_FLAG(std::string, model, "smollm2",
          "smollm2, gemma3-270m (fetched by ./bazelw setup gemma3-270m), or the path of a GGUF file or model folder");
ABSL_FLAG(
    std::string, pairs, "",
    "files of preference pairs, by commas, each a data set; files joined with + are one. Relative paths are taken "
    "from the folder of the command");
ABSL_FLAG(std::string, out, "",
          "folder for the table, the pictures and what a later run goes on from; made if need be");
ABSL_FLAG(std::string, arms, "", "a JSON file of what to compare, like tools/study/arms.json, which is the default");
ABSL_FLAG(std::string, groups, "methods",
          "groups of arms to run, by commas: methods, attribution, direction, objective, layers, tokens, masking; all "
          "for all of them");
ABSL_FLAG(std::string, neutral_text, "", "a text that has nothing to do with the pairs; by default the shipped one");
ABSL_FLAG(std::string, budgets, "0.1,0.4",
          "KL divergences on neutral text, nats per token, at which arms are compared");
ABSL_FLAG(int64_t, train, 50, "pairs to fit on");
ABSL_FLAG(int64_t, validation, 20, "pairs to choose layers on");
ABSL_FLAG(int64_t, test, 60, "pairs to measure on");
ABSL_FLAG(int, random_directions, 5, "random directions of the control");
ABSL_FLAG(int64_t, neutral_tokens, 768, "tokens of neutral text that set strengths, and as many that measure");
ABSL_FLAG(int64_t, masking_pairs, 20, "test pairs of figure 3");
ABSL_FLAG(uint64_t, seed, 1, "seed of splits, random directions and resampling");

namespace trimtab {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kChunkTokens = 128;
constexpr int kExitUsage = 2, kExitInterrupted = 130;

std::atomic<bool> g_interrupted{false};
void OnSignal(int) { g_interrupted = true; }

// Paths of the command line; bazel runs the program in another folder.
std::string Absolute(const std::string& path) {
  const char* folder = std::getenv("BUILD_WORKING_DIRECTORY");
  if (path.empty() || path.front() == '/' || folder == nullptr) return path;
  return absl::StrCat(folder, "/", path);
}

absl::StatusOr<std::string> ReadText(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file || fs::is_directory(path)) return absl::NotFoundError(absl::StrCat(path, ": cannot be opened"));
  return std::string(std::istreambuf_iterator<char>(file), {});
}

std::string ModelPath(const std::string& model) {
  if (model == "smollm2") return "../trimtab_models/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (model == "gemma3-270m") return "../gemma3_270m/gemma-3-270m-q4_k_m.gguf";
  return Absolute(model);
}

absl::StatusOr<ArmList> Arms() {
  const std::string path = absl::GetFlag(FLAGS_arms);
  TRIMTAB_ASSIGN_OR_RETURN(const std::string text, ReadText(path.empty() ? "tools/study/arms.json" : Absolute(path)));
  TRIMTAB_ASSIGN_OR_RETURN(ArmList list, ParseArms(text));
  const std::string groups = absl::GetFlag(FLAGS_groups);
  if (groups == "all") return list;
  return SelectGroups(list, absl::StrSplit(groups, ','));
}

absl::StatusOr<StudyOptions> Options() {
  StudyOptions options{.budgets = {},
                       .random_directions = absl::GetFlag(FLAGS_random_directions),
                       .seed = absl::GetFlag(FLAGS_seed),
                       .split = {.training = absl::GetFlag(FLAGS_train),
                                 .validation = absl::GetFlag(FLAGS_validation),
                                 .test = absl::GetFlag(FLAGS_test)},
                       .masking_pairs = absl::GetFlag(FLAGS_masking_pairs)};
  for (const auto& part : absl::StrSplit(absl::GetFlag(FLAGS_budgets), ',')) {
    double budget = 0;
    if (!absl::SimpleAtod(part, &budget) || !(budget > 0 && budget <= 10) ||
        (!options.budgets.empty() && budget <= options.budgets.back())) {
      return absl::InvalidArgumentError("--budgets must be ascending numbers above 0 and at most 10, by commas");
    }
    options.budgets.push_back(budget);
  }
  const SplitSizes& split = options.split;
  if (split.training < 4 || split.validation < 2 || split.test < 2 || split.validation > split.training) {
    return absl::InvalidArgumentError(
        "--train must be at least 4, --validation 2 and not above --train, --test at least 2");
  }
  if (options.random_directions < 0 || options.random_directions > 100) {
    return absl::InvalidArgumentError("--random_directions must be 0 to 100");
  }
  return options;
}

// All that is known so far. Written after every data set.
absl::Status WriteResult(const StudyResult& result, const ArmList& list, const std::string& folder) {
  TRIMTAB_RETURN_IF_ERROR(WriteFileAtomically(folder + "/results.json", nlohmann::json(result).dump(1) + "\n"));
  TRIMTAB_RETURN_IF_ERROR(WriteFileAtomically(folder + "/table.md", StudyTable(result)));
  for (const auto& [name, picture] : StudyPictures(result, list)) {
    TRIMTAB_RETURN_IF_ERROR(WritePng(picture, folder + "/" + name));
  }
  return absl::OkStatus();
}

absl::Status Run() {
  TRIMTAB_ASSIGN_OR_RETURN(const StudyOptions options, Options());
  if (absl::GetFlag(FLAGS_pairs).empty()) return absl::InvalidArgumentError("--pairs, the data sets, is missing");
  if (absl::GetFlag(FLAGS_out).empty()) return absl::InvalidArgumentError("--out, the folder to write, is missing");
  TRIMTAB_ASSIGN_OR_RETURN(const ArmList list, Arms());
  MethodRegistry methods;
  TRIMTAB_RETURN_IF_ERROR(RegisterBuiltinMethods(methods));
  TRIMTAB_RETURN_IF_ERROR(CheckArms(list, methods));
  std::vector<DataSet> data_sets;
  for (const auto& spec : absl::StrSplit(absl::GetFlag(FLAGS_pairs), ',')) {
    std::vector<std::string> paths;
    for (const auto& path : absl::StrSplit(spec, '+')) paths.push_back(Absolute(std::string(path)));
    TRIMTAB_ASSIGN_OR_RETURN(DataSet data, ReadDataSet(absl::StrJoin(paths, "+"), options.split, options.seed));
    data_sets.push_back(std::move(data));
  }
  const std::string neutral_flag = absl::GetFlag(FLAGS_neutral_text);
  TRIMTAB_ASSIGN_OR_RETURN(
      const std::string neutral,
      ReadText(neutral_flag.empty() ? "deploy/examples/drift/neutral.txt" : Absolute(neutral_flag)));
  const std::string folder = Absolute(absl::GetFlag(FLAGS_out));
  std::error_code error;
  fs::create_directories(folder + "/partial", error);
  if (error) return absl::PermissionDeniedError(absl::StrCat(folder, ": cannot be made: ", error.message()));

  ThreadTeam team(ParallelThreads());
  const ScopedTeam scope(&team);
  TRIMTAB_ASSIGN_OR_RETURN(const std::shared_ptr<const LoadedModel> model,
                           LoadModel("study", ModelPath(absl::GetFlag(FLAGS_model)), {}));
  TRIMTAB_ASSIGN_OR_RETURN(const NeutralTexts texts, SplitNeutralText(*model->tokenizer, neutral, kChunkTokens,
                                                                      absl::GetFlag(FLAGS_neutral_tokens)));
  DiskJob job(folder + "/partial", g_interrupted);
  StudyResult result{.model = fs::path(ModelPath(absl::GetFlag(FLAGS_model))).stem().string(),
                     .fingerprint = model->fingerprint,
                     .seed = options.seed,
                     .budgets = options.budgets,
                     .random_directions = options.random_directions};
  for (const DataSet& data : data_sets) {
    TRIMTAB_ASSIGN_OR_RETURN(DataSetResult measured,
                             RunStudy(options, list, data, model, texts, methods, job,
                                      [](std::string_view line) { std::cout << line << std::endl; }));
    result.data_sets.push_back(std::move(measured));
    TRIMTAB_RETURN_IF_ERROR(WriteResult(result, list, folder));
  }
  std::cout << folder << "/table.md\n";
  return absl::OkStatus();
}

}  // namespace
}  // namespace trimtab

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage(
      "compares ways of making steering vectors on test pairs, all at the same cost on neutral text.\n"
      "Writes OUT/table.md, OUT/results.json and pictures. The same command goes on where an interrupted one ended.\n\n"
      "  ./bazelw run //tools/study -- --pairs truthfulqa.jsonl,paradetox.jsonl --out study");
  absl::ParseCommandLine(argc, argv);
  std::signal(SIGINT, trimtab::OnSignal);
  std::signal(SIGTERM, trimtab::OnSignal);
  const absl::Status status = trimtab::Run();
  if (status.ok()) return 0;
  std::cerr << "study: " << status.message() << "\n";
  if (trimtab::g_interrupted) return trimtab::kExitInterrupted;
  return absl::IsInvalidArgument(status) ? trimtab::kExitUsage : 1;
}
