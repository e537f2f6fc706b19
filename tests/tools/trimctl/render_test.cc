#include "tools/trimctl/render.h"

#include <gtest/gtest.h>

#include <string>

#include "tools/trimctl/watch.h"

namespace trimtab {
namespace {

v1::RevisionSummary MakeRevision() {
  v1::RevisionSummary revision;
  revision.set_revision(2);
  revision.set_method("grains");
  revision.set_pair_count(50);
  revision.set_recommended_strength(0.05f);
  revision.set_max_strength(0.5f);
  revision.set_kl_at_recommended(0.0668);
  v1::EffectSummary& effect = *revision.mutable_held_out();
  effect.set_pair_count(43);
  effect.set_margin_gain(0.041);
  effect.set_ci95_low(0.012);
  effect.set_ci95_high(0.07);
  effect.set_accuracy_before(0.5);
  effect.set_accuracy_after(0.75);
  revision.mutable_random_control()->set_directions(20);
  revision.mutable_random_control()->set_mean_margin_gain(-0.001);
  revision.add_layers()->set_layer(15);
  revision.add_warnings("Only \033[31mfew pairs.");
  return revision;
}

bool Has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST(Render, RevisionShowsEffectControlCostAndWarnings) {
  const std::string text = RenderRevision(MakeRevision(), false);
  EXPECT_TRUE(Has(text, "2, fitted by grains on 50 pairs")) << text;
  EXPECT_TRUE(Has(text, "0.05 (largest allowed 0.5)")) << text;
  EXPECT_TRUE(Has(text, "+0.041 [+0.012, +0.070] nats per token on 43 pairs")) << text;
  EXPECT_TRUE(Has(text, "50 % -> 75 % of these pairs")) << text;
  EXPECT_TRUE(Has(text, "-0.001 on average")) << text;
  EXPECT_TRUE(Has(text, "KL 0.0668")) << text;
  EXPECT_TRUE(Has(text, "warning: Only \uFFFD[31mfew pairs.")) << text;
  EXPECT_FALSE(Has(text, "validation gain")) << text;
  EXPECT_FALSE(Has(text, "\033")) << text;
}

v1::StrengthCurve MakeCurve() {
  v1::StrengthCurve curve;
  curve.set_revision("models/m/objectives/calm/revisions/2");
  curve.set_pair_count(43);
  curve.set_pairs_source("held_out");
  curve.set_max_kl(0.2);
  curve.set_recommended_strength(0.05f);
  curve.set_validated_low(0.025f);
  curve.set_validated_high(0.05f);
  for (const float strength : {-0.05f, 0.0f, 0.025f, 0.05f, 0.1f}) {
    v1::CurvePoint& point = *curve.add_points();
    point.set_strength(strength);
    point.mutable_effect()->set_margin_gain(strength);
    point.mutable_effect()->set_accuracy_after(0.5 + strength);
    point.set_kl_text(40 * strength * strength);
    point.set_cross_entropy_change(20 * strength * strength);
    point.set_repetition(0.125);
  }
  return curve;
}

TEST(Render, AnImportedRevisionSaysWhereItComesFrom) {
  v1::RevisionSummary revision;
  revision.set_revision(2);
  revision.set_method("control_vector");
  revision.set_imported_from("\"calm.gguf\", model hint \"llama\"\033[2J");
  const std::string text = RenderRevision(revision, false);
  EXPECT_NE(text.find("2, of the method control_vector\n"), std::string::npos) << text;
  EXPECT_NE(text.find("\"calm.gguf\", model hint \"llama\""), std::string::npos) << text;
  EXPECT_EQ(text.find("fitted"), std::string::npos) << text;
  EXPECT_EQ(text.find("neutral text"), std::string::npos) << text;  // nobody has measured it
  EXPECT_EQ(text.find('\033'), std::string::npos) << text;
}

TEST(Render, ACurveMarksWhatIsRecommendedAndValidated) {
  v1::RevisionSummary revision = MakeRevision();
  *revision.mutable_curve() = MakeCurve();
  std::string text = RenderRevision(revision, false);
  EXPECT_TRUE(Has(text, "43 held-out pairs")) << text;
  EXPECT_TRUE(Has(text, "0.025 to 0.05")) << text;
  EXPECT_TRUE(Has(text, "not steered")) << text;
  EXPECT_TRUE(Has(text, "12 %  validated")) << text;
  EXPECT_TRUE(Has(text, "<- recommended")) << text;
  EXPECT_TRUE(Has(text, "costs more than the budget")) << text;
  revision.mutable_curve()->set_recommended_strength(0);
  revision.mutable_curve()->set_pairs_source("training");
  text = RenderCurve(revision.curve(), false);
  EXPECT_TRUE(Has(text, "none: no measured strength")) << text;
  EXPECT_TRUE(Has(text, "better than it is")) << text;
  EXPECT_FALSE(Has(text, "validated")) << text;
  for (v1::CurvePoint& point : *revision.mutable_curve()->mutable_points()) point.set_kl_text(0);
  text = RenderCurve(revision.curve(), false);
  EXPECT_TRUE(Has(text, "not measured, the server has none")) << text;
}

TEST(Render, TrialsOfMethodsSayWhichWasChosenAndWhy) {
  v1::RevisionSummary revision = MakeRevision();
  v1::MethodTrial& chosen = *revision.add_trials();
  chosen.set_method("caa");
  chosen.set_strength(0.04f);
  chosen.mutable_validation()->set_margin_gain(0.2);
  chosen.set_chosen(true);
  v1::MethodTrial& failed = *revision.add_trials();
  failed.set_method("iti");
  failed.set_error("no heads");
  revision.set_choice("caa gains the most.");
  const std::string text = RenderRevision(revision, false);
  EXPECT_TRUE(Has(text, "+0.200")) << text;
  EXPECT_TRUE(Has(text, "<- chosen")) << text;
  EXPECT_TRUE(Has(text, "no heads")) << text;
  EXPECT_TRUE(Has(text, "caa gains the most.")) << text;
  EXPECT_EQ(RenderTrials(MakeRevision(), false), "");
}

TEST(Render, APairsReportSaysWhatToLookAt) {
  v1::PairsReport report;
  report.set_pair_count(50);
  report.set_usable_pair_count(48);
  report.mutable_estimated_fit_time()->set_seconds(90);
  report.set_estimate_source("earlier fits");
  v1::PairsFinding& finding = *report.add_findings();
  finding.set_count(12);
  finding.add_pair_indices(3);
  finding.add_pair_indices(9);
  finding.set_message("12 pairs repeat an earlier one");
  const std::string text = RenderPairsReport(report, false);
  EXPECT_TRUE(Has(text, "50, 48 can be used")) << text;
  EXPECT_TRUE(Has(text, "about 1 min 30 s, judged by earlier fits")) << text;
  EXPECT_TRUE(Has(text, "look: 12 pairs repeat an earlier one (pairs 3, 9, ... counted from 0)")) << text;
  EXPECT_FALSE(Has(text, "held out")) << text;
}

TEST(Render, ObjectivesShowTheStrengthThatWillBeUsed) {
  v1::Objective objective;
  objective.set_name("models/m/objectives/calm");
  objective.set_state(v1::Objective::STATE_ACTIVE);
  *objective.mutable_active() = MakeRevision();
  EXPECT_TRUE(Has(RenderObjectives({objective}, false), "0.05  +0.041 [+0.012, +0.070]"));
  objective.set_default_strength(0.25f);
  EXPECT_TRUE(Has(RenderObjectives({objective}, false), "0.25  +0.041 [+0.012, +0.070]"));
  v1::Objective creating;
  creating.set_name("models/m/objectives/new");
  creating.set_state(v1::Objective::STATE_CREATING);
  creating.set_operation("operations/fit-1");
  EXPECT_TRUE(Has(RenderObjectives({objective, creating}, false), "new   CREATING"));
  EXPECT_TRUE(Has(RenderObjective(creating, {}, false), "CREATING, by operations/fit-1"));
  objective.set_operation("operations/refit-1");
  EXPECT_TRUE(Has(RenderObjective(objective, {}, false), "ACTIVE, being refitted by operations/refit-1"));
  EXPECT_TRUE(Has(RenderObjectives({}, false), "no objectives"));
}

TEST(Render, AFailedObjectiveSaysWhy) {
  v1::Objective objective;
  objective.set_state(v1::Objective::STATE_FAILED);
  objective.mutable_error()->set_code(3);
  objective.mutable_error()->set_message("no signal");
  EXPECT_TRUE(Has(RenderObjective(objective, {}, false), "failed: no signal"));
}

TEST(Render, SteeringNamesRevisionsShortly) {
  v1::DriftReport report;
  v1::SteeringSelection& selection = *report.add_steering();
  selection.set_objective("models/m/objectives/calm/revisions/3");
  selection.set_strength(0.3f);
  report.add_steering()->set_objective("models/m/objectives/kind");
  EXPECT_EQ(FormatSteering(report.steering()), "calm@3 = 0.3, kind");
}

TEST(Render, DriftReportPutsDivergencesBesideAccuracy) {
  v1::DriftReport report;
  report.set_suite("probe");
  report.set_items(120);
  report.set_baseline_accuracy(0.25);
  report.set_accuracy(0.275);
  report.set_accuracy_delta(0.025);
  report.set_mean_kl_text(0.0472);
  report.set_text_tokens(2048);
  report.set_baseline_cross_entropy(3.5);
  report.set_cross_entropy_delta(0.05);
  report.add_warnings("no better than by chance");
  const std::string text = RenderDriftReport(report, false);
  EXPECT_TRUE(Has(text, "3.5000   3.5500  +0.0500")) << text;
  EXPECT_TRUE(Has(text, "0.0472 nats per token")) << text;
  EXPECT_TRUE(Has(text, "25.0 %")) << text;
  EXPECT_TRUE(Has(text, "warning: no better than by chance\n")) << text;
}

TEST(Render, OperationsShowProgressAndErrors) {
  google::longrunning::Operation running;
  running.set_name("operations/a");
  v1::RegisterObjectiveMetadata metadata;
  metadata.set_objective("models/m/objectives/calm");
  metadata.set_phase(v1::RegisterObjectiveMetadata::PHASE_MASKING);
  metadata.set_completed_percent(42);
  metadata.set_completed_pairs(3);
  metadata.set_total_pairs(9);
  metadata.mutable_eta()->set_seconds(7);
  metadata.add_partial_failures()->set_message("pair 4: too long");
  running.mutable_metadata()->PackFrom(metadata);
  const ProgressState expected{
      .phase = "masking tokens, recording activations", .percent = 42, .completed = 3, .total = 9, .eta_seconds = 7};
  EXPECT_EQ(GetProgress(running), expected);
  EXPECT_EQ(FormatPartialFailures(running), "  pair 4: too long\n");
  google::longrunning::Operation failed;
  failed.set_done(true);
  failed.mutable_error()->set_code(3);
  failed.mutable_error()->set_message("no signal");
  const std::string text = RenderOperations({running, failed}, false);
  EXPECT_TRUE(Has(text, "operations/a  register  42 %    calm    masking")) << text;
  EXPECT_TRUE(Has(text, "FAILED")) << text;
  EXPECT_TRUE(Has(text, "no signal")) << text;
}

TEST(Render, ModelsThatComeAndGo) {
  EXPECT_TRUE(Has(RenderModels({}, false), "No model"));
  v1::Model ready;
  ready.set_name("models/small");
  ready.set_state(v1::Model::STATE_READY);
  ready.set_architecture("llama");
  v1::Model failed;
  failed.set_name("models/big");
  failed.set_state(v1::Model::STATE_FAILED);
  failed.set_path("big.gguf");
  failed.mutable_error()->set_message("it needs 9 GiB");
  const std::string text = RenderModels({ready, failed}, false);
  EXPECT_TRUE(Has(text, "small  READY")) << text;
  EXPECT_TRUE(Has(text, "big    FAILED")) << text;
  EXPECT_TRUE(Has(text, "big could not be loaded from big.gguf: it needs 9 GiB\n")) << text;

  google::longrunning::Operation load;
  load.set_name("operations/a");
  v1::LoadModelMetadata loading;
  loading.set_model("models/big");
  loading.set_phase(v1::LoadModelMetadata::PHASE_READING);
  loading.set_completed_percent(5);
  load.mutable_metadata()->PackFrom(loading);
  EXPECT_EQ(GetProgress(load), (ProgressState{.phase = "reading the weights", .percent = 5}));
  google::longrunning::Operation unload;
  v1::UnloadModelMetadata unloading;
  unloading.set_model("models/small");
  unloading.set_phase(v1::UnloadModelMetadata::PHASE_DRAINING);
  unload.mutable_metadata()->PackFrom(unloading);
  EXPECT_EQ(GetProgress(unload).phase, "waiting for running calls to end");
  const std::string operations = RenderOperations({load, unload}, false);
  EXPECT_TRUE(Has(operations, "operations/a  load      5 %  big     reading the weights")) << operations;
  EXPECT_TRUE(Has(operations, "unload    0 %  small   waiting for running calls")) << operations;
}

TEST(Render, StatsSayWhatWasAppliedAndHowFastItWas) {
  v1::GenerateResponse last;
  v1::AppliedSteering& applied = *last.add_applied();
  applied.set_objective("models/m/objectives/calm");
  applied.set_revision(1);
  applied.set_strength(0.1f);
  applied.set_steered_tokens(20);
  EXPECT_TRUE(Has(RenderApplied(last.applied()), "steered by calm@1 at 0.1: 20 tokens"));
  last.set_finish_reason(v1::FINISH_REASON_STOP);
  last.mutable_usage()->set_prompt_tokens(31);
  last.mutable_usage()->set_cached_prompt_tokens(16);
  last.mutable_usage()->set_output_tokens(21);
  last.mutable_timing()->mutable_decode()->set_seconds(2);
  EXPECT_EQ(RenderStats(last),
            "31 prompt tokens (16 from the cache), 21 generated, then 10.0 tokens/s; ended by STOP\n");
}

TEST(Render, ScoresCountTokens) {
  v1::ScoreResponse response;
  v1::ContinuationScore& score = *response.add_scores();
  score.set_log_likelihood(-3);
  score.set_token_count(2);
  score.set_is_greedy(true);
  EXPECT_TRUE(Has(RenderScores({" Paris"}, response, false), "-3.0000    -1.5000       2  yes      Paris"));
}

}  // namespace
}  // namespace trimtab
