// Rows on their way into a matrix product, in the form that its matrix takes.
#ifndef TRIMTAB_MODELS_KERNELS_ROW_BUFFER_H_
#define TRIMTAB_MODELS_KERNELS_ROW_BUFFER_H_

#include <c10/util/BFloat16.h>

#include <cstdint>
#include <memory>

#include "models/kernels/quantized_matrix.h"
#include "models/model_spec.h"

namespace trimtab {

enum class RowForm { kFloat32, kBFloat16, kGroups8 };

// A view; the memory is somebody else's.
struct RowView {
  RowForm form = RowForm::kFloat32;
  int64_t columns = 0;
  const void* values = nullptr;                    // [rows, columns] float32, bfloat16 or int8
  const float *scales = nullptr, *sums = nullptr;  // kGroups8: see QuantizedRows

  QuantizedRows groups() const {
    return {static_cast<int8_t*>(const_cast<void*>(values)), const_cast<float*>(scales), const_cast<float*>(sums),
            columns};
  }
};

// Memory that is kept from step to step. Different rows may be set by different threads.
class RowBuffer {
 public:
  // Room for `rows` rows, contents undefined. Allocates only when it has to grow.
  void Reset(RowForm form, int64_t rows, int64_t columns);
  // Writes columns [first, first + count) of a row, converted; for kGroups8 whole groups.
  void Set(int64_t row, int64_t first, int64_t count, const float* values);
  RowView view() const { return {form_, columns_, data_.get(), scales_, sums_}; }

 private:
  RowForm form_ = RowForm::kFloat32;
  int64_t columns_ = 0;
  size_t capacity_ = 0;  // bytes
  std::shared_ptr<uint8_t[]> data_;
  float *scales_ = nullptr, *sums_ = nullptr;  // within data_
};

// x / sqrt(mean(x^2) + eps) * weight for one row x [size], written to row `row` of `out`.
void NormalizeRow(const float* x, const float* weight, int64_t size, float eps, RowBuffer& out, int64_t row);
// The same onto itself, in float32.
void NormalizeInPlace(float* x, const float* weight, int64_t size, float eps);
// to[i] = a[i] + b[i].
void AddRow(const float* a, const float* b, int64_t size, float* to);
// to[i] = activation(gate[i]) * up[i]; `to` may be `gate`.
void GateRow(const float* gate, const float* up, int64_t size, Activation activation, float* to);

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_KERNELS_ROW_BUFFER_H_
