// The quickstart: starts a real server with a small model, steers it, and shows what came of it. Everything printed is
// what the server said.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/flags/usage_config.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/base/status_macros.h"
#include "server/rpc/grpc_status.h"
#include "tools/quickstart/http_get.h"
#include "tools/quickstart/server_process.h"
#include "tools/trimctl/audit.h"
#include "tools/trimctl/client.h"
#include "tools/trimctl/error_text.h"
#include "tools/trimctl/pairs_file.h"
#include "tools/trimctl/progress_bar.h"
#include "tools/trimctl/render.h"
#include "tools/trimctl/text.h"
#include "tools/trimctl/watch.h"
#include "trimtab/methods/v1/grains.pb.h"

ABSL_FLAG(std::string, model, "smollm2", "smollm2, or gemma3-270m, a base model that bazelw fetches (240 MB)");
ABSL_FLAG(std::string, objective, "",
          "which of the shipped behaviours to steer by: cheerful (the default) or formal; for gemma3-270m hopeful");
ABSL_FLAG(bool, keep, false, "leave the server running until Ctrl-C");
ABSL_FLAG(
    bool, quick, false,
    "a look in well under a minute: with a few pairs and questions, so the vector is weaker and the numbers coarser");

namespace trimtab {
namespace {

namespace fs = std::filesystem;
using google::longrunning::Operation;

constexpr absl::Duration kPatience = absl::Minutes(5);
constexpr int kOutputTokens = 40;
constexpr size_t kColumn = 56;

// A model and the shipped behaviours for it, the default first. A base model only continues text: its pairs, and what
// it is asked, are raw prompts.
struct ModelChoice {
  std::string_view id;
  const char* file;  // among the runfiles
  std::vector<std::string_view> objectives;
  bool chat;
};
const std::vector<ModelChoice>& ModelChoices() {
  static const auto* const choices = new std::vector<ModelChoice>{
      {"smollm2", "../trimtab_models/SmolLM2-135M-Instruct.Q4_1.gguf", {"cheerful", "formal"}, true},
      {"gemma3-270m", "../gemma3_270m/gemma-3-270m-q4_k_m.gguf", {"hopeful"}, false},
  };
  return *choices;
}

// How much is done.
struct Extent {
  size_t pairs = 1000, held_out_pairs = 1000;  // at most
  size_t questions = 1000;                     // of the drift report, at most
  size_t prompts = 2;
  int random_directions = 20;
};
constexpr Extent kQuick = {.pairs = 16, .held_out_pairs = 12, .questions = 24, .prompts = 1, .random_directions = 5};

// Seconds of each part, for the account at the end.
class Stopwatch {
 public:
  void Add(const std::string& part, absl::Duration time) { parts_.push_back({part, time}); }
  // The time since the last call (or the beginning) belongs to `part`.
  void Lap(const std::string& part) {
    const absl::Time now = absl::Now();
    Add(part, now - std::exchange(lap_, now));
  }
  // The time since the last call was accounted for with Add.
  void Skip() { lap_ = absl::Now(); }
  std::string Account() const {
    std::string text = FormatDuration(absl::ToDoubleSeconds(absl::Now() - start_)) + " in all:";
    for (const auto& [part, time] : parts_) {
      absl::StrAppend(&text, &part == &parts_.front().first ? " " : ", ", part, " ",
                      FormatDuration(absl::ToDoubleSeconds(time)));
    }
    return text + ".";
  }

