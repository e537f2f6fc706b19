#include "tools/trimctl/watch.h"

#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "tools/trimctl/text.h"

namespace trimtab {
namespace {

using google::longrunning::Operation;

// How long the server holds one WaitOperation; the bar moves this often.
constexpr int kWaitMilliseconds = 300;

std::string PhaseText(v1::RegisterObjectiveMetadata::Phase phase) {
  switch (phase) {
    case v1::RegisterObjectiveMetadata::PHASE_QUEUED:
      return "waiting for a worker";
    case v1::RegisterObjectiveMetadata::PHASE_ATTRIBUTING:
      return "scoring the prompts' tokens";
    case v1::RegisterObjectiveMetadata::PHASE_MASKING:
      return "masking tokens, recording activations";
    case v1::RegisterObjectiveMetadata::PHASE_DECOMPOSING:
      return "extracting directions";
    case v1::RegisterObjectiveMetadata::PHASE_VALIDATING:
      return "choosing layer and strength";
    case v1::RegisterObjectiveMetadata::PHASE_PERSISTING:
      return "storing";
    case v1::RegisterObjectiveMetadata::PHASE_DRIFT:
      return "measuring drift";
    default:
      return "working";
  }
}

std::string PhaseText(v1::EvaluateDriftMetadata::Phase phase) {
  switch (phase) {
    case v1::EvaluateDriftMetadata::PHASE_QUEUED:
      return "waiting for a worker";
    case v1::EvaluateDriftMetadata::PHASE_SCORING:
      return "scoring questions and text";
    case v1::EvaluateDriftMetadata::PHASE_PERSISTING:
      return "storing";
    default:
      return "working";
  }
}

std::string PhaseText(v1::LoadModelMetadata::Phase phase) {
  switch (phase) {
    case v1::LoadModelMetadata::PHASE_QUEUED:
      return "waiting for a worker";
    case v1::LoadModelMetadata::PHASE_READING:
      return "reading the weights";
    case v1::LoadModelMetadata::PHASE_STARTING:
      return "starting the engine";
    default:
      return "working";
  }
}

std::string PhaseText(v1::UnloadModelMetadata::Phase phase) {
  switch (phase) {
    case v1::UnloadModelMetadata::PHASE_QUEUED:
      return "waiting for a worker";
    case v1::UnloadModelMetadata::PHASE_DRAINING:
      return "waiting for running calls to end";
    case v1::UnloadModelMetadata::PHASE_FREEING:
      return "freeing the memory";
    default:
      return "working";
  }
}

template <typename Metadata>
ProgressState ToState(const Metadata& metadata, int completed, int total) {
  ProgressState state{.phase = PhaseText(metadata.phase()),
                      .percent = metadata.completed_percent(),
                      .completed = completed,
                      .total = total};
  if (metadata.has_eta())
    state.eta_seconds = static_cast<double>(metadata.eta().seconds()) + 1e-9 * metadata.eta().nanos();
  return state;
}

template <typename Failures>
std::string Lines(const Failures& failures) {
  std::string text;
  for (const google::rpc::Status& failure : failures) absl::StrAppend(&text, "  ", Printable(failure.message()), "\n");
  return text;
}

}  // namespace

ProgressState GetProgress(const Operation& operation) {
  v1::RegisterObjectiveMetadata fit;
  if (operation.metadata().UnpackTo(&fit)) return ToState(fit, fit.completed_pairs(), fit.total_pairs());
  v1::EvaluateDriftMetadata drift;
  if (operation.metadata().UnpackTo(&drift)) return ToState(drift, drift.completed_items(), drift.total_items());
  v1::LoadModelMetadata load;
  if (operation.metadata().UnpackTo(&load)) {
    return {.phase = PhaseText(load.phase()), .percent = load.completed_percent()};
  }
  v1::EvaluateStrengthMetadata curve;
  if (operation.metadata().UnpackTo(&curve)) {
    ProgressState state{.phase = "measuring strengths", .percent = curve.completed_percent()};
    if (curve.has_eta()) state.eta_seconds = static_cast<double>(curve.eta().seconds()) + 1e-9 * curve.eta().nanos();
    return state;
  }
  v1::UnloadModelMetadata unload;
  if (operation.metadata().UnpackTo(&unload)) {
    return {.phase = PhaseText(unload.phase()), .percent = unload.completed_percent()};
  }
  return {.phase = "working"};
}

std::string FormatPartialFailures(const Operation& operation) {
  v1::RegisterObjectiveMetadata fit;
  if (operation.metadata().UnpackTo(&fit)) return Lines(fit.partial_failures());
  v1::EvaluateDriftMetadata drift;
  if (operation.metadata().UnpackTo(&drift)) return Lines(drift.partial_failures());
  v1::EvaluateStrengthMetadata curve;
  if (operation.metadata().UnpackTo(&curve)) return Lines(curve.partial_failures());
  return "";
}

absl::StatusOr<Operation> Watch(Client& client, const std::string& name, ProgressBar& bar) {
  google::longrunning::WaitOperationRequest request;
  request.set_name(name);
  request.mutable_timeout()->set_nanos(kWaitMilliseconds * 1'000'000);
  while (true) {
    TRIMTAB_ASSIGN_OR_RETURN(
        const Operation operation,
        client.Call(client.operations(), &google::longrunning::Operations::Stub::WaitOperation, request));
    bar.Update(GetProgress(operation));
    if (operation.done()) return operation;
  }
}

}  // namespace trimtab
