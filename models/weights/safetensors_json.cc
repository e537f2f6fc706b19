#include "models/weights/safetensors_json.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "models/weights/file_error.h"

namespace trimtab {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxDimensions = 8;
constexpr int kMaxIndexDepth = 16;

// What both readers share: an error message and the refusal of what is not expected. The names of the methods and their
// results are nlohmann's SAX interface; false ends the parse.
class Reader {
 public:
  bool null() { return Unexpected("null"); }
  bool boolean(bool) { return Unexpected("a boolean"); }
  bool number_integer(Json::number_integer_t) { return Unexpected("a negative number"); }
  bool number_unsigned(Json::number_unsigned_t) { return Unexpected("a number"); }
  bool number_float(Json::number_float_t, const std::string&) { return Unexpected("a fraction or too large a number"); }
  bool string(std::string&) { return Unexpected("a string"); }
  bool binary(Json::binary_t&) { return Unexpected("binary data"); }
  bool start_array(size_t) { return Unexpected("an array"); }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) {
    return Fail(absl::StrCat("is not valid JSON at byte ", position));
  }

  absl::Status status() const { return absl::InvalidArgumentError(error_); }

 protected:
  bool Fail(std::string error) {
    error_ = std::move(error);
    return false;
  }
  // Where the reader stands, for messages.
  std::string where_;

 private:
  bool Unexpected(const char* what) { return Fail(absl::StrCat(where_, ": ", what, " is not expected here")); }

  std::string error_;
};

class HeaderReader : public Reader {
 public:
  HeaderReader() { where_ = "the header"; }

  bool number_unsigned(Json::number_unsigned_t number) {
    if (place_ == Place::kShape) {
      if (number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
        return Fail(absl::StrCat(where_, " has a dimension of size ", number));
      }
      if (entry_.shape.size() == kMaxDimensions) {
        return Fail(absl::StrCat(where_, " has more than ", kMaxDimensions, " dimensions"));
      }
      entry_.shape.push_back(static_cast<int64_t>(number));
      return true;
    }
    if (place_ == Place::kOffsets && offsets_ < 2) {
      (offsets_ == 0 ? entry_.begin : entry_.end) = number;
      ++offsets_;
      return true;
    }
    return Reader::number_unsigned(number);
  }

  bool string(std::string& text) {
    if (place_ == Place::kMetadata) return true;
    if (place_ != Place::kTensor || field_ != kDtype) return Reader::string(text);
    entry_.dtype = std::move(text);
    field_ = kNone;
    return true;
  }

  bool start_object(size_t) {
    switch (place_) {
      case Place::kStart:
        place_ = Place::kTop;
        return true;
      case Place::kTop:
        place_ = is_metadata_ ? Place::kMetadata : Place::kTensor;
        return true;
      default:
        return Fail(absl::StrCat(where_, ": an object is not expected here"));
    }
  }

  bool key(std::string& name) {
    if (place_ == Place::kMetadata) return true;
    if (place_ == Place::kTop) return StartEntry(name);
    const uint32_t field = name == "dtype"          ? kDtype
                           : name == "shape"        ? kShape
                           : name == "data_offsets" ? kOffsets
                                                    : kNone;
    if (field == kNone) return Fail(absl::StrCat(where_, " has an unknown field ", QuoteName(name)));
    if ((seen_ & field) != 0) return Fail(absl::StrCat(where_, " has the field ", QuoteName(name), " twice"));
    seen_ |= field;
    field_ = field;
    return true;
  }

  bool start_array(size_t size) {
    if (place_ != Place::kTensor || (field_ != kShape && field_ != kOffsets)) return Reader::start_array(size);
    place_ = field_ == kShape ? Place::kShape : Place::kOffsets;
    return true;
  }

  bool end_array() {
    if (place_ == Place::kOffsets && offsets_ != 2) return Fail(absl::StrCat(where_, " needs two data_offsets"));
    place_ = Place::kTensor;
    field_ = kNone;
    return true;
  }

  bool end_object() {
    if (place_ == Place::kTensor) {
      if (seen_ != (kDtype | kShape | kOffsets)) {
        return Fail(absl::StrCat(where_, " lacks one of dtype, shape and data_offsets"));
      }
      if (entry_.begin > entry_.end) return Fail(absl::StrCat(where_, " ends before it begins"));
      entries_.push_back(std::move(entry_));
    }
    place_ = place_ == Place::kTop ? Place::kEnd : Place::kTop;
    return true;
  }

