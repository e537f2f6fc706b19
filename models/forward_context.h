// Everything that one forward pass needs beside the weights; passed explicitly, no globals.
#ifndef TRIMTAB_MODELS_FORWARD_CONTEXT_H_
#define TRIMTAB_MODELS_FORWARD_CONTEXT_H_

#include "models/attention/attention_backend.h"
#include "models/layer_tap.h"
#include "models/model_spec.h"
#include "models/token_layout.h"

namespace trimtab {

struct Workspace;  // models/layers/workspace.h

struct ForwardContext {
  const TokenLayout& layout;
  AttentionBackend& attention;
  LayerTap& tap;
  int64_t num_layers = -1;  // run only the first so many blocks (early exit); -1: all
  int64_t first_layer = 0;  // start at this block: the input is the residual stream that enters it
  Arithmetic arithmetic = Arithmetic::kIntegers;
  // Memory of inference passes, and of their result; null: allocated for this pass.
  Workspace* workspace = nullptr;
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_FORWARD_CONTEXT_H_
