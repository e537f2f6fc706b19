#include "server/engine/kv_block_manager.h"

#include "absl/strings/str_cat.h"

namespace trimtab {

Digest128 PrefixKey(const Digest128& parent, absl::Span<const TokenId> tokens, const Digest128& steering) {
  Sha256 hash;
  hash.Update(parent.data(), sizeof(parent));
  hash.Update(steering.data(), sizeof(steering));
  hash.Update(tokens.data(), tokens.size() * sizeof(TokenId));
  return hash.Finish128();
}

KvBlockManager::KvBlockManager(int64_t num_blocks, int64_t block_size) : block_size_(block_size), blocks_(num_blocks) {
  free_.reserve(num_blocks);
  for (int64_t block = num_blocks - 1; block >= 0; --block) free_.push_back(static_cast<int32_t>(block));
}

int64_t KvBlockManager::CountCached(absl::Span<const Digest128> keys) const {
  int64_t count = 0;
  for (const Digest128& key : keys) {
    if (by_key_.find(key) == by_key_.end()) break;
    ++count;
  }
  return count;
}

std::vector<int32_t> KvBlockManager::AcquireCached(absl::Span<const Digest128> keys) {
  std::vector<int32_t> blocks;
  for (const Digest128& key : keys) {
    const auto it = by_key_.find(key);
    if (it == by_key_.end()) break;
    Block& block = blocks_[it->second];
    if (block.references++ == 0) cached_.erase(block.cached);
    blocks.push_back(it->second);
  }
  return blocks;
}

bool KvBlockManager::Allocate(int64_t count, std::vector<int32_t>& blocks) {
  if (count > available()) return false;
  for (int64_t i = 0; i < count; ++i) {
    int32_t id;
    if (!free_.empty()) {
      id = free_.back();
      free_.pop_back();
    } else {
      id = cached_.front();
      cached_.pop_front();
      by_key_.erase(blocks_[id].key);
      blocks_[id].published = false;
    }
    blocks_[id].references = 1;
    blocks.push_back(id);
  }
  return true;
}

void KvBlockManager::Publish(int32_t id, const Digest128& key) {
  Block& block = blocks_[id];
  if (block.published || !by_key_.emplace(key, id).second) return;
  block.published = true;
  block.key = key;
}

void KvBlockManager::Release(absl::Span<const int32_t> blocks) {
  for (auto it = blocks.rbegin(); it != blocks.rend(); ++it) {
    Block& block = blocks_[*it];
    if (--block.references > 0) continue;
    if (block.published) {
      block.cached = cached_.insert(cached_.end(), *it);
    } else {
      free_.push_back(*it);
    }
  }
}

absl::Status KvBlockManager::CheckInvariants() const {
  std::vector<int> lists(blocks_.size(), 0);
  for (int32_t id : free_) {
    ++lists[id];
    if (blocks_[id].published) return absl::InternalError(absl::StrCat("free block ", id, " is published"));
  }
  for (int32_t id : cached_) {
    ++lists[id];
    if (!blocks_[id].published) return absl::InternalError(absl::StrCat("cached block ", id, " is not published"));
  }
  size_t published = 0;
  for (size_t id = 0; id < blocks_.size(); ++id) {
    const Block& block = blocks_[id];
    const int expected = block.references == 0 ? 1 : 0;
    if (block.references < 0 || lists[id] != expected) {
      return absl::InternalError(
          absl::StrCat("block ", id, " has ", block.references, " references and is in ", lists[id], " lists"));
    }
    if (!block.published) continue;
    ++published;
    const auto it = by_key_.find(block.key);
    if (it == by_key_.end() || it->second != static_cast<int32_t>(id)) {
      return absl::InternalError(absl::StrCat("published block ", id, " cannot be found by its key"));
    }
  }
  if (published != by_key_.size()) {
    return absl::InternalError(absl::StrCat(by_key_.size(), " keys for ", published, " published blocks"));
  }
  return absl::OkStatus();
}

}  // namespace trimtab
