// Stop sequences in a stream of text, also across token borders. One per stream, on the egress pool; not thread-safe.
#ifndef TRIMTAB_MODELS_TOKENIZER_STOP_MATCHER_H_
#define TRIMTAB_MODELS_TOKENIZER_STOP_MATCHER_H_

#include <string>
#include <string_view>
#include <vector>

namespace trimtab {

// The stream ends with the stop sequence that is complete first; of those complete at the same byte, the longest
// counts. Nothing of it, and nothing after it, is ever given out. How the text is cut into pieces makes no difference.
class StopMatcher {
 public:
  // Empty sequences are ignored.
  explicit StopMatcher(std::vector<std::string> stop_sequences);

  struct Result {
    std::string text;      // safe to give out
    bool stopped = false;  // a stop sequence is complete
  };

  // Takes the next text; holds back an end of it that may begin a stop sequence. After a stop: empty, stopped.
  Result Push(std::string_view text);

  // The text held back, when the stream ends for another reason; empty after a stop.
  std::string Flush();

 private:
  // One stop sequence and how far the text's end matches its beginning (Knuth, Morris and Pratt).
  struct Matcher {
    std::string sequence;
    std::vector<size_t> failure;  // failure[k]: longest proper border of the first k + 1 bytes
    size_t matched = 0;

    void Advance(char byte);
  };

  std::vector<Matcher> matchers_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_TOKENIZER_STOP_MATCHER_H_
