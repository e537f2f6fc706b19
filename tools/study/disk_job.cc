#include "tools/study/disk_job.h"

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/hash.h"

namespace trimtab {

DiskJob::DiskJob(std::string folder, const std::atomic<bool>& interrupted)
    : folder_(std::move(folder)), interrupted_(interrupted) {}

absl::Status DiskJob::Checkpoint() {
  if (interrupted_) return absl::UnavailableError("interrupted; the same command goes on from here");
  return absl::OkStatus();
}

void DiskJob::Report(const JobProgress&) {}

std::string DiskJob::PathOf(std::string_view key) const { return absl::StrCat(folder_, "/", Sha256Hex(key)); }

absl::Status DiskJob::SavePartial(std::string_view key, std::string_view bytes) {
  return WriteFileAtomically(PathOf(key), bytes);
}

absl::StatusOr<std::optional<std::string>> DiskJob::LoadPartial(std::string_view key) {
  std::ifstream file(PathOf(key), std::ios::binary);
  if (!file) return std::optional<std::string>();
  return std::optional<std::string>(std::string(std::istreambuf_iterator<char>(file), {}));
}

absl::Status WriteFileAtomically(const std::string& path, std::string_view bytes) {
  const std::string unfinished = path + ".part";
  std::ofstream file(unfinished, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  std::error_code error;
  if (file) std::filesystem::rename(unfinished, path, error);
  if (file && !error) return absl::OkStatus();
  std::remove(unfinished.c_str());
  return absl::PermissionDeniedError(absl::StrCat(path, ": cannot be written"));
}

}  // namespace trimtab