 private:
  const absl::Time start_ = absl::Now();
  absl::Time lap_ = start_;
  std::vector<std::pair<std::string, absl::Duration>> parts_;
};

void Heading(std::string_view text, bool color) {
  std::cout << "\n" << Styled(text, "1;36", color) << "\n" << std::flush;
}

std::vector<std::string> ReadLines(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) {
    if (!line.empty()) lines.push_back(line);
  }
  return lines;
}

// The first lines of a question file spread over its subjects, as a file of its own.
bool CopyEvery(const std::string& from, const std::string& to, size_t count) {
  const std::vector<std::string> lines = ReadLines(from);
  const size_t step = std::max<size_t>(1, lines.size() / count);
  std::ofstream file(to);
  for (size_t i = 0; i < lines.size(); i += step) file << lines[i] << "\n";
  return file.good();
}

// A folder of our own that is gone when the program ends.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (fs::temp_directory_path() / "trimtab-quickstart-XXXXXX").string();
    if (mkdtemp(pattern.data()) != nullptr) path_ = pattern;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

class Quickstart {
 public:
  Quickstart(Client& client, std::string objective, bool chat, const Extent& extent, bool color)
      : client_(client), objective_(std::move(objective)), chat_(chat), extent_(extent), color_(color) {}

  absl::Status Register(Stopwatch& stopwatch);
  absl::Status ShowAnswers();
  absl::Status ShowEffect();
  absl::Status ShowAudit();
  absl::Status ShowDrift();
  float recommended_strength() const { return fitted_.active().recommended_strength(); }

 private:
  absl::StatusOr<std::string> Answer(const std::string& prompt, float strength);

