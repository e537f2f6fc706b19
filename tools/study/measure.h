// Measurements of a steering vector on test pairs and neutral text. One thread.
#ifndef TRIMTAB_TOOLS_STUDY_MEASURE_H_
#define TRIMTAB_TOOLS_STUDY_MEASURE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "models/loaded_model.h"
#include "steering/model_probe.h"
#include "tools/study/continuations.h"
#include "tools/study/data_set.h"
#include "tools/study/results.h"

namespace trimtab {

struct StudyOptions {
  std::vector<double> budgets = {0.1, 0.4};  // nats per token, ascending
  int random_directions = 5;
  uint64_t seed = 1;
  SplitSizes split;
  int64_t continuations = 8, continuation_tokens = 48;
  int64_t masking_pairs = 20;  // test pairs of figure 3
};

// Two texts that have nothing to do with the pairs nor with each other, in chunks: one sets strengths, on the other the
// cost is measured.
struct NeutralTexts {
  std::vector<std::vector<TokenId>> setting, measuring;
};
// Every second chunk of `chunk_tokens` tokens of `text` for either, at most `tokens` tokens each. FAILED_PRECONDITION
// when it is shorter than one chunk each.
absl::StatusOr<NeutralTexts> SplitNeutralText(const Tokenizer& tokenizer, std::string_view text, int64_t chunk_tokens,
                                              int64_t tokens);

class Measurer {
 public:
  // Encodes the test pairs (one that is too long is left out) and measures the model without steering.
  static absl::StatusOr<std::unique_ptr<Measurer>> Create(const StudyOptions& options, const DataSet& data,
                                                          std::shared_ptr<const LoadedModel> model,
                                                          const NeutralTexts& texts, JobContext& job);

  // Without steering; no arms yet.
  const DataSetResult& baseline() const { return baseline_; }
  const std::vector<EncodedPair>& test() const { return test_; }
  ModelProbe& probe() { return probe_; }  // its neutral text is the one that sets strengths

  // At every budget. `first_strength` costs about `first_kl`.
  absl::StatusOr<std::vector<AtBudget>> AtBudgets(const std::shared_ptr<const SteeringVector>& vector,
                                                  double first_strength, double first_kl);
  // At multiples of `strength`, negative ones too.
  absl::StatusOr<std::vector<CurvePoint>> Curve(const std::shared_ptr<const SteeringVector>& vector, double strength);
  // Mean over the layers of the cosine of `vector` with the mean gradient of the margin of the pairs to fit.
  absl::StatusOr<double> CosineToMarginGradient(const SteeringVector& vector);

 private:
  struct Calibrated {
    double strength = 0, kl = 0;
    bool reached = false;
  };
  // Gains of random directions at every budget.
  struct RandomGains {
    std::vector<std::vector<double>> by_pair;  // [budget][pair]: mean over the directions
    std::vector<double> best;                  // [budget]: of the direction that gains most
  };

  Measurer(const StudyOptions& options, const DataSet& data, std::shared_ptr<const LoadedModel> model,
           const NeutralTexts& texts, JobContext& job);
  absl::Status MeasureBaseline(const std::vector<std::vector<TokenId>>& measuring);
  absl::StatusOr<Calibrated> Calibrate(const std::shared_ptr<const SteeringVector>& vector, double budget,
                                       double first_strength);
  // [setting][pair]: margins of the test pairs.
  absl::StatusOr<std::vector<std::vector<double>>> Margins(const std::vector<SteeringSetting>& settings);
  // [setting][chunk]: cross-entropy of the text that measures.
  absl::StatusOr<std::vector<std::vector<double>>> CrossEntropies(std::vector<SteeringSetting> settings);
  absl::StatusOr<double> Repeated(const SteeringSetting& setting);
  absl::StatusOr<RandomGains> Random(const SteeringVectorSpec& shape, const std::vector<double>& first_strengths);

  const StudyOptions options_;
  const DataSet& data_;
  const std::shared_ptr<const LoadedModel> model_;
  JobContext& job_;
  const std::string text_key_;  // tells neutral texts apart
  ModelProbe probe_, measuring_probe_;
  std::vector<EncodedPair> test_, text_;  // text_: chunks as answers to their first tokens
  std::unique_ptr<Continuations> continuations_;
  DataSetResult baseline_;
  std::vector<double> margins_;                               // of test_, not steered
  std::vector<double> cross_entropies_;                       // of text_, not steered
  std::map<std::pair<Site, int64_t>, at::Tensor> gradients_;  // by site and layer [hidden]
};

}  // namespace trimtab

#endif  // TRIMTAB_TOOLS_STUDY_MEASURE_H_
