#include "models/tokenizer/pre_tokenizer.h"

#include <utility>

namespace trimtab {
namespace {

struct Section {
  TextRange range;
  bool is_match;
};

// Matches and what lies between them, in order, without gaps.
std::vector<Section> Sections(std::string_view text, const std::vector<TextRange>& matches, bool invert) {
  std::vector<Section> sections;
  size_t position = 0;
  for (const TextRange& match : matches) {
    if (match.begin > position) sections.push_back({{position, match.begin}, invert});
    sections.push_back({match, !invert});
    position = match.end;
  }
  if (position < text.size()) sections.push_back({{position, text.size()}, invert});
  return sections;
}

std::vector<TextRange> Apply(SplitBehavior behavior, const std::vector<Section>& sections) {
  std::vector<TextRange> kept;
  switch (behavior) {
    case SplitBehavior::kIsolated:
      for (const Section& section : sections) kept.push_back(section.range);
      break;
    case SplitBehavior::kRemoved:
      for (const Section& section : sections) {
        if (!section.is_match) kept.push_back(section.range);
      }
      break;
    case SplitBehavior::kContiguous:
      for (size_t i = 0; i < sections.size(); ++i) {
        if (i > 0 && sections[i].is_match == sections[i - 1].is_match) {
          kept.back().end = sections[i].range.end;
        } else {
          kept.push_back(sections[i].range);
        }
      }
      break;
    case SplitBehavior::kMergedWithPrevious:
      for (size_t i = 0; i < sections.size(); ++i) {
        if (i > 0 && sections[i].is_match && !sections[i - 1].is_match) {
          kept.back().end = sections[i].range.end;
        } else {
          kept.push_back(sections[i].range);
        }
      }
      break;
    case SplitBehavior::kMergedWithNext:
      for (size_t i = 0; i < sections.size(); ++i) {
        if (i > 0 && sections[i - 1].is_match && !sections[i].is_match) {
          kept.back().end = sections[i].range.end;
        } else {
          kept.push_back(sections[i].range);
        }
      }
      break;
  }
  return kept;
}

absl::Status FindMatches(const SplitStep& step, std::string_view text, std::vector<TextRange>& matches) {
  if (const auto* regex = std::get_if<Regex>(&step.pattern)) return regex->FindAll(text, matches);
  const std::string& literal = std::get<std::string>(step.pattern);
  for (size_t at = text.find(literal); at != std::string_view::npos; at = text.find(literal, at + literal.size())) {
    matches.push_back({at, at + literal.size()});
  }
  return absl::OkStatus();
}

absl::Status ApplySplit(const SplitStep& step, std::vector<Piece>& pieces) {
  absl::Status status;
  std::vector<Piece> out;
  std::vector<TextRange> matches;
  for (const Piece& piece : pieces) {
    matches.clear();
    status.Update(FindMatches(step, piece.text, matches));
    for (const TextRange& kept : Apply(step.behavior, Sections(piece.text, matches, step.invert))) {
      if (kept.begin >= kept.end) continue;
      // Positions behind a prefix space are one off; the space itself stands for no byte of the text.
      const size_t shift = piece.has_prefix_space ? 1 : 0;
      const auto original = [&](size_t at) { return piece.range.begin + (at > shift ? at - shift : 0); };
      out.push_back({.text = piece.text.substr(kept.begin, kept.end - kept.begin),
                     .range = {original(kept.begin), original(kept.end)},
                     .has_prefix_space = shift > 0 && kept.begin == 0});
    }
  }
  pieces = std::move(out);
  return status;
}

void AddPrefixSpaces(PreTokenizer::Pieces& result) {
  for (Piece& piece : result.pieces) {
    if (piece.text.front() == ' ') continue;
    std::string& stored = result.storage.emplace_back(" ");
    stored += piece.text;
    piece.text = stored;
    piece.has_prefix_space = true;
  }
}

}  // namespace

const char kGpt2Pattern[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

absl::Status PreTokenizer::Split(std::string_view text, Pieces& result) const {
  result.pieces.clear();
  result.storage.clear();
  if (text.empty()) return absl::OkStatus();
  result.pieces.push_back({.text = text, .range = {0, text.size()}});
  absl::Status status;
  for (const PreTokenizerStep& step : steps_) {
    if (const auto* split = std::get_if<SplitStep>(&step)) {
      status.Update(ApplySplit(*split, result.pieces));
    } else {
      AddPrefixSpaces(result);
    }
  }
  return status;
}

}  // namespace trimtab