  Client& client_;
  const std::string objective_;
  const bool chat_;
  const Extent extent_;
  const bool color_;
  v1::Objective fitted_;
};

absl::Status Quickstart::Register(Stopwatch& stopwatch) {
  const std::string base = "deploy/examples/pairs/" + objective_;
  v1::RegisterObjectiveRequest request;
  TRIMTAB_ASSIGN_OR_RETURN(*request.mutable_parent(), client_.ModelName(""));
  request.set_objective_id(objective_);
  request.set_evaluate_drift(true);
  request.mutable_objective()->set_method("grains");
  methods::v1::GrainsConfig config;
  config.mutable_fit()->set_random_directions(extent_.random_directions);
  request.mutable_objective()->mutable_method_config()->PackFrom(config);
  TRIMTAB_ASSIGN_OR_RETURN(auto pairs, ReadPairsFile(base + ".train.jsonl"));
  TRIMTAB_ASSIGN_OR_RETURN(auto held_out, ReadPairsFile(base + ".held_out.jsonl"));
  pairs.resize(std::min(pairs.size(), extent_.pairs));
  held_out.resize(std::min(held_out.size(), extent_.held_out_pairs));
  request.mutable_objective()->mutable_pairs()->Assign(pairs.begin(), pairs.end());
  request.mutable_objective()->mutable_held_out_pairs()->Assign(held_out.begin(), held_out.end());
  std::cout << "\"" << objective_ << "\": " << pairs.size() << " pairs to learn from, " << held_out.size()
            << " kept apart to measure the effect.\n"
            << (chat_ ? "" : "This is a base model: each pair is the beginning of a text and two ways to go on.\n")
            << "The server serves while a background worker builds the vector.\n"
            << std::flush;
  TRIMTAB_ASSIGN_OR_RETURN(const Operation started,
                           client_.Call(client_.objectives(), &v1::ObjectiveService::Stub::RegisterObjective, request));
  const absl::Time start = absl::Now();
  Operation done;
  {
    ProgressBar bar(std::cout, isatty(STDOUT_FILENO) != 0);
    TRIMTAB_ASSIGN_OR_RETURN(done, Watch(client_, started.name(), bar));
  }
  if (done.has_error()) return FromRpcStatus(done.error());
  if (!done.response().UnpackTo(&fitted_)) return absl::InternalError("the operation ended without an objective");
  const google::protobuf::Duration& fit_time = fitted_.active().fit_time();
  const absl::Duration fit = absl::Seconds(fit_time.seconds()) + absl::Nanoseconds(fit_time.nanos());
  const absl::Duration rest = std::max(absl::Now() - start - fit, absl::ZeroDuration());
  stopwatch.Add("fit", fit);
  stopwatch.Add("drift report", rest);
  std::cout << "Built in " << FormatDuration(fit_time) << "; its drift report took "
            << FormatDuration(absl::ToDoubleSeconds(rest)) << ".\n";
  return absl::OkStatus();
}

absl::StatusOr<std::string> Quickstart::Answer(const std::string& prompt, float strength) {
  v1::GenerateRequest request;
  TRIMTAB_ASSIGN_OR_RETURN(*request.mutable_model(), client_.ModelName(""));
  if (chat_) {
    v1::Content& content = *request.mutable_conversation()->add_contents();
    content.set_role(v1::ROLE_USER);
    content.add_parts()->set_text(prompt);
  } else {
    request.set_prompt(prompt);
  }
  request.mutable_config()->set_max_output_tokens(kOutputTokens);
  request.mutable_config()->set_repetition_penalty(1.1f);
  if (strength != 0) {
    v1::SteeringSelection& selection = *request.add_steering();
    selection.set_objective(objective_);
    selection.set_strength(strength);
  }
  TRIMTAB_ASSIGN_OR_RETURN(const v1::GenerateResponse response,
                           client_.Call(client_.generation(), &v1::GenerationService::Stub::Generate, request));
  return response.text();
}

absl::Status Quickstart::ShowAnswers() {
  const float recommended = recommended_strength(), limit = fitted_.active().max_strength();
  const std::vector<std::pair<std::string, float>> settings = {
      {"half the recommended", recommended / 2},
      {"recommended", recommended},
      {"half as much again, to see where it breaks", std::min(1.5f * recommended, limit)}};
  std::cout << "Greedy, repetition penalty 1.1, " << kOutputTokens
            << " tokens. None of these prompts is among the pairs.\n";
  std::vector<std::string> prompts = ReadLines("deploy/examples/pairs/" + objective_ + ".prompts.txt");
  prompts.resize(std::min(prompts.size(), extent_.prompts));
  for (const std::string& prompt : prompts) {
    std::cout << "\n" << Styled("> " + prompt, "1", color_) << "\n";
    TRIMTAB_ASSIGN_OR_RETURN(const std::string plain, Answer(prompt, 0));
    const std::vector<std::string> left = Wrap(Printable(plain, true), kColumn);
    for (const auto& [name, strength] : settings) {
      TRIMTAB_ASSIGN_OR_RETURN(const std::string steered, Answer(prompt, strength));
      const std::vector<std::string> right = Wrap(Printable(steered, true), kColumn);
      const std::string title = absl::StrFormat("strength %.3f: %s", strength, name);
      std::cout << "\n  " << Styled("unsteered", "2", color_) << std::string(kColumn - 9 + 3, ' ')
                << Styled(title, "32", color_) << "\n";
      for (size_t line = 0; line < std::max(left.size(), right.size()); ++line) {
        const std::string text = line < left.size() ? left[line] : "";
        std::cout << "  " << text << std::string(kColumn - std::min(kColumn, DisplayWidth(text)), ' ') << " | "
                  << (line < right.size() ? right[line] : "") << "\n";
      }
      std::cout << std::flush;
    }
  }
  return absl::OkStatus();
}

absl::Status Quickstart::ShowEffect() {
  std::cout << "The margin is how much likelier the model finds the preferred answer, per token.\n\n"
            << RenderRevision(fitted_.active(), color_);
  return absl::OkStatus();
}

absl::Status Quickstart::ShowAudit() {
  v1::GetAttributionsRequest request;
  request.set_name(fitted_.name());
  request.set_page_size(2);
  TRIMTAB_ASSIGN_OR_RETURN(const v1::GetAttributionsResponse page,
                           client_.Call(client_.objectives(), &v1::ObjectiveService::Stub::GetAttributions, request));
  for (const v1::Attribution& attribution : page.attributions()) {
    if (&attribution != &page.attributions(0)) std::cout << "\n";
    std::cout << RenderAttribution(attribution, color_) << RenderInfluentialTokens(attribution, 3, color_);
  }
  return absl::OkStatus();
}

absl::Status Quickstart::ShowDrift() {
  v1::ListDriftReportsRequest request;
  TRIMTAB_ASSIGN_OR_RETURN(*request.mutable_parent(), client_.ModelName(""));
  TRIMTAB_ASSIGN_OR_RETURN(const v1::ListDriftReportsResponse page,
                           client_.Call(client_.drift(), &v1::DriftService::Stub::ListDriftReports, request));
  if (page.drift_reports().empty()) return absl::NotFoundError("the server made no drift report");
  std::cout << RenderDriftReport(page.drift_reports(page.drift_reports_size() - 1), color_);
  return absl::OkStatus();
}

// "a", or "a" or "b", ...
std::string Alternatives(const std::vector<std::string_view>& names) {
  std::string text;
  for (const std::string_view name : names) {
    absl::StrAppend(&text, text.empty() ? "\"" : " or \"", std::string(name), "\"");
  }
  return text;
}

// A few lines of the metrics page, without the rest.
absl::Status ShowMetrics(const std::string& address) {
  TRIMTAB_ASSIGN_OR_RETURN(const std::string page, HttpGet(address, "/metrics"));
  std::istringstream lines(page);
  for (std::string line; std::getline(lines, line);) {
    for (const char* wanted : {"trimtab_generation_tokens_total{", "trimtab_time_to_first_token_seconds_count{",
                               "trimtab_drift_mean_kl_nats{", "trimtab_jobs_finished_total{kind=\"fit\""}) {
      if (absl::StartsWith(line, wanted) && !absl::EndsWith(line, " 0")) std::cout << "  " << line << "\n";
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<ModelChoice> ChosenModel() {
  const std::string wanted = absl::GetFlag(FLAGS_model);
  std::vector<std::string_view> ids;
  for (const ModelChoice& choice : ModelChoices()) {
    ids.push_back(choice.id);
    if (choice.id != wanted) continue;
    if (fs::exists(choice.file)) return choice;
    return absl::NotFoundError(absl::StrCat("this model has not been fetched; fetch it and begin with\n",
                                            "  ./bazelw run //:quickstart -- --model ", wanted));
  }
  return absl::InvalidArgumentError(absl::StrCat("--model must be ", Alternatives(ids)));
}

absl::StatusOr<std::string> ChosenObjective(const ModelChoice& model) {
  const std::string wanted = absl::GetFlag(FLAGS_objective);
  if (wanted.empty()) return std::string(model.objectives.front());
  if (std::count(model.objectives.begin(), model.objectives.end(), wanted) > 0) return wanted;
  return absl::InvalidArgumentError(absl::StrCat("--objective must be ", Alternatives(model.objectives),
                                                 " with --model ", absl::GetFlag(FLAGS_model)));
}

absl::Status Run(Interrupt& interrupt) {
  TRIMTAB_ASSIGN_OR_RETURN(const ModelChoice choice, ChosenModel());
  TRIMTAB_ASSIGN_OR_RETURN(const std::string objective, ChosenObjective(choice));
  const bool color = isatty(STDOUT_FILENO) != 0 && std::getenv("NO_COLOR") == nullptr;
  const Extent extent = absl::GetFlag(FLAGS_quick) ? kQuick : Extent();
  const TemporaryFolder folder;
  const std::string questions = folder.path() + "/probe.jsonl";
  if (folder.path().empty() || !CopyEvery("deploy/examples/drift/probe.jsonl", questions, extent.questions) ||
      !CopyEvery("deploy/examples/drift/probe_dev.jsonl", folder.path() + "/probe_dev.jsonl", 1000)) {
    return absl::UnavailableError("cannot write to a temporary folder");
  }
  Stopwatch stopwatch;

  Heading("1. A server on this machine", color);
  const std::string model = std::string(choice.id) + "=" + fs::canonical(choice.file).string();
  TRIMTAB_ASSIGN_OR_RETURN(
      const std::unique_ptr<ServerProcess> server,
      ServerProcess::Start("server/trimtab",
                           {"--model=" + model, "--registry=" + folder.path() + "/trimtab.db",
                            "--drift_suite=probe=" + questions, "--neutral_text=deploy/examples/drift/neutral.txt"},
                           folder.path(), kPatience));
  stopwatch.Lap("server start");
  Client client(server->address(), kPatience, interrupt);
  TRIMTAB_ASSIGN_OR_RETURN(const v1::ListModelsResponse models,
                           client.Call(client.models(), &v1::ModelService::Stub::ListModels, v1::ListModelsRequest()));
  std::cout << RenderModels({models.models().begin(), models.models().end()}, color) << "gRPC on " << server->address()
            << ", metrics on http://" << server->metrics_address() << "/metrics\n";

  Quickstart quickstart(client, objective, choice.chat, extent, color);
  Heading("2. An objective from preference pairs", color);
  TRIMTAB_RETURN_IF_ERROR(quickstart.Register(stopwatch));
  stopwatch.Skip();
  Heading("3. Answers, side by side", color);
  TRIMTAB_RETURN_IF_ERROR(quickstart.ShowAnswers());
  stopwatch.Lap("answers");
  Heading("4. The effect, on pairs that the vector has never seen", color);
  TRIMTAB_RETURN_IF_ERROR(quickstart.ShowEffect());
  Heading("5. The audit: which words the preference hangs on", color);
  TRIMTAB_RETURN_IF_ERROR(quickstart.ShowAudit());
  Heading("6. Drift: what steering does to everything else", color);
  TRIMTAB_RETURN_IF_ERROR(quickstart.ShowDrift());
  Heading("7. Metrics", color);
  TRIMTAB_RETURN_IF_ERROR(ShowMetrics(server->metrics_address()));
  Heading("Time", color);
  std::cout << stopwatch.Account() << "\n";

  Heading("What next", color);
  const bool keep = absl::GetFlag(FLAGS_keep);
  if (!keep) {
    std::cout << "The server stops now. Run this again with \"-- --keep\" to leave one running; it has another address "
                 "then:\n";
  }
  const std::string trimctl = "  ./bazelw run //tools/trimctl -- --address=" + server->address() + " ";
  const std::string steer = absl::StrFormat(" --steer %s=%.3g", objective, quickstart.recommended_strength());
  const std::string prompt =
      choice.chat ? "\"Tell me about the sea.\"" : "--raw \"When she came to the sea, she\" --max_output_tokens 60";
  std::cout << trimctl << "generate " << prompt << steer << " --repetition_penalty 1.1 --stats\n"
            << trimctl << "audit " << objective << " --html audit.html\n"
            << trimctl << "drift" << steer << " --max_items 30\n"
            << "README.md says how to call the server from Python and how to bring your own model.\n"
            << std::flush;
  if (keep) {
    std::cout << "\nThe server runs until Ctrl-C; its log is " << folder.path() << "/server.log.\n" << std::flush;
    interrupt.Wait();
    std::cout << "\nThe server stops; what it learned goes with it.\n" << std::flush;
  }
  server->Signal(SIGTERM);
  if (const int status = server->Wait(); status != 0) {
    return absl::InternalError(absl::StrCat("the server ended with status ", status, ":\n", server->log()));
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace trimtab

int main(int argc, char** argv) {
  // `bazelw run` starts this among its files; started by hand it goes there.
  std::error_code ignored;
  const std::filesystem::path runfiles =
      std::filesystem::canonical("/proc/self/exe", ignored).string() + ".runfiles/trimtab";
  if (std::filesystem::exists(runfiles, ignored)) std::filesystem::current_path(runfiles, ignored);
  trimtab::Interrupt interrupt;
  absl::SetProgramUsageMessage(
      "starts a server with a small model, steers it by an objective, and shows the effect.\n"
      "  ./bazelw run //:quickstart -- --objective=formal --keep\n"
      "  ./bazelw run //:quickstart -- --model gemma3-270m");
  absl::FlagsUsageConfig usage;
  usage.contains_help_flags = [](absl::string_view file) { return absl::EndsWith(file, "quickstart/main.cc"); };
  absl::SetFlagsUsageConfig(usage);
  absl::ParseCommandLine(argc, argv);
  const absl::Status status = trimtab::Run(interrupt);
  if (status.ok()) return EXIT_SUCCESS;
  if (interrupt.requested()) return trimtab::kExitInterrupted;
  std::cerr << "\nquickstart: " << trimtab::FormatError(status, "");
  return EXIT_FAILURE;
}
