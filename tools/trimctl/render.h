// Resources of the API as text for people. Texts of the server and of models go through Printable. Pure functions; any
// thread.
#ifndef TRIMTAB_TOOLS_TRIMCTL_RENDER_H_
#define TRIMTAB_TOOLS_TRIMCTL_RENDER_H_

#include <string>
#include <vector>

#include "google/longrunning/operations.pb.h"
#include "trimtab/v1/drift.pb.h"
#include "trimtab/v1/generation.pb.h"
#include "trimtab/v1/model.pb.h"
#include "trimtab/v1/objective.pb.h"

namespace trimtab {

// "+0.041 [+0.012, +0.070]": a gain with its 95 % interval, nats per token.
std::string FormatGain(const v1::EffectSummary& effect);

// One row for each objective.
std::string RenderObjectives(const std::vector<v1::Objective>& objectives, bool color);

// All about one objective; `revisions` are listed below it.
std::string RenderObjective(const v1::Objective& objective, const std::vector<v1::RevisionSummary>& revisions,
                            bool color);

// What fitting a revision found: layers, strength, effect, control, cost, warnings.
std::string RenderRevision(const v1::RevisionSummary& revision, bool color);

// Effect and cost over strengths, the recommended one and the validated range marked.
std::string RenderCurve(const v1::StrengthCurve& curve, bool color);

// What `method: auto` tried and why it chose; empty for other fits.
std::string RenderTrials(const v1::RevisionSummary& revision, bool color);

// What a validation found about pairs.
std::string RenderPairsReport(const v1::PairsReport& report, bool color);

std::string RenderMethods(const std::vector<v1::SteeringMethod>& methods, bool color);
std::string RenderModels(const std::vector<v1::Model>& models, bool color);
std::string RenderOperations(const std::vector<google::longrunning::Operation>& operations, bool color);

// A drift report: the divergences first, because small models answer the questions no better than by chance.
std::string RenderDriftReport(const v1::DriftReport& report, bool color);
std::string RenderDriftReports(const std::vector<v1::DriftReport>& reports, bool color);

// "cheerful@1 = 0.05": what was asked for or measured.
std::string FormatSteering(const google::protobuf::RepeatedPtrField<v1::SteeringSelection>& steering);

// What steered an answer, one line for each objective, and the answer's tokens and times.
std::string RenderApplied(const google::protobuf::RepeatedPtrField<v1::AppliedSteering>& applied);
std::string RenderStats(const v1::GenerateResponse& last);

std::string RenderScores(const std::vector<std::string>& continuations, const v1::ScoreResponse& response, bool color);

}  // namespace trimtab

#endif  // TRIMTAB_TOOLS_TRIMCTL_RENDER_H_
