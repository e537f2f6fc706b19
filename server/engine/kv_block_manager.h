// Which block of the KV cache belongs to whom, and which holds a prefix that others may share. Bookkeeping only, no
// torch: the tensors are KvCache's. Used by Scheduler on the engine thread.
#ifndef TRIMTAB_SERVER_ENGINE_KV_BLOCK_MANAGER_H_
#define TRIMTAB_SERVER_ENGINE_KV_BLOCK_MANAGER_H_

#include <cstdint>
#include <list>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "models/tokenizer/token_id.h"
#include "server/base/hash.h"

namespace trimtab {

// Identity of a full block's content: everything that its keys and values depend on. `parent` is the identity of the
// block before it (all zero for the first), `steering` is SteeringPlan::BlockKey of the block's positions. 128 bits of
// SHA-256: equal keys mean equal content, so hits need no comparison of tokens.
Digest128 PrefixKey(const Digest128& parent, absl::Span<const TokenId> tokens, const Digest128& steering);

// Blocks are free, referenced by one or more sequences, or cached: unreferenced but holding a published prefix, and
// taken back, least recently used first, when no free block is left. A published block is full and never written again;
// sharing copies nothing.
class KvBlockManager {
 public:
  KvBlockManager(int64_t num_blocks, int64_t block_size);

  // How many leading keys of `keys` are held.
  int64_t CountCached(absl::Span<const Digest128> keys) const;
  // Takes one reference on each of the leading blocks that are held, at most keys.size(); returns them in order.
  std::vector<int32_t> AcquireCached(absl::Span<const Digest128> keys);
  // Appends `count` blocks with one reference each to `blocks`; false, and nothing happens, when fewer are available.
  bool Allocate(int64_t count, std::vector<int32_t>& blocks);
  // Lets others find a referenced block whose `block_size` positions are all computed. The first block of a key wins; a
  // later one stays private to its sequence.
  void Publish(int32_t block, const Digest128& key);
  // Gives one reference on each back. The last blocks of the sequence are forgotten first.
  void Release(absl::Span<const int32_t> blocks);

  // Blocks that Allocate could give.
  int64_t available() const { return static_cast<int64_t>(free_.size() + cached_.size()); }
  int64_t num_blocks() const { return static_cast<int64_t>(blocks_.size()); }
  int64_t block_size() const { return block_size_; }
  // Blocks that hold `tokens` positions.
  int64_t BlocksFor(int64_t tokens) const { return (tokens + block_size_ - 1) / block_size_; }
  int64_t references(int32_t block) const { return blocks_[block].references; }

  // INTERNAL says which invariant does not hold: each block is in exactly one of the three states, and the index of
  // keys names exactly the published blocks. Linear time; for tests.
  absl::Status CheckInvariants() const;

 private:
  struct KeyHash {
    size_t operator()(const Digest128& key) const { return static_cast<size_t>(key[0]); }
  };
  struct Block {
    int64_t references = 0;
    bool published = false;
    Digest128 key = {};                   // while published
    std::list<int32_t>::iterator cached;  // place in cached_ while published and unreferenced
  };

  int64_t block_size_;
  std::vector<Block> blocks_;
  std::vector<int32_t> free_;  // unreferenced and unpublished
  std::list<int32_t> cached_;  // unreferenced and published, least recently used first
  std::unordered_map<Digest128, int32_t, KeyHash> by_key_;
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_ENGINE_KV_BLOCK_MANAGER_H_
