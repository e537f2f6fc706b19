// Where in a block a vector is measured and applied. No torch.
#ifndef TRIMTAB_MODELS_SITE_H_
#define TRIMTAB_MODELS_SITE_H_

namespace trimtab {

enum class Site {
  kBlockOutput = 1,      // residual stream after the block's MLP add, before any final norm
  kAttentionOutput = 2,  // output of the attention projection, before its residual add
  kMlpOutput = 3,        // output of the MLP, before its residual add
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_SITE_H_
