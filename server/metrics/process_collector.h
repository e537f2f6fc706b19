// The standard process_* metrics, read from /proc when scraped.
#ifndef TRIMTAB_SERVER_METRICS_PROCESS_COLLECTOR_H_
#define TRIMTAB_SERVER_METRICS_PROCESS_COLLECTOR_H_

#include <prometheus/collectable.h>
#include <prometheus/metric_family.h>

#include <vector>

namespace trimtab {

// Thread-safe. What cannot be read is left out.
class ProcessCollector final : public prometheus::Collectable {
 public:
  std::vector<prometheus::MetricFamily> Collect() const override;
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_METRICS_PROCESS_COLLECTOR_H_
