// A --model_root with small real models in it, for tests.
#ifndef TRIMTAB_TESTS_SERVER_MODEL_FOLDER_H_
#define TRIMTAB_TESTS_SERVER_MODEL_FOLDER_H_

#include <gtest/gtest.h>

#include <filesystem>
#include <string>

namespace trimtab {

// Copies a golden model ("tiny" or "tiny_biased": other weights, same tokenizer) to `folder`/`name`; data files of
// tests are links, which a model root does not follow.
inline void CopyModel(const std::string& model, const std::string& folder, const std::string& name) {
  namespace fs = std::filesystem;
  fs::create_directories(folder + "/" + name);
  for (const fs::directory_entry& entry : fs::directory_iterator("tests/golden/data/llama/" + model)) {
    if (entry.path().filename() == "golden.safetensors") continue;
    std::error_code error;
    fs::copy_file(fs::canonical(entry.path()), folder + "/" + name + "/" + entry.path().filename().string(),
                  fs::copy_options::overwrite_existing, error);
    EXPECT_FALSE(error) << entry.path() << ": " << error.message();
  }
}

}  // namespace trimtab

#endif  // TRIMTAB_TESTS_SERVER_MODEL_FOLDER_H_
