// Limits on what a chat template may do while it renders: the engine has none, and templates come from model files.
// llama_cpp_jinja.BUILD puts these checks into the engine's sources; models/tokenizer/chat_template.cc resets them
// before each rendering. All state belongs to the thread that renders; a breach throws.
#ifndef TRIMTAB_THIRD_PARTY_JINJA_GUARD_H_
#define TRIMTAB_THIRD_PARTY_JINJA_GUARD_H_

#include <cstddef>
#include <cstdint>
#include <stdexcept>

namespace trimtab {

struct JinjaLimits {
  static constexpr int kMaxDepth = 400;              // nested executions: about 3 MiB of stack
  static constexpr int64_t kMaxSteps = 100'000;      // executed nodes: about a second; 20 a message are usual
  static constexpr size_t kMaxTextBytes = 16 << 20;  // of one intermediate text, its parts' overhead included
  static constexpr int64_t kMaxCount = 100'000;      // repetitions, elements of range(), width of indent()
};

inline thread_local int jinja_depth = 0;
inline thread_local int64_t jinja_steps = 0;

// Stands for the execution of one node of a template.
class JinjaExecution {
 public:
  JinjaExecution() {
    if (jinja_depth >= JinjaLimits::kMaxDepth) throw std::runtime_error("the template nests too deeply");
    if (++jinja_steps > JinjaLimits::kMaxSteps) throw std::runtime_error("the template takes too many steps");
    ++jinja_depth;
  }
  ~JinjaExecution() { --jinja_depth; }
  JinjaExecution(const JinjaExecution&) = delete;
  JinjaExecution& operator=(const JinjaExecution&) = delete;
};

// For a text of so many bytes in so many parts; each part is an object of its own.
inline void CheckJinjaText(size_t bytes, size_t parts) {
  if (bytes + 64 * parts > JinjaLimits::kMaxTextBytes) throw std::runtime_error("the template makes too long a text");
}

// Returns `count`.
inline int64_t CheckJinjaCount(int64_t count) {
  if (count > JinjaLimits::kMaxCount || count < -JinjaLimits::kMaxCount) {
    throw std::runtime_error("the template repeats too often");
  }
  return count;
}

}  // namespace trimtab

#endif  // TRIMTAB_THIRD_PARTY_JINJA_GUARD_H_
