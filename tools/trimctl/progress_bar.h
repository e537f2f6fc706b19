// One line that shows how far a job is. On a terminal the line is redrawn in place; elsewhere a new line is written
// when the phase changes or another tenth is done. One thread.
#ifndef TRIMTAB_TOOLS_TRIMCTL_PROGRESS_BAR_H_
#define TRIMTAB_TOOLS_TRIMCTL_PROGRESS_BAR_H_

#include <optional>
#include <ostream>
#include <string>

namespace trimtab {

struct ProgressState {
  std::string phase;                  // "scoring tokens"
  double percent = 0;                 // of the whole job, 0 to 100
  int completed = 0, total = 0;       // items of this phase; total 0 hides them
  std::optional<double> eta_seconds;  // time left, if known

  bool operator==(const ProgressState&) const = default;
};

class ProgressBar {
 public:
  // Writes to `out`, which must outlive the bar; `terminal` says whether it is one.
  ProgressBar(std::ostream& out, bool terminal) : out_(out), terminal_(terminal) {}
  // Removes the line from a terminal.
  ~ProgressBar() { Clear(); }
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void Update(const ProgressState& state);
  // Removes the line, so that other text can be written; the next Update draws it again.
  void Clear();

 private:
  std::ostream& out_;
  const bool terminal_;
  std::optional<ProgressState> shown_;
};

// "[######..............]  31 %  scoring tokens  19/62  12 s left"
std::string FormatProgress(const ProgressState& state);

}  // namespace trimtab

#endif  // TRIMTAB_TOOLS_TRIMCTL_PROGRESS_BAR_H_
