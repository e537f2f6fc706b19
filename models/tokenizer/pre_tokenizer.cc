#include "models/tokenizer/pre_tokenizer.h"

#include <utility>

#include "models/tokenizer/normalizer.h"

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

absl::Status ApplySplit(const SplitStep& step, std::vector<Piece>& pieces) {
  absl::Status status;
  std::vector<Piece> out;
  std::vector<TextRange> matches;
  for (const Piece& piece : pieces) {
    matches.clear();
    status.Update(FindPattern(step.pattern, piece.text, matches));
    for (const TextRange& kept : Apply(step.behavior, Sections(piece.text, matches, step.invert))) {
      if (kept.begin >= kept.end) continue;
      Piece& part = out.emplace_back(piece);
      part.text = piece.text.substr(kept.begin, kept.end - kept.begin);
      part.begin = piece.begin + kept.begin;
    }
  }
  pieces = std::move(out);
  return status;
}

// Lets `piece` refer to the text that `editor` made of it.
void Rewrite(TextEditor& editor, Piece& piece, PreTokenizer::Pieces& result) {
  if (editor.edits().empty()) return;
  auto& stored = result.storage.emplace_back();
  stored.text = editor.Finish();
  stored.edits = std::move(editor.edits());
  piece = {.text = stored.text, .begin = 0, .edits = &stored.edits, .edits_begin = piece.begin};
}

void AddPrefixSpaces(PreTokenizer::Pieces& result) {
  for (Piece& piece : result.pieces) {
    if (piece.text.front() == ' ') continue;
    TextEditor editor(piece.text);
    editor.Replace({0, 0}, " ");
    Rewrite(editor, piece, result);
  }
}

absl::Status ApplyMetaspace(const MetaspaceStep& step, bool is_start, PreTokenizer::Pieces& result) {
  for (Piece& piece : result.pieces) {
    TextEditor editor(piece.text);
    const bool may_prepend =
        step.scheme == PrependScheme::kAlways || (step.scheme == PrependScheme::kFirst && is_start && piece.begin == 0);
    if (may_prepend && piece.text.front() != ' ' && !piece.text.starts_with(step.replacement)) {
      editor.Replace({0, 0}, step.replacement);
    }
    for (size_t at = piece.text.find(' '); at != std::string_view::npos; at = piece.text.find(' ', at + 1)) {
      editor.Replace({at, at + 1}, step.replacement);
    }
    Rewrite(editor, piece, result);
  }
  if (!step.split) return absl::OkStatus();
  return ApplySplit({.pattern = step.replacement, .behavior = SplitBehavior::kMergedWithNext}, result.pieces);
}

}  // namespace

const char kGpt2Pattern[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

absl::Status PreTokenizer::Split(std::string_view text, bool is_start, Pieces& result) const {
  result.pieces.clear();
  result.storage.clear();
  if (text.empty()) return absl::OkStatus();
  result.pieces.push_back({.text = text});
  absl::Status status;
  for (const PreTokenizerStep& step : steps_) {
    if (const auto* split = std::get_if<SplitStep>(&step)) {
      status.Update(ApplySplit(*split, result.pieces));
    } else if (const auto* metaspace = std::get_if<MetaspaceStep>(&step)) {
      status.Update(ApplyMetaspace(*metaspace, is_start, result));
    } else {
      AddPrefixSpaces(result);
    }
  }
  return status;
}

}  // namespace trimtab
