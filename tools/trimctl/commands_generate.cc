// generate and score.
#include <iostream>
#include <iterator>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "tools/trimctl/command.h"
#include "tools/trimctl/flags.h"
#include "tools/trimctl/render.h"
#include "tools/trimctl/text.h"

namespace trimtab {
namespace {

using Stub = v1::GenerationService::Stub;

void AddContent(v1::Conversation& conversation, v1::Role role, const std::string& text) {
  v1::Content& content = *conversation.add_contents();
  content.set_role(role);
  content.add_parts()->set_text(text);
}

// Model, prompt and steering of a GenerateRequest or ScoreRequest. "-" reads the prompt from standard input.
template <typename Request>
absl::Status SetInput(Cli& cli, const std::string& argument, Request& request) {
  std::string prompt = argument;
  if (prompt == "-") prompt.assign(std::istreambuf_iterator<char>(std::cin), {});
  if (absl::GetFlag(FLAGS_raw)) {
    if (!absl::GetFlag(FLAGS_system).empty())
      return UsageError("--system needs the chat template that --raw leaves out");
    request.set_prompt(prompt);
  } else {
    if (const std::string system = absl::GetFlag(FLAGS_system); !system.empty()) {
      AddContent(*request.mutable_conversation(), v1::ROLE_SYSTEM, system);
    }
    AddContent(*request.mutable_conversation(), v1::ROLE_USER, prompt);
  }
  TRIMTAB_ASSIGN_OR_RETURN(const std::vector<v1::SteeringSelection> steering, SteeringFromFlags());
  request.mutable_steering()->Assign(steering.begin(), steering.end());
  TRIMTAB_ASSIGN_OR_RETURN(*request.mutable_model(), cli.client.ModelName(absl::GetFlag(FLAGS_model)));
  return absl::OkStatus();
}

void SetConfig(v1::GenerationConfig& config) {
  if (const auto value = absl::GetFlag(FLAGS_max_output_tokens)) config.set_max_output_tokens(*value);
  if (const auto value = absl::GetFlag(FLAGS_temperature)) config.set_temperature(*value);
  if (const auto value = absl::GetFlag(FLAGS_top_p)) config.set_top_p(*value);
  if (const auto value = absl::GetFlag(FLAGS_top_k)) config.set_top_k(*value);
  if (const auto value = absl::GetFlag(FLAGS_min_p)) config.set_min_p(*value);
  if (const auto value = absl::GetFlag(FLAGS_repetition_penalty)) config.set_repetition_penalty(*value);
  if (const auto value = absl::GetFlag(FLAGS_seed)) config.set_seed(*value);
  if (const auto value = absl::GetFlag(FLAGS_logprobs)) config.set_logprobs(*value);
  for (const std::string& stop : absl::GetFlag(FLAGS_stop)) config.add_stop_sequences(stop);
  config.set_ignore_eos(absl::GetFlag(FLAGS_ignore_eos));
}

absl::StatusOr<ExitCode> Generate(Cli& cli, const std::vector<std::string>& arguments) {
  v1::GenerateRequest request;
  TRIMTAB_RETURN_IF_ERROR(SetInput(cli, arguments[0], request));
  SetConfig(*request.mutable_config());
  if (cli.json) {
    TRIMTAB_ASSIGN_OR_RETURN(const v1::GenerateResponse response,
                             cli.client.Call(cli.client.generation(), &Stub::Generate, request));
    cli.Print(response, "");
    return ExitCode::kOk;
  }
  v1::GenerateResponse last;
  bool started = false;
  const absl::Status status = cli.client.Stream(request, [&](const v1::GenerateResponse& piece) {
    std::cout << Printable(piece.text(), /*multi_line=*/true) << std::flush;
    last = piece;
    started = true;
  });
  if (started) std::cout << "\n" << std::flush;
  if (!status.ok()) return status;
  if (absl::GetFlag(FLAGS_stats)) std::cerr << RenderApplied(last.applied()) << RenderStats(last);
  return ExitCode::kOk;
}

absl::StatusOr<ExitCode> Score(Cli& cli, const std::vector<std::string>& arguments) {
  v1::ScoreRequest request;
  TRIMTAB_RETURN_IF_ERROR(SetInput(cli, arguments[0], request));
  const std::vector<std::string> continuations(arguments.begin() + 1, arguments.end());
  request.mutable_continuations()->Assign(continuations.begin(), continuations.end());
  TRIMTAB_ASSIGN_OR_RETURN(const v1::ScoreResponse response,
                           cli.client.Call(cli.client.generation(), &Stub::Score, request));
  cli.Print(response,
            absl::StrCat(RenderScores(continuations, response, cli.color), RenderApplied(response.applied())));
  return ExitCode::kOk;
}

}  // namespace

std::vector<Command> GenerateCommands() {
  return {
      {.name = "generate",
       .arguments = "PROMPT",
       .summary = "answer a prompt, steered or not, as it is generated",
       .details = "PROMPT \"-\" is read from standard input. Examples:\n"
                  "  trimctl generate \"Tell me about elephants.\" --steer cheerful=0.05 --stats\n"
                  "  trimctl generate \"Hello\" --steer cheerful --steer formal@2=-0.03 --temperature 0.7 --seed 1",
       .flags = {"steer", "apply_to", "system", "raw", "max_output_tokens", "temperature", "top_p", "top_k", "min_p",
                 "repetition_penalty", "seed", "stop", "ignore_eos", "logprobs", "stats"},
       .min_arguments = 1,
       .max_arguments = 1,
       .run = Generate},
      {.name = "score",
       .arguments = "PROMPT CONTINUATION...",
       .summary = "log-likelihood of each continuation after a prompt",
       .details = "",
       .flags = {"steer", "apply_to", "system", "raw"},
       .min_arguments = 2,
       .max_arguments = 129,
       .run = Score},
  };
}

}  // namespace trimtab
