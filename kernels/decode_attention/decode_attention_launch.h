// Between the launcher and the kernels: one function per format and kernel, each instantiated in
// one .cu file.
#pragma once

#include <utility>

#include "kernels/common/kv_format.h"
#include "kernels/decode_attention/decode_attention_runs.h"

namespace kvfathom::kernels::decode {

/// The head sizes that a format has kernels for: blocks of 32 do not divide 80.
template <KvFormat kFormat>
constexpr auto head_dims() {
  if constexpr (kFormat == KvFormat::q8_0 || kFormat == KvFormat::q4_0) {
    return std::integer_sequence<int, 64, 96, 128, 192, 256>{};
  } else {
    return std::integer_sequence<int, 64, 80, 96, 128, 192, 256>{};
  }
}

/// See block_task.
inline simt::Dim3 block_grid(const Arguments& arguments, int rows_per_block) {
  const DecodeAttentionParams& params = arguments.params;
  const int ratio = params.n_heads / params.cache.n_kv_heads;
  const int row_blocks = (ratio + rows_per_block - 1) / rows_per_block;
  return {static_cast<unsigned>(arguments.states.n_splits),
          static_cast<unsigned>(params.cache.n_kv_heads * row_blocks),
          static_cast<unsigned>(params.cache.n_sequences)};
}

template <KvFormat kFormat>
void launch_tensor_kernel(const Arguments& arguments, Stream stream);
template <KvFormat kFormat>
void launch_cuda_core_kernel(const Arguments& arguments, Stream stream);

}  // namespace kvfathom::kernels::decode
