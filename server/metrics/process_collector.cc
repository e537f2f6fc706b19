#include "server/metrics/process_collector.h"

#include <prometheus/metric_type.h>
#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <system_error>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace trimtab {
namespace {

using prometheus::MetricFamily;
using prometheus::MetricType;

std::string ReadFile(const char* path) {
  std::ifstream file(path);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

void Add(std::vector<MetricFamily>& families, MetricType type, const char* name, const char* help, double value) {
  MetricFamily family{.name = name, .help = help, .type = type, .metric = {{}}};
  (type == MetricType::Counter ? family.metric[0].counter.value : family.metric[0].gauge.value) = value;
  families.push_back(std::move(family));
}

// Unix time at which the machine started; 0 when unknown.
double BootTime() {
  const std::string text = ReadFile("/proc/stat");
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::vector<absl::string_view> words = absl::StrSplit(line, ' ');
    double seconds = 0;
    if (words[0] == "btime" && words.size() > 1 && absl::SimpleAtod(words[1], &seconds)) return seconds;
  }
  return 0;
}

}  // namespace

std::vector<MetricFamily> ProcessCollector::Collect() const {
  std::vector<MetricFamily> families;
  // See proc(5). The fields follow the command's name, which may hold anything but is in parentheses.
  const std::string stat = ReadFile("/proc/self/stat");
  const size_t after_name = stat.rfind(") ");
  const std::vector<std::string> fields =
      absl::StrSplit(after_name == std::string::npos ? "" : stat.substr(after_name + 2), ' ');
  const auto field = [&fields](size_t number) {  // numbered as in proc(5); the first after the name is 3
    double value = 0;
    return number - 3 < fields.size() && absl::SimpleAtod(fields[number - 3], &value) ? value : 0.0;
  };
  if (fields.size() > 24 - 3) {
    const double ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
    Add(families, MetricType::Counter, "process_cpu_seconds_total", "User and system processor time.",
        (field(14) + field(15)) / ticks);
    Add(families, MetricType::Gauge, "process_virtual_memory_bytes", "Size of the address space.", field(23));
    Add(families, MetricType::Gauge, "process_resident_memory_bytes", "Memory in use.",
        field(24) * static_cast<double>(sysconf(_SC_PAGESIZE)));
    if (const double boot = BootTime(); boot > 0) {
      Add(families, MetricType::Gauge, "process_start_time_seconds", "When the process started, Unix time.",
          boot + field(22) / ticks);
    }
  }
  std::error_code error;
  double open_files = 0;
  for (std::filesystem::directory_iterator file("/proc/self/fd", error), end; !error && file != end;
       file.increment(error)) {
    ++open_files;
  }
  if (!error) Add(families, MetricType::Gauge, "process_open_fds", "Open file descriptors.", open_files);
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    Add(families, MetricType::Gauge, "process_max_fds", "Most file descriptors that may be open.",
        static_cast<double>(limit.rlim_cur));
  }
  return families;
}

}  // namespace trimtab
