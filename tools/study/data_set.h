// A set of pairs, cut into training, validation and test pairs. No torch. Any thread.
#ifndef TRIMTAB_TOOLS_STUDY_DATA_SET_H_
#define TRIMTAB_TOOLS_STUDY_DATA_SET_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "steering/preference.h"

namespace trimtab {

struct SplitSizes {
  int64_t training = 50, validation = 20, test = 60;
};

struct DataSet {
  std::string name;
  std::vector<PreferencePair> pairs;  // to fit on: training and validation pairs, which the fit deals by its seed
  std::vector<PreferencePair> test;
};

// Reads `spec`: the path of a pairs file (tools/trimctl/pairs_file.h), or several, joined with "+". The name is that of
// the first file up to its first dot. Pairs are shuffled by `seed`; the test pairs are dealt first, so that a fit on
// fewer pairs is tested on the same ones. A pair that occurs twice counts once.
// NOT_FOUND, INVALID_ARGUMENT with lines; FAILED_PRECONDITION when the pairs are not enough for all parts.
absl::StatusOr<DataSet> ReadDataSet(const std::string& spec, const SplitSizes& sizes, uint64_t seed);

}  // namespace trimtab

#endif  // TRIMTAB_TOOLS_STUDY_DATA_SET_H_
