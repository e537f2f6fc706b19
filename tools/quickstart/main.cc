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
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
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

ABSL_FLAG(std::string, objective, "cheerful", "which of the shipped behaviours to steer by: cheerful or formal");
ABSL_FLAG(bool, keep, false, "leave the server running until Ctrl-C");

namespace trimtab {
namespace {

namespace fs = std::filesystem;
using google::longrunning::Operation;

constexpr absl::Duration kPatience = absl::Minutes(5);
constexpr int kPromptsShown = 2;
constexpr int kOutputTokens = 40;
constexpr size_t kColumn = 56;

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
  Quickstart(Client& client, std::string objective, bool color)
      : client_(client), objective_(std::move(objective)), color_(color) {}

  absl::Status Register();
  absl::Status ShowAnswers();
  absl::Status ShowEffect();
  absl::Status ShowAudit();
  absl::Status ShowDrift();

 private:
  absl::StatusOr<std::string> Answer(const std::string& prompt, float strength);

  Client& client_;
  const std::string objective_;
  const bool color_;
  v1::Objective fitted_;
};

absl::Status Quickstart::Register() {
  const std::string base = "deploy/examples/pairs/" + objective_;
  v1::RegisterObjectiveRequest request;
  TRIMTAB_ASSIGN_OR_RETURN(*request.mutable_parent(), client_.ModelName(""));
  request.set_objective_id(objective_);
  request.set_evaluate_drift(true);
  request.mutable_objective()->set_method("grains");
  TRIMTAB_ASSIGN_OR_RETURN(const auto pairs, ReadPairsFile(base + ".train.jsonl"));
  TRIMTAB_ASSIGN_OR_RETURN(const auto held_out, ReadPairsFile(base + ".held_out.jsonl"));
  request.mutable_objective()->mutable_pairs()->Assign(pairs.begin(), pairs.end());
  request.mutable_objective()->mutable_held_out_pairs()->Assign(held_out.begin(), held_out.end());
  std::cout << "\"" << objective_ << "\": " << pairs.size() << " pairs to learn from, " << held_out.size()
            << " kept apart to measure the effect.\n"
            << "The server serves while a background worker builds the vector.\n"
            << std::flush;
  TRIMTAB_ASSIGN_OR_RETURN(const Operation started,
                           client_.Call(client_.objectives(), &v1::ObjectiveService::Stub::RegisterObjective, request));
  Operation done;
  {
    ProgressBar bar(std::cout, isatty(STDOUT_FILENO) != 0);
    TRIMTAB_ASSIGN_OR_RETURN(done, Watch(client_, started.name(), bar));
  }
  if (done.has_error()) return FromRpcStatus(done.error());
  if (!done.response().UnpackTo(&fitted_)) return absl::InternalError("the operation ended without an objective");
  std::cout << "Built in " << FormatDuration(fitted_.active().fit_time()) << ".\n";
  return absl::OkStatus();
}

absl::StatusOr<std::string> Quickstart::Answer(const std::string& prompt, float strength) {
  v1::GenerateRequest request;
  TRIMTAB_ASSIGN_OR_RETURN(*request.mutable_model(), client_.ModelName(""));
  v1::Content& content = *request.mutable_conversation()->add_contents();
  content.set_role(v1::ROLE_USER);
  content.add_parts()->set_text(prompt);
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
  const float recommended = fitted_.active().recommended_strength(), limit = fitted_.active().max_strength();
  const std::vector<std::pair<std::string, float>> settings = {{"recommended", recommended},
                                                               {"twice as strong", std::min(2 * recommended, limit)},
                                                               {"reversed", -std::min(1.5f * recommended, limit)}};
  std::cout << "Greedy, repetition penalty 1.1, " << kOutputTokens
            << " tokens. None of these prompts is among the pairs.\n";
  std::vector<std::string> prompts = ReadLines("deploy/examples/pairs/" + objective_ + ".prompts.txt");
  prompts.resize(std::min<size_t>(prompts.size(), kPromptsShown));
  for (const std::string& prompt : prompts) {
    std::cout << "\n" << Styled("> " + prompt, "1", color_) << "\n";
    TRIMTAB_ASSIGN_OR_RETURN(const std::string plain, Answer(prompt, 0));
    const std::vector<std::string> left = Wrap(Printable(plain, true), kColumn);
    for (const auto& [name, strength] : settings) {
      TRIMTAB_ASSIGN_OR_RETURN(const std::string steered, Answer(prompt, strength));
      const std::vector<std::string> right = Wrap(Printable(steered, true), kColumn);
      const std::string title = absl::StrFormat("%s, strength %+.3f", name, strength);
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
    std::cout << RenderAttribution(attribution, color_) << RenderInfluentialTokens(attribution, 3, color_) << "\n";
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

absl::Status Run(Interrupt& interrupt) {
  const std::string objective = absl::GetFlag(FLAGS_objective);
  if (objective != "cheerful" && objective != "formal") {
    return absl::InvalidArgumentError("--objective must be \"cheerful\" or \"formal\"");
  }
  const bool color = isatty(STDOUT_FILENO) != 0 && std::getenv("NO_COLOR") == nullptr;
  const TemporaryFolder folder;
  if (folder.path().empty()) return absl::UnavailableError("cannot make a temporary folder");

  Heading("1. A server on this machine", color);
  const std::string model = fs::weakly_canonical("../trimtab_models/SmolLM2-135M-Instruct.Q4_1.gguf").string();
  TRIMTAB_ASSIGN_OR_RETURN(
      const std::unique_ptr<ServerProcess> server,
      ServerProcess::Start(
          "server/trimtab",
          {"--model=smollm2=" + model, "--registry=" + folder.path() + "/trimtab.db",
           "--drift_suite=probe=deploy/examples/drift/probe.jsonl", "--neutral_text=deploy/examples/drift/neutral.txt"},
          folder.path(), kPatience));
  Client client(server->address(), kPatience, interrupt);
  TRIMTAB_ASSIGN_OR_RETURN(const v1::ListModelsResponse models,
                           client.Call(client.models(), &v1::ModelService::Stub::ListModels, v1::ListModelsRequest()));
  std::cout << RenderModels({models.models().begin(), models.models().end()}, color) << "gRPC on " << server->address()
            << ", metrics on http://" << server->metrics_address() << "/metrics\n";

  Quickstart quickstart(client, objective, color);
  Heading("2. An objective from preference pairs", color);
  TRIMTAB_RETURN_IF_ERROR(quickstart.Register());
  Heading("3. Answers, side by side", color);
  TRIMTAB_RETURN_IF_ERROR(quickstart.ShowAnswers());
  Heading("4. The effect, on pairs that the vector has never seen", color);
  TRIMTAB_RETURN_IF_ERROR(quickstart.ShowEffect());
  Heading("5. The audit: which words the preference hangs on", color);
  TRIMTAB_RETURN_IF_ERROR(quickstart.ShowAudit());
  Heading("6. Drift: what steering does to everything else", color);
  TRIMTAB_RETURN_IF_ERROR(quickstart.ShowDrift());
  Heading("7. Metrics", color);
  TRIMTAB_RETURN_IF_ERROR(ShowMetrics(server->metrics_address()));

  Heading("What next", color);
  const std::string trimctl = "  ./bazelw run //tools/trimctl -- --address=" + server->address() + " ";
  if (!absl::GetFlag(FLAGS_keep)) {
    std::cout << "The server stops now. Run this again with \"-- --keep\" to leave one running; it has another address "
                 "then:\n";
  }
  std::cout << trimctl << "generate \"Tell me about the sea.\" --steer " << objective << "=0.1 --stats\n"
            << trimctl << "audit " << objective << " --html audit.html\n"
            << trimctl << "drift --steer " << objective << "=0.2\n"
            << "README.md says how to call the server from Python and how to bring your own model.\n"
            << std::flush;
  if (absl::GetFlag(FLAGS_keep)) {
    std::cout << "\nThe server runs until Ctrl-C.\n" << std::flush;
    interrupt.Wait();
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
      "  ./bazelw run //:quickstart -- --objective=formal --keep");
  absl::ParseCommandLine(argc, argv);
  const absl::Status status = trimtab::Run(interrupt);
  if (status.ok()) return EXIT_SUCCESS;
  if (interrupt.requested()) return trimtab::kExitInterrupted;
  std::cerr << "\nquickstart: " << trimtab::FormatError(status, "");
  return EXIT_FAILURE;
}
