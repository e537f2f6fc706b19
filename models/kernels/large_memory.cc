#include "models/kernels/large_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace trimtab {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kRegion = size_t{64} << 20;  // pages that nobody writes to take no memory
constexpr size_t kAlignment = 64;

size_t RoundUp(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

class Region {
 public:
  explicit Region(size_t size) : mapped_(RoundUp(size, kHugePage) + kHugePage) {
    void* memory = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    memory_ = static_cast<uint8_t*>(memory);
    begin_ = reinterpret_cast<uint8_t*>(RoundUp(reinterpret_cast<uintptr_t>(memory_), kHugePage));
    size_ = RoundUp(size, kHugePage);
    madvise(begin_, size_, MADV_HUGEPAGE);  // without it the pages are small: slower, not wrong
  }
  ~Region() { munmap(memory_, mapped_); }
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

  // Null when it is full.
  uint8_t* Take(size_t bytes) {
    const size_t begin = RoundUp(used_, kAlignment);
    if (begin > size_ || bytes > size_ - begin) return nullptr;
    used_ = begin + bytes;
    return begin_ + begin;
  }

 private:
  const size_t mapped_;
  uint8_t *memory_, *begin_;
  size_t size_, used_ = 0;
};

absl::Mutex mutex(absl::kConstInit);
std::weak_ptr<Region>& Current() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
  static std::weak_ptr<Region>& current = *new std::weak_ptr<Region>;
  return current;
}

}  // namespace

std::shared_ptr<uint8_t[]> AllocateLarge(size_t bytes) {
  absl::MutexLock lock(&mutex);
  std::shared_ptr<Region> region = Current().lock();
  uint8_t* memory = region == nullptr ? nullptr : region->Take(bytes);
  if (memory == nullptr) {
    region = std::make_shared<Region>(std::max(bytes, kRegion));
    memory = region->Take(bytes);
    Current() = region;
  }
  return std::shared_ptr<uint8_t[]>(region, memory);
}

}  // namespace trimtab