  std::vector<SafetensorsEntry> TakeEntries() { return std::move(entries_); }

 private:
  enum class Place { kStart, kTop, kMetadata, kTensor, kShape, kOffsets, kEnd };
  enum Field : uint32_t { kNone = 0, kDtype = 1, kShape = 2, kOffsets = 4 };

  bool StartEntry(const std::string& name) {
    is_metadata_ = name == "__metadata__";
    where_ = is_metadata_ ? "the header's __metadata__" : absl::StrCat("tensor ", QuoteName(name));
    if (!names_.insert(name).second) return Fail(absl::StrCat(where_, " occurs twice"));
    entry_ = SafetensorsEntry{.name = name};
    seen_ = kNone;
    field_ = kNone;
    offsets_ = 0;
    return true;
  }

  Place place_ = Place::kStart;
  bool is_metadata_ = false;
  SafetensorsEntry entry_;  // being read
  uint32_t seen_ = kNone;   // fields of entry_
  uint32_t field_ = kNone;  // whose value comes next
  int offsets_ = 0;         // numbers read of data_offsets
  absl::flat_hash_set<std::string> names_;
  std::vector<SafetensorsEntry> entries_;
};

// {"metadata": anything, "weight_map": {name: file}}; other keys at the top are ignored.
class IndexReader : public Reader {
 public:
  IndexReader() { where_ = "the index"; }

  bool null() { return InMap() ? Reader::null() : true; }
  bool boolean(bool value) { return InMap() ? Reader::boolean(value) : true; }
  bool number_integer(Json::number_integer_t value) { return InMap() ? Reader::number_integer(value) : true; }
  bool number_unsigned(Json::number_unsigned_t value) { return InMap() ? Reader::number_unsigned(value) : true; }
  bool number_float(Json::number_float_t value, const std::string& text) {
    return InMap() ? Reader::number_float(value, text) : true;
  }
  bool string(std::string& text) {
    if (!InMap()) return true;
    if (depth_ != 2) return Reader::string(text);
    map_[name_] = std::move(text);
    return true;
  }
  bool key(std::string& name) {
    if (depth_ == 1) {
      in_weight_map_ = name == "weight_map";
      if (in_weight_map_ && std::exchange(has_weight_map_, true)) return Fail("the index has two weight maps");
    } else if (InMap()) {
      where_ = absl::StrCat("tensor ", QuoteName(name), " in the index");
      if (map_.contains(name)) return Fail(absl::StrCat(where_, " occurs twice"));
      name_ = std::move(name);
    }
    return true;
  }
  bool start_object(size_t) { return Open(/*is_object=*/true); }
  bool end_object() { return Close(); }
  bool start_array(size_t) { return Open(/*is_object=*/false); }
  bool end_array() { return Close(); }

  bool has_weight_map() const { return has_weight_map_; }
  std::map<std::string, std::string> TakeMap() { return std::move(map_); }

 private:
  // At or below the value of "weight_map".
  bool InMap() const { return depth_ > 0 && in_weight_map_; }
  bool Open(bool is_object) {
    const bool allowed = depth_ == 0 ? is_object : !InMap() || (depth_ == 1 && is_object);
    if (!allowed) return Fail(absl::StrCat(where_, ": an object or array is not expected here"));
    if (++depth_ > kMaxIndexDepth) return Fail("the index is nested too deeply");
    return true;
  }
  bool Close() {
    if (--depth_ == 1) in_weight_map_ = false;
    return true;
  }

  int depth_ = 0;
  bool in_weight_map_ = false;
  bool has_weight_map_ = false;
  std::string name_;  // of the tensor whose file comes next
  std::map<std::string, std::string> map_;
};

}  // namespace

absl::StatusOr<std::vector<SafetensorsEntry>> ReadSafetensorsHeader(std::string_view json) {
  HeaderReader reader;
  if (!Json::sax_parse(json.begin(), json.end(), &reader)) return reader.status();
  return reader.TakeEntries();
}

absl::StatusOr<std::map<std::string, std::string>> ReadSafetensorsIndex(std::string_view json) {
  IndexReader reader;
  if (!Json::sax_parse(json.begin(), json.end(), &reader)) return reader.status();
  if (!reader.has_weight_map()) return absl::InvalidArgumentError("the index has no weight_map");
  return reader.TakeMap();
}

}  // namespace trimtab
