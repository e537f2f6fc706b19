// Where in a block a vector is measured and applied. No torch.
#ifndef TRIMTAB_MODELS_SITE_H_
#define TRIMTAB_MODELS_SITE_H_

namespace trimtab {

enum class Site {
  kBlockOutput = 1,      // residual stream after the block's MLP add, before any final norm
  kAttentionOutput = 2,  // what attention adds to the residual stream: behind its norm where it has one
  kMlpOutput = 3,        // what the MLP adds to it, likewise
  kAttentionHeads = 4,   // what attention's heads give to their output projection, one after another; no vector's site
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_SITE_H_
