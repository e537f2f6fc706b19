// tokenize VOCABULARY RECORDS OUTPUT: what the tokenizer makes of many texts, for tests/golden/check_tokenizers.py.
// VOCABULARY is a GGUF file or a tokenizer.json. RECORDS holds texts, each after its length (32 bits, little-endian);
// OUTPUT for each text the number of tokens, the tokens, and their text with and without control tokens, each after its
// length. Prints the time to load, the memory that took and the speed of encoding.
#include <malloc.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>

#include "models/tokenizer/gguf_vocabulary.h"
#include "models/tokenizer/tokenizer.h"
#include "tests/models/tokenizer/vocabularies.h"

namespace trimtab {
namespace {

using Clock = std::chrono::steady_clock;

double Seconds(Clock::time_point since) { return std::chrono::duration<double>(Clock::now() - since).count(); }

absl::StatusOr<std::shared_ptr<const Tokenizer>> Load(const std::string& path) {
  if (path.ends_with(".json")) return Tokenizer::FromHuggingFaceJson(ReadTestFile(path));
  auto file = GgufFile::Open(path);
  if (!file.ok()) return file.status();
  auto vocabulary = ReadGgufVocabulary(**file);
  if (!vocabulary.ok()) return vocabulary.status();
  return Tokenizer::FromGguf(*std::move(vocabulary));
}

void Write(std::ofstream& out, uint32_t number) { out.write(reinterpret_cast<const char*>(&number), sizeof(number)); }

void Write(std::ofstream& out, const std::string& text) {
  Write(out, static_cast<uint32_t>(text.size()));
  out << text;
}

int Main(const std::string& vocabulary, const std::string& records_path, const std::string& output) {
  const size_t before = mallinfo2().uordblks + mallinfo2().hblkhd;
  const Clock::time_point start = Clock::now();
  const auto loaded = Load(vocabulary);
  if (!loaded.ok()) {
    std::fprintf(stderr, "%s\n", loaded.status().ToString().c_str());
    return 1;
  }
  const Tokenizer& tokenizer = **loaded;
  std::printf("loaded in %.3f s, keeps %.1f MiB\n", Seconds(start),
              (mallinfo2().uordblks + mallinfo2().hblkhd - before) / 1048576.0);

  const std::string records = ReadTestFile(records_path);
  std::ofstream out(output, std::ios::binary);
  double seconds = 0;
  size_t bytes = 0, tokens = 0;
  for (size_t at = 0; at + 4 <= records.size();) {
    uint32_t length;
    std::memcpy(&length, records.data() + at, sizeof(length));
    const std::string_view text = std::string_view(records).substr(at + 4, length);
    at += 4 + length;
    const Clock::time_point encode_start = Clock::now();
    const std::vector<TokenId> ids = tokenizer.Encode(text, Tokenizer::SpecialTokens::kParse);
    const double taken = Seconds(encode_start);
    if (taken > 0.05) std::printf("  %u bytes, %zu tokens: %.3f s\n", length, ids.size(), taken);
    seconds += taken;
    bytes += length;
    tokens += ids.size();
    Write(out, static_cast<uint32_t>(ids.size()));
    for (const TokenId id : ids) Write(out, static_cast<uint32_t>(id));
    for (const bool skip : {false, true}) Write(out, tokenizer.Decode(ids, skip));
  }
  std::printf("encoded %.2f MB to %zu tokens in %.3f s: %.1f MB/s\n", bytes / 1e6, tokens, seconds,
              bytes / 1e6 / seconds);
  return out.good() ? 0 : 1;
}

}  // namespace
}  // namespace trimtab

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: tokenize VOCABULARY RECORDS OUTPUT\n");
    return 2;
  }
  return trimtab::Main(argv[1], argv[2], argv[3]);
}
