#include "tools/study/arms.h"

#include <algorithm>
#include <initializer_list>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace trimtab {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kMasking = "masking";

// Reads the fields of one object and collects what is wrong with it.
class Reader {
 public:
  Reader(const Json& object, std::string where, std::vector<std::string>& errors)
      : object_(object), where_(std::move(where)), errors_(errors) {
    if (!object.is_object()) Fail("must be an object");
  }
  ~Reader() {
    if (!object_.is_object()) return;
    for (const auto& [name, value] : object_.items()) {
      if (known_.count(name) == 0) Fail(absl::StrCat("has an unknown field \"", name, "\""));
    }
  }

  template <typename T>
  void Read(const char* name, T& value, bool required = false) {
    known_.insert(name);
    if (!object_.is_object()) return;
    if (!object_.contains(name)) {
      if (required) Fail(absl::StrCat("needs \"", name, "\""));
      return;
    }
    try {
      value = object_.at(name).get<T>();
    } catch (const Json::exception&) {
      Fail(absl::StrCat("has a \"", name, "\" of the wrong type"));
    }
  }
  // The elements of a list, each with its place.
  std::vector<std::pair<std::string, Json>> List(const char* name, bool required = false) {
    Json list = Json::array();
    Read(name, list, required);
    std::vector<std::pair<std::string, Json>> elements;
    if (!list.is_array()) {
      Fail(absl::StrCat("has a \"", name, "\" that is no list"));
      return elements;
    }
    for (size_t i = 0; i < list.size(); ++i) elements.emplace_back(absl::StrCat(name, "[", i, "]"), list[i]);
    return elements;
  }
  void Fail(const std::string& what) { errors_.push_back(absl::StrCat(where_, " ", what)); }

 private:
  const Json& object_;
  const std::string where_;
  std::vector<std::string>& errors_;
  std::set<std::string> known_;
};

}  // namespace

absl::StatusOr<ArmList> ParseArms(std::string_view text) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return absl::InvalidArgumentError("the list of arms is not JSON");
  std::vector<std::string> errors;
  ArmList list;
  std::set<std::string> groups, names;
  {
    Reader whole(json, "the list", errors);
    for (const auto& [where, entry] : whole.List("groups")) {
      ArmGroup group;
      Reader reader(entry, where, errors);
      reader.Read("id", group.id, true);
      reader.Read("title", group.title, true);
      reader.Read("x_title", group.x_title);
      reader.Read("logarithmic", group.logarithmic);
      if (!groups.insert(group.id).second) reader.Fail(absl::StrCat("is a second \"", group.id, "\""));
      list.groups.push_back(std::move(group));
    }
    for (const auto& [where, entry] : whole.List("masking")) {
      std::string name;
      Json config = Json::object();
      Reader reader(entry, where, errors);
      reader.Read("name", name, true);
      reader.Read("config", config);
      list.masking.emplace_back(std::move(name), std::move(config));
    }
    for (const auto& [where, entry] : whole.List("arms", true)) {
      Arm arm;
      arm.config = Json::object();
      Reader reader(entry, where, errors);
      reader.Read("name", arm.name, true);
      reader.Read("method", arm.method, true);
      reader.Read("config", arm.config);
      reader.Read("groups", arm.groups);
      reader.Read("depths", arm.depths);
      reader.Read("x", arm.x);
      reader.Read("curve", arm.curve);
      if (!names.insert(arm.name).second) reader.Fail(absl::StrCat("is a second \"", arm.name, "\""));
      if (!arm.config.is_object()) reader.Fail("has a \"config\" that is no object");
      for (const std::string& group : arm.groups) {
        if (groups.count(group) == 0) reader.Fail(absl::StrCat("is in an unknown group \"", group, "\""));
      }
      if (std::any_of(arm.depths.begin(), arm.depths.end(), [](double d) { return !(d >= 0 && d < 1); })) {
        reader.Fail("has a depth that is not from 0 to below 1");
      }
      list.arms.push_back(std::move(arm));
    }
    if (list.arms.empty() && errors.empty()) whole.Fail("has no arms");
  }
  if (!errors.empty()) return absl::InvalidArgumentError(absl::StrJoin(errors, "\n"));
  return list;
}

absl::StatusOr<ArmList> SelectGroups(const ArmList& list, const std::vector<std::string>& ids) {
  ArmList selected;
  const auto wanted = [&](const std::string& id) { return std::find(ids.begin(), ids.end(), id) != ids.end(); };
  std::vector<std::string> known = {std::string(kMasking)};
  for (const ArmGroup& group : list.groups) {
    known.push_back(group.id);
    if (wanted(group.id)) selected.groups.push_back(group);
  }
  for (const std::string& id : ids) {
    if (std::find(known.begin(), known.end(), id) == known.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("there is no group \"", id, "\"; there are ", absl::StrJoin(known, ", ")));
    }
  }
  for (const Arm& arm : list.arms) {
    if (std::any_of(arm.groups.begin(), arm.groups.end(), wanted)) selected.arms.push_back(arm);
  }
  if (wanted(std::string(kMasking))) selected.masking = list.masking;
  return selected;
}

}  // namespace trimtab
