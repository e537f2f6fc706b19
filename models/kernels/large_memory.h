// Memory that every step reads from end to end, such as weights: on huge pages where the system has them, because
// looking up small ones takes as long as reading. Any thread.
#ifndef TRIMTAB_MODELS_KERNELS_LARGE_MEMORY_H_
#define TRIMTAB_MODELS_KERNELS_LARGE_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <memory>

namespace trimtab {

// `bytes` zeros on a 64-byte boundary. Neighbours in the order of the calls share pages; a region goes back to the
// system when all that lies in it is gone. Throws std::bad_alloc.
std::shared_ptr<uint8_t[]> AllocateLarge(size_t bytes);

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_KERNELS_LARGE_MEMORY_H_
