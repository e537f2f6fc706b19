// Commands that read and change objectives: objectives, show, audit, promote, disable, enable, update, delete, methods.
#include <algorithm>
#include <fstream>
#include <iostream>

#include "absl/flags/flag.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/base/resource_name.h"
#include "server/base/status_macros.h"
#include "tools/trimctl/audit.h"
#include "tools/trimctl/audit_page.h"
#include "tools/trimctl/command.h"
#include "tools/trimctl/flags.h"
#include "tools/trimctl/render.h"
#include "tools/trimctl/text.h"

namespace trimtab {
namespace {

using Stub = v1::ObjectiveService::Stub;

absl::StatusOr<std::string> NameOf(Cli& cli, const std::string& argument) {
  return cli.client.ObjectiveName(absl::GetFlag(FLAGS_model), argument);
}

// The name of an objective, not of one of its revisions.
absl::StatusOr<std::string> ObjectiveNameOf(Cli& cli, const std::string& argument) {
  TRIMTAB_ASSIGN_OR_RETURN(const std::string name, NameOf(cli, argument));
  if (!ParseObjectiveName(name))
    return UsageError(absl::StrCat("\"", argument, "\" names a revision, not an objective"));
  return name;
}

absl::StatusOr<ExitCode> List(Cli& cli, const std::vector<std::string>&) {
  v1::ListObjectivesRequest request;
  TRIMTAB_ASSIGN_OR_RETURN(*request.mutable_parent(), cli.client.ModelName(absl::GetFlag(FLAGS_model)));
  v1::ListObjectivesResponse all;
  TRIMTAB_RETURN_IF_ERROR((cli.client.ForEachPage<Stub, v1::ListObjectivesRequest, v1::ListObjectivesResponse>(
      cli.client.objectives(), &Stub::ListObjectives, request,
      [&](v1::ListObjectivesResponse& page) { all.MergeFrom(page); })));
  cli.Print(all, RenderObjectives({all.objectives().begin(), all.objectives().end()}, cli.color));
  return ExitCode::kOk;
}

absl::StatusOr<ExitCode> Show(Cli& cli, const std::vector<std::string>& arguments) {
  TRIMTAB_ASSIGN_OR_RETURN(const std::string name, NameOf(cli, arguments[0]));
  if (ParseRevisionName(name)) {
    v1::GetRevisionRequest request;
    request.set_name(name);
    TRIMTAB_ASSIGN_OR_RETURN(const v1::RevisionSummary revision,
                             cli.client.Call(cli.client.objectives(), &Stub::GetRevision, request));
    cli.Print(revision, RenderRevision(revision, cli.color));
    return ExitCode::kOk;
  }
  v1::GetObjectiveRequest request;
  request.set_name(name);
  TRIMTAB_ASSIGN_OR_RETURN(const v1::Objective objective,
                           cli.client.Call(cli.client.objectives(), &Stub::GetObjective, request));
  v1::ListRevisionsRequest list;
  list.set_parent(name);
  v1::ListRevisionsResponse all;
  TRIMTAB_RETURN_IF_ERROR((cli.client.ForEachPage<Stub, v1::ListRevisionsRequest, v1::ListRevisionsResponse>(
      cli.client.objectives(), &Stub::ListRevisions, list,
      [&](v1::ListRevisionsResponse& page) { all.MergeFrom(page); })));
  cli.Print(objective, RenderObjective(objective, {all.revisions().begin(), all.revisions().end()}, cli.color));
  return ExitCode::kOk;
}

absl::StatusOr<ExitCode> Audit(Cli& cli, const std::vector<std::string>& arguments) {
  v1::GetAttributionsRequest request;
  TRIMTAB_ASSIGN_OR_RETURN(*request.mutable_name(), NameOf(cli, arguments[0]));
  const int32_t limit = absl::GetFlag(FLAGS_pairs);
  if (limit < 0) return UsageError("--pairs must not be negative");
  v1::GetAttributionsResponse all;
  while (true) {
    if (limit > 0) request.set_page_size(std::min(limit - all.attributions_size(), 200));
    TRIMTAB_ASSIGN_OR_RETURN(const v1::GetAttributionsResponse page,
                             cli.client.Call(cli.client.objectives(), &Stub::GetAttributions, request));
    all.MergeFrom(page);
    if (page.next_page_token().empty() || (limit > 0 && all.attributions_size() >= limit)) break;
    request.set_page_token(page.next_page_token());
  }
  all.clear_next_page_token();
  const std::vector<v1::Attribution> attributions(all.attributions().begin(), all.attributions().end());
  if (const std::string path = absl::GetFlag(FLAGS_html); !path.empty()) {
    v1::GetRevisionRequest revision_request;
    revision_request.set_name(all.revision());
    TRIMTAB_ASSIGN_OR_RETURN(const v1::RevisionSummary revision,
                             cli.client.Call(cli.client.objectives(), &Stub::GetRevision, revision_request));
    std::ofstream file(path, std::ios::binary);
    file << AuditPage(revision, attributions) << std::flush;
    if (!file) return UsageError(absl::StrCat("--html: ", path, " cannot be written"));
    std::cerr << "wrote " << path << "\n";
    return ExitCode::kOk;
  }
  std::string text = absl::StrCat(Styled(all.revision(), "1", cli.color), "\n");
  for (const v1::Attribution& attribution : attributions) {
    absl::StrAppend(&text, "\n", RenderAttribution(attribution, cli.color),
                    RenderInfluentialTokens(attribution, 5, cli.color));
  }
  if (attributions.empty()) absl::StrAppend(&text, "It has no audit.\n");
  cli.Print(all, text);
  return ExitCode::kOk;
}

absl::StatusOr<ExitCode> Promote(Cli& cli, const std::vector<std::string>& arguments) {
  v1::PromoteRevisionRequest request;
  std::string target = arguments[0];
  if (arguments.size() == 2) absl::StrAppend(&target, "@", arguments[1]);
  TRIMTAB_ASSIGN_OR_RETURN(const std::string name, NameOf(cli, target));
  const std::optional<RevisionId> revision = ParseRevisionName(name);
  if (!revision) return UsageError("which revision? trimctl promote NAME@REVISION");
  request.set_name(revision->objective.name());
  request.set_revision(revision->revision);
  request.set_etag(absl::GetFlag(FLAGS_etag));
  TRIMTAB_ASSIGN_OR_RETURN(const v1::Objective objective,
                           cli.client.Call(cli.client.objectives(), &Stub::PromoteRevision, request));
  cli.Print(objective, absl::StrCat(objective.name(), " now serves revision ", objective.active().revision(), "\n"));
  return ExitCode::kOk;
}

absl::StatusOr<ExitCode> Disable(Cli& cli, const std::vector<std::string>& arguments) {
  v1::DisableObjectiveRequest request;
  TRIMTAB_ASSIGN_OR_RETURN(*request.mutable_name(), ObjectiveNameOf(cli, arguments[0]));
  request.set_etag(absl::GetFlag(FLAGS_etag));
  TRIMTAB_ASSIGN_OR_RETURN(const v1::Objective objective,
                           cli.client.Call(cli.client.objectives(), &Stub::DisableObjective, request));
  cli.Print(objective, absl::StrCat(objective.name(), " is out of service: requests that name it are refused\n"));
  return ExitCode::kOk;
}

absl::StatusOr<ExitCode> Enable(Cli& cli, const std::vector<std::string>& arguments) {
  v1::EnableObjectiveRequest request;
  TRIMTAB_ASSIGN_OR_RETURN(*request.mutable_name(), ObjectiveNameOf(cli, arguments[0]));
  request.set_etag(absl::GetFlag(FLAGS_etag));
  TRIMTAB_ASSIGN_OR_RETURN(const v1::Objective objective,
                           cli.client.Call(cli.client.objectives(), &Stub::EnableObjective, request));
  cli.Print(objective, absl::StrCat(objective.name(), " serves revision ", objective.active().revision(), " again\n"));
  return ExitCode::kOk;
}

absl::StatusOr<ExitCode> Update(Cli& cli, const std::vector<std::string>& arguments) {
  v1::UpdateObjectiveRequest request;
  v1::Objective& objective = *request.mutable_objective();
  TRIMTAB_ASSIGN_OR_RETURN(*objective.mutable_name(), ObjectiveNameOf(cli, arguments[0]));
  objective.set_etag(absl::GetFlag(FLAGS_etag));
  auto& paths = *request.mutable_update_mask();
  if (const auto value = absl::GetFlag(FLAGS_display_name)) {
    objective.set_display_name(*value);
    paths.add_paths("display_name");
  }
  if (const auto value = absl::GetFlag(FLAGS_description)) {
    objective.set_description(*value);
    paths.add_paths("description");
  }
  if (const auto value = absl::GetFlag(FLAGS_default_strength)) {
    objective.set_default_strength(*value);
    paths.add_paths("default_strength");
  }
  if (const auto value = absl::GetFlag(FLAGS_max_strength)) {
    objective.set_max_strength(*value);
    paths.add_paths("max_strength");
  }
  for (const std::string& path : absl::GetFlag(FLAGS_clear)) {
    if (std::find(paths.paths().begin(), paths.paths().end(), path) != paths.paths().end()) {
      return UsageError(absl::StrCat("--clear and --", path, " contradict each other"));
    }
    paths.add_paths(path);
  }
  if (paths.paths().empty()) {
    return UsageError(
        "nothing to change: give --display_name, --description, --default_strength, --max_strength or --clear");
  }
  TRIMTAB_ASSIGN_OR_RETURN(const v1::Objective updated,
                           cli.client.Call(cli.client.objectives(), &Stub::UpdateObjective, request));
  cli.Print(updated, RenderObjective(updated, {}, cli.color));
  return ExitCode::kOk;
}

absl::StatusOr<ExitCode> Delete(Cli& cli, const std::vector<std::string>& arguments) {
  v1::DeleteObjectiveRequest request;
  TRIMTAB_ASSIGN_OR_RETURN(*request.mutable_name(), ObjectiveNameOf(cli, arguments[0]));
  request.set_etag(absl::GetFlag(FLAGS_etag));
  TRIMTAB_ASSIGN_OR_RETURN(const google::protobuf::Empty empty,
                           cli.client.Call(cli.client.objectives(), &Stub::DeleteObjective, request));
  cli.Print(empty, absl::StrCat(request.name(), " is deleted, with its revisions and audit\n"));
  return ExitCode::kOk;
}

absl::StatusOr<ExitCode> Methods(Cli& cli, const std::vector<std::string>&) {
  v1::ListSteeringMethodsResponse all;
  TRIMTAB_RETURN_IF_ERROR(
      (cli.client.ForEachPage<Stub, v1::ListSteeringMethodsRequest, v1::ListSteeringMethodsResponse>(
          cli.client.objectives(), &Stub::ListSteeringMethods, {},
          [&](v1::ListSteeringMethodsResponse& page) { all.MergeFrom(page); })));
  cli.Print(all, RenderMethods({all.steering_methods().begin(), all.steering_methods().end()}, cli.color));
  return ExitCode::kOk;
}

}  // namespace

std::vector<Command> ObjectiveCommands() {
  return {
      {.name = "objectives",
       .arguments = "",
       .summary = "list the objectives of a model",
       .details = "",
       .flags = {},
       .run = List},
      {.name = "show",
       .arguments = "NAME[@REVISION]",
       .summary = "an objective with its effect, cost and revisions, or one revision",
       .details = "",
       .flags = {},
       .min_arguments = 1,
       .max_arguments = 1,
       .run = Show},
      {.name = "audit",
       .arguments = "NAME[@REVISION]",
       .summary = "which words of each pair's prompt the preference hangs on",
       .details = "On a terminal green words speak for the preferred answer, red ones for the dispreferred one and "
                  "underlined\n"
                  "ones were masked; elsewhere they are marked word[++], word[--] and word[++*].",
       .flags = {"pairs", "html"},
       .min_arguments = 1,
       .max_arguments = 1,
       .run = Audit},
      {.name = "promote",
       .arguments = "NAME@REVISION",
       .summary = "serve another revision; rolling back is promoting an earlier one",
       .details = "",
       .flags = {"etag"},
       .min_arguments = 1,
       .max_arguments = 2,
       .run = Promote},
      {.name = "disable",
       .arguments = "NAME",
       .summary = "take an objective out of service; running requests keep their vectors",
       .details = "",
       .flags = {"etag"},
       .min_arguments = 1,
       .max_arguments = 1,
       .run = Disable},
      {.name = "enable",
       .arguments = "NAME",
       .summary = "put a disabled objective back into service",
       .details = "",
       .flags = {"etag"},
       .min_arguments = 1,
       .max_arguments = 1,
       .run = Enable},
      {.name = "update",
       .arguments = "NAME",
       .summary = "change an objective's texts and strengths",
       .details = "",
       .flags = {"display_name", "description", "default_strength", "max_strength", "clear", "etag"},
       .min_arguments = 1,
       .max_arguments = 1,
       .run = Update},
      {.name = "delete",
       .arguments = "NAME",
       .summary = "remove an objective with its revisions and audit",
       .details = "",
       .flags = {"etag"},
       .min_arguments = 1,
       .max_arguments = 1,
       .run = Delete},
      {.name = "methods",
       .arguments = "",
       .summary = "the steering methods that the server can build with",
       .details = "",
       .flags = {},
       .run = Methods},
  };
}

}  // namespace trimtab
