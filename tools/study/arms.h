// What a study compares: arms, read from a JSON file. No torch. Any thread.
#ifndef TRIMTAB_TOOLS_STUDY_ARMS_H_
#define TRIMTAB_TOOLS_STUDY_ARMS_H_

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace trimtab {

// Arms that stand together in a picture. With `x_title` they are points of a line over their `x`, else bars.
struct ArmGroup {
  std::string id;
  std::string title;
  std::string x_title;
  bool logarithmic = false;
};

// One way of fitting a vector.
struct Arm {
  std::string name;  // unique
  std::string method;
  nlohmann::json config;  // of the method, as an object; the study sets max_kl, seed and the split in its "fit"
  std::vector<std::string> groups;
  std::vector<double> depths;  // blocks to steer, as shares of the model's depth; empty: as the config says
  double x = 0;
  bool curve = false;  // measure gain and cost over strength too
};

struct ArmList {
  std::vector<ArmGroup> groups;
  std::vector<Arm> arms;
  // Configurations of "grains" whose attribution is put to the test of the paper's figure 3, by name.
  std::vector<std::pair<std::string, nlohmann::json>> masking;
};

// {"groups": [{"id", "title", "x_title"?, "logarithmic"?}], "masking": [{"name", "config"}],
//  "arms": [{"name", "method", "config"?, "groups"?, "depths"?, "x"?, "curve"?}]}
// INVALID_ARGUMENT names every mistake.
absl::StatusOr<ArmList> ParseArms(std::string_view json);

// Keeps what belongs to groups of these ids; "masking" stands for the list's `masking`. INVALID_ARGUMENT names the
// known ones.
absl::StatusOr<ArmList> SelectGroups(const ArmList& list, const std::vector<std::string>& ids);

}  // namespace trimtab

#endif  // TRIMTAB_TOOLS_STUDY_ARMS_H_
