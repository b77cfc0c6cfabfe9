// Launching a case of decode attention on the device, with everything poisoned that it must write.
#pragma once

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "tests/kernels/decode_attention/decode_attention_case.h"

namespace kvfathom::kernels {

inline constexpr DecodeKernel kBothKernels[] = {DecodeKernel::cuda_cores,
                                                DecodeKernel::tensor_cores};

inline std::string kernel_name(DecodeKernel kernel) {
  return kernel == DecodeKernel::cuda_cores ? "cuda_cores" : "tensor_cores";
}

/// CUDA cores work in binary32 throughout. The tensor-core kernel rounds softmax weights to its
/// operands' format, and values with a scale per block once more as they are widened.
inline Roundings roundings_of(KvFormat format, DecodeKernel kernel) {
  Roundings u;
  if (kernel == DecodeKernel::tensor_cores) {
    if (format == KvFormat::bf16) {
      u.probabilities = kUnitRoundoffBf16;
    } else {
      u.probabilities = kUnitRoundoffF16;
      u.smallest_weight = kSmallestWeightF16;
    }
    const bool block_scales = format == KvFormat::q8_0 || format == KvFormat::q4_0;
    u.operands = block_scales ? kUnitRoundoffF16 : 0.0;
  }
  return u;
}

using Change = std::function<void(DecodeAttentionParams&)>;

/// Launches with poisoned scratch and outputs. `change` spoils the arguments on purpose.
inline std::vector<float> launched(DecodeAttentionCase& data,
                                   int n_splits,
                                   DecodeKernel kernel,
                                   const Change& change = {}) {
  DecodeAttentionParams params = data.device_params();
  const DeviceArray<float> out(std::vector<float>(data.out_size(), NAN));
  params.out = out.data();
  if (change) {
    change(params);
  }
  const std::size_t scratch_bytes = decode_attention_scratch_bytes(params, n_splits);
  const DeviceArray<float> scratch(std::vector<float>(scratch_bytes / sizeof(float), NAN));
  decode_attention_launch(params, n_splits, scratch.data(), nullptr, kernel);
  synchronize();
  return out.to_host();
}

inline DecodeAttentionSpec spec_of(KvFormat format,
                                   int head_dim,
                                   int n_kv_heads,
                                   int heads_per_kv_head,
                                   std::vector<int> lengths) {
  DecodeAttentionSpec spec;
  spec.cache.format = format;
  spec.cache.n_kv_heads = n_kv_heads;
  spec.cache.k_dim = head_dim;
  spec.cache.v_dim = head_dim;
  spec.cache.lengths = std::move(lengths);
  spec.heads_per_kv_head = heads_per_kv_head;
  return spec;
}

inline bool is_built(KvFormat format, int head_dim) {
  return head_dim % kQuantBlock == 0 || (format != KvFormat::q8_0 && format != KvFormat::q4_0);
}

}  // namespace kvfathom::kernels
